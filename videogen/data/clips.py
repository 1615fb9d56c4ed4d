"""Batches of clips: what stands at each step, drawn by address, decoded ahead by threads.

The position in the data is the step's number. Everything that is random about a clip (which, its window, crop, mirroring, caption) is a
function of (seed, step, place in the batch), so a run resumes where it was without stored random states or shuffle buffers, and processes
agree on the batch that they share.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from videogen.data.captions import sided
from videogen.data.chance import uniform
from videogen.data.facts import ordered
from videogen.data.fitting import Fit
from videogen.data.listing import Listing, all_listed
from videogen.data.opening import Reader, check_reader, opened
from videogen.data.plan import Item, Plan, planned
from videogen.data.rows import Rejected, Row
from videogen.data.settings import Data
from videogen.data.tally import Tally
from videogen.data.windows import Extent, check_frames, starts, window
from videogen.errors import InputError


@dataclass(frozen=True)
class Drawn:
    """A row and what chance has made of it. `place`, in [0, 1), says where its window begins; numbers follow when its length is known."""

    row: Row
    item: Item
    place: float
    x: float
    y: float
    mirrored: bool
    caption: str

    def numbers(self, data: Data, extent: Extent) -> list[int]:
        """The frames. Raises InputError where the clip is too short for its shape."""
        count = self.item.shape.frames
        check_frames(data, extent, count)
        which = self.item.window
        if which < 0:
            which = int(self.place * len(starts(data, extent, count)))
        return window(data, extent, count, which)


def drawn(data: Data, row: Row, item: Item, *address: object) -> Drawn:
    """What stands at an address: caption, window, crop, mirroring. A caption that says left or right keeps its clip from being mirrored."""
    caption = row.captions[int(uniform(*address, "caption") * len(row.captions))]
    return Drawn(
        row=row,
        item=item,
        place=uniform(*address, "window"),
        x=uniform(*address, "x") if data.crop == "random" else 0.5,
        y=uniform(*address, "y") if data.crop == "random" else 0.5,
        mirrored=data.flip and not sided(row.captions) and uniform(*address, "flip") < 0.5,
        caption="" if uniform(*address, "drop") < data.drop else caption,
    )


@dataclass(frozen=True)
class Clip:
    """One clip as it is trained on: frames `f 3 h w` uint8, which frames they are of a clip of that extent."""

    frames: Tensor
    numbers: tuple[int, ...]
    extent: Extent


def clip(data: Data, one: Drawn, reader: Reader = "pyav") -> Clip:
    """Read what was drawn. Raises InputError, without the row's name, where it cannot be read."""
    with opened(one.row.place, reader) as source:
        numbers = one.numbers(data, source.extent)
        pixels = source.frames(numbers, Fit(one.item.shape.width, one.item.shape.height, one.x, one.y))
        if one.mirrored:
            pixels = pixels[:, :, ::-1]
        frames = rearrange(torch.from_numpy(np.ascontiguousarray(pixels)), "f h w c -> f c h w")
        return Clip(frames.contiguous(), tuple(numbers), source.extent)


@dataclass(frozen=True)
class Batch:
    """This process's share of a step.

    frames  `b f 3 h w` uint8; a clip that could not be read is black
    counts  `b` float32, 1, or 0 for a clip that could not be read: what multiplies each clip's loss
    rates   `b`, frames a second between the frames as they are, 0 for pictures
    """

    step: int
    keys: tuple[str, ...]
    captions: tuple[str, ...]
    frames: Tensor
    counts: Tensor
    rates: Tensor
    broken: tuple[Rejected, ...] = ()

    def pixels(self) -> Tensor:
        """`b f 3 h w` float32 in [-1, 1]."""
        return self.frames.float() / 127.5 - 1


Read = TypeVar("Read")


@dataclass(frozen=True)
class Step(Generic[Read]):
    """This process's share of a step before it is put together: what was drawn, and what was read of it or why it could not be."""

    number: int
    drawn: tuple[Drawn, ...]
    read: tuple[Read | Rejected, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The rows' keys."""
        return tuple(one.row.key for one in self.drawn)

    @property
    def captions(self) -> tuple[str, ...]:
        """Captions, empty where they were dropped."""
        return tuple(one.caption for one in self.drawn)

    @property
    def broken(self) -> tuple[Rejected, ...]:
        """What could not be read."""
        return tuple(one for one in self.read if isinstance(one, Rejected))

    @property
    def counts(self) -> Tensor:
        """See `Batch.counts`."""
        return torch.tensor([0.0 if isinstance(one, Rejected) else 1.0 for one in self.read])


class Clips:
    """The clips of a configuration.

    Opening reads every source's layout, and every file's head where buckets ask for it. Raises InputError for what is missing or wrong in them,
    and for a reader that is not installed.
    """

    def __init__(self, data: Data, seed: int) -> None:
        if data.cache is None:  # what is in a cache is not read again
            check_reader(data.reader)
        self.data, self.seed = data, seed
        self.listings: tuple[Listing, ...] = all_listed(data)
        self.plan: Plan = planned(data, self.listings)
        self.tally = Tally(data.broken)

    def batches(self, start: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The share of process `rank` of every step from `start` on, without end.

        Raises InputError when so many clips were broken that `Data.broken` is passed.
        """
        for step in self.steps(lambda one: clip(self.data, one, self.data.reader), start, rank, ranks):
            yield batch(step)

    def steps(self, read: Callable[[Drawn], Read], start: int, rank: int, ranks: int) -> Iterator[Step[Read]]:
        """As `batches`, with another way to read what was drawn; what raises InputError counts as broken."""
        size = self.data.batch_size
        share = range(size * rank // ranks, size * (rank + 1) // ranks)
        if not share:
            raise InputError(
                f"a batch_size of {size} leaves nothing for process {rank} of {ranks}; give at least {ranks}"
            )

        def attempted(one: Drawn) -> tuple[Drawn, Read | Rejected]:
            try:
                return one, read(one)
            except InputError as problem:
                return one, Rejected(one.row.key, str(problem))

        found = ordered(attempted, self._drawn(start, share), self.data.workers, len(share) + self.data.workers)
        for number in itertools.count(start):
            pairs = list(itertools.islice(found, len(share)))
            step = Step(number, tuple(one for one, _ in pairs), tuple(read for _, read in pairs))
            self.tally.add(len(share), step.broken)
            yield step

    def _drawn(self, start: int, share: range) -> Iterator[Drawn]:
        for number, items in enumerate(self.plan.steps(self.seed, self.data.batch_size, start), start):
            for at in share:
                item = items[at]
                yield drawn(self.data, self.listings[item.source].rows[item.row], item, self.seed, number, at)


def batch(step: Step[Clip]) -> Batch:
    """The clips of a step, put together."""
    shape = step.drawn[0].item.shape
    black = torch.zeros(shape.frames, 3, shape.height, shape.width, dtype=torch.uint8)
    frames = [black if isinstance(one, Rejected) else one.frames for one in step.read]
    rates = [0.0 if isinstance(one, Rejected) else rate_of(one.numbers, one.extent) for one in step.read]
    return Batch(
        step.number, step.keys, step.captions, torch.stack(frames), step.counts, torch.tensor(rates), step.broken
    )


def rate_of(numbers: tuple[int, ...], extent: Extent) -> float:
    """Frames a second of these frames of a clip; 0 for one frame."""
    if len(numbers) < 2 or numbers[-1] == numbers[0]:
        return 0.0
    return float(Fraction(len(numbers) - 1, numbers[-1] - numbers[0]) * extent.rate)
