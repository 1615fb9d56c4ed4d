"""Three ways to have the source's attention maps at every step of an edit, with the same result.

    InMemory     kept as the clip is inverted: fast, and memory grows with the number of steps
    OnDisk       the same, one safetensors file a step
    Recomputed   not kept at all: at each step the source branch is run again on the latents of the inversion, as it was run then

All three see the same calls of the same network, so they agree bit for bit where the network's arithmetic is deterministic. Each is first told of
the inversion (`listening`) and then asked for the maps of a call: `maps(t, frames)`, frames being those of a window or of the clip.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import torch
from torch import Tensor

from videogen.control import Control, Keep, Site
from videogen.errors import InputError
from videogen.files import replacing
from videogen.inversion import Trajectory
from videogen.prediction import Denoise, Prediction

Hold = Literal["recomputed", "memory", "disk"]
Maps = Mapping[str, Tensor]
Sites = Callable[[Site], bool]
Call = tuple[float, tuple[int, ...]]  # t, and the frames of the window


@dataclass(frozen=True)
class KeepAt(Control):
    """`Keep` with a schedule: at position t of the grid, the sites that `sites(t, times)` names."""

    sites: Callable[[float, Sequence[float] | None], Sites]

    def at(self, t: float, frames: tuple[int, ...], times: tuple[float, ...] | None) -> Control:
        return Keep(self.sites(t, times))


def called(x: Tensor, t: float | Tensor, frames: Sequence[int] | None) -> Call:
    """The address of a call: its t, and its frames, which are all of x's where none are named."""
    return float(t), tuple(range(x.shape[1])) if frames is None else tuple(frames)


def size_of(maps: Maps) -> int:
    """Bytes of the maps of one call."""
    return sum(probs.numel() * probs.element_size() for probs in maps.values())


@dataclass(eq=False)
class InMemory:
    """Maps of all steps, on the processor; `most` is the most bytes held at once."""

    calls: dict[Call, Maps] = field(default_factory=dict)
    most: int = 0

    def listening(self, ask: Denoise) -> Denoise:
        """`ask`, with what it keeps put aside."""

        def asked(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
            pred = ask(x, t, frames)
            maps = {place: probs.cpu() for place, probs in pred.kept.items()}
            self.calls[called(x, t, frames)] = maps
            self.most += size_of(maps)
            return pred.replace(kept={})

        return asked

    def __call__(self, t: float, frames: tuple[int, ...]) -> Maps:
        return self.calls[t, frames]


@dataclass(eq=False)
class OnDisk:
    """Maps of all steps in files of a folder; one call's are in memory at a time."""

    folder: Path
    most: int = 0
    latest: tuple[Call, Maps] | None = None

    def listening(self, ask: Denoise) -> Denoise:
        """`ask`, with what it keeps written to a file."""
        from safetensors.torch import save_file

        def asked(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
            pred = ask(x, t, frames)
            self.most = max(self.most, size_of(pred.kept))
            with replacing(self._file(called(x, t, frames))) as beside:
                save_file({place: probs.cpu().contiguous() for place, probs in pred.kept.items()}, beside)
            return pred.replace(kept={})

        return asked

    def __call__(self, t: float, frames: tuple[int, ...]) -> Maps:
        from safetensors.torch import load_file

        if self.latest is None or self.latest[0] != (t, frames):
            self.latest = None  # the last call's maps go before this one's come
            self.latest = ((t, frames), load_file(self._file((t, frames))))
        return self.latest[1]

    def _file(self, call: Call) -> Path:
        t, frames = call
        return self.folder / f"maps-{t:.6f}-{zlib.crc32(repr(frames).encode()):08x}.safetensors"


@dataclass(eq=False)
class Recomputed:
    """No maps but those of one call: the source branch `ask` runs again where `needed(t)`."""

    ask: Denoise
    needed: Callable[[float], bool]
    most: int = 0
    asked: dict[Call, tuple[Tensor, torch.device]] = field(default_factory=dict)  # x on the processor, and where it was
    followed: Trajectory | None = None
    latest: tuple[Call, Maps] | None = None

    def listening(self, ask: Denoise) -> Denoise:
        """`ask`, with the latents of each call put aside and what it keeps dropped: the same arithmetic as when the maps are made to be used."""

        def asked(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
            self.asked[called(x, t, frames)] = x.cpu(), x.device
            return ask(x, t, frames).replace(kept={})

        return asked

    def follow(self, trajectory: Trajectory) -> None:
        """Take the latents from an inversion that was made before, instead of listening to one."""
        self.followed = trajectory

    def _latents(self, t: float, frames: tuple[int, ...]) -> tuple[Tensor, torch.device]:
        if self.followed is None:
            return self.asked[t, frames]
        # The inversion asks at t about the state that the step from t arrives at.
        step = self.followed.times.t.tolist().index(t)
        return self.followed.latents[step + 1][:, list(frames)], self.followed.device

    def __call__(self, t: float, frames: tuple[int, ...]) -> Maps:
        if self.latest is None or self.latest[0] != (t, frames):
            self.latest = None  # the last call's maps go before this one's come
            found: Maps = {}
            if self.needed(t):
                latents, device = self._latents(t, frames)
                found = self.ask(latents.to(device), t, frames).kept
            self.latest = ((t, frames), found)
            self.most = max(self.most, size_of(found))
        return self.latest[1]


@contextmanager
def holding(
    way: Hold, ask: Denoise, needed: Callable[[float], bool], folder: str | Path | None = None
) -> Iterator[InMemory | OnDisk | Recomputed]:
    """One of the three ways, for the length of an edit; `folder` is where the files of `disk` go meanwhile (None: the system's place).

    Raises InputError for an unknown way, and for a folder that is missing.
    """
    if way not in get_args(Hold):
        raise InputError(f"attention held {way!r}: choose one of {', '.join(get_args(Hold))}")
    if way == "recomputed":
        yield Recomputed(ask, needed)
    elif way == "memory":
        yield InMemory()
    else:
        if folder is not None and not Path(folder).is_dir():
            raise InputError(f"the folder {folder} does not exist; create it, or leave it out")
        with TemporaryDirectory(prefix=".maps-", dir=folder) as place:
            yield OnDisk(Path(place))
