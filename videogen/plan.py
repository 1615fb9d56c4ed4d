"""What a call of the pipeline settles before it computes: sizes, sampler, windows, the first noise. Impossible values end here."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from videogen.control import Control
from videogen.errors import InputError
from videogen.free_init import FreeInit
from videogen.guidance import Scale
from videogen.noise import Drawn, FrameNoise, shuffled
from videogen.sampling import SAMPLERS, Sampler
from videogen.times import Times
from videogen.windows import Windows

# Frames of one pass where none knows of another.
ALONE = 16

Address = tuple[int, Sequence[int], tuple[int, int, int]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a call will do, settled before it computes.

    frames    ids of the clip's frames
    size      height and width in pixels
    latents   channels, height and width of a frame in there
    guidance  the scale, 1 for none
    sampler   fitted to the model's scheduler config; `times` are its steps, `eta` the share of fresh noise in ddim
    windows   how the clip is cut, None where it is made in one piece
    free_noise  windows are inside the temporal layers and share shuffled noise (FreeNoise)
    """

    frames: tuple[int, ...]
    size: tuple[int, int]
    latents: tuple[int, int, int]
    guidance: Scale
    sampler: Sampler
    times: Times
    eta: float
    windows: Windows | None
    free_noise: bool

    @property
    def pieces(self) -> Windows | None:
        """FreeNoise's windows, None without it."""
        return self.windows if self.free_noise else None

    @property
    def cut(self) -> tuple[tuple[int, ...], ...]:
        """The frames of each window, empty where the clip is made in one piece."""
        return () if self.windows is None else tuple(window.frames for window in self.windows.cut(self.frames))


def check_numbers(frames: int, steps: int, **scales: Any) -> None:
    """Refuse a count below 1, and scales that `check_finite` refuses."""
    if frames < 1:
        raise InputError(f"{frames} frames: a clip needs at least 1")
    if steps < 1:
        raise InputError(f"{steps} steps: sampling needs at least 1")
    check_finite(**scales)


def check_finite(**scales: Any) -> None:
    """Refuse a scale, given by its name, that is a number but not a finite one."""
    for name, value in scales.items():
        if isinstance(value, (int, float)) and not math.isfinite(value):
            raise InputError(f"{name.replace('_', ' ')} {value}: give a finite number")


def tell_unheard(guidance: Scale, negative: object, rescale: float) -> None:
    """Warn of what has no effect without guidance."""
    if guidance == 1 and (negative or rescale):
        what = "the negative prompt has" if negative else "rescaling has"
        warnings.warn(
            f"without guidance (a scale of 1) {what} no effect; raise the scale, or leave it out", stacklevel=3
        )


def check_together(
    plan: Plan, latents: Tensor | None, control: Control | None, free_init: FreeInit | None, *, batched: bool
) -> None:
    """Refuse what does not go together in one call."""
    if control is not None and not batched and plan.guidance != 1:
        raise InputError(
            "a control may join the branches of guidance, which are not in one call here; use guidance_batched=True"
        )
    if plan.times.late and latents is None:
        raise InputError("with denoising_start a call goes on from latents; give latents=")
    if free_init is not None and not plan.times.whole:
        raise InputError("FreeInit samples the whole path again and again; leave denoising_start and denoising_end out")


def size_of(height: int | None, width: int | None, default: tuple[int, int], factor: int) -> tuple[int, int]:
    """Height and width in pixels, the default where None.

    Raises InputError, with the nearest that fits, where the VAE's factor does not divide one.
    """
    size = (default[0] if height is None else height, default[1] if width is None else width)
    for name, value in zip(("height", "width"), size, strict=True):
        if not float(value).is_integer():
            raise InputError(f"{name} {value}: give whole pixels")
        if value < factor or value % factor:
            near = max((value + factor // 2) // factor * factor, factor)
            raise InputError(f"{name} {value} is not a multiple of {factor}; the nearest is {near}")
    return int(size[0]), int(size[1])


def find_sampler(name: str) -> Sampler:
    """The sampler of that name. Raises InputError, with those there are."""
    if name not in SAMPLERS:
        raise InputError(f"the sampler {name!r} is not known; choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def sampler_of(name: str, config: Mapping[str, Any], eta: float, karras: bool) -> Sampler:
    """The sampler of that name with a model's `scheduler_config.json`. Raises InputError for a name or an option it does not know."""
    found = find_sampler(name)
    if eta and name != "ddim":
        raise InputError(f"eta belongs to ddim; {name} has none")
    if not 0 <= eta <= 1:
        raise InputError(f"eta {eta}: give 0 (no fresh noise) to 1 (as much as ddpm)")
    if karras and "use_karras_sigmas" not in found.reads:
        fitting = ", ".join(n for n, s in SAMPLERS.items() if "use_karras_sigmas" in s.reads)
        raise InputError(f"{name} has no Karras spacing; choose one of {fitting}")
    return found.from_config({**config, **({"use_karras_sigmas": True} if karras else {})})


def windows_of(
    asked: Windows | None,
    frames: int,
    free_noise: bool,
    longest: int | None,
    trained: int | None,
    *,
    chosen: bool = False,
) -> Windows | None:
    """The windows of a clip: those asked for, or the family's own where it is longer than the motion module allows; else None.

    longest, trained   the module's table of positions and the clips it was trained on, in frames; None without one
    chosen             a control has a say in which frames are read: then a clip is cut only where that is asked for

    Without a module frames do not know of each other, and windows that share none bound what is held at a time. Raises InputError where windows
    are longer than the table, and for FreeNoise where there is none.
    """
    if frames == 1:
        return None
    if longest is None or trained is None:
        if free_noise:
            raise InputError("FreeNoise serves motion modules, and none is loaded; give --motion, or leave it out")
        alone = Windows(ALONE, 0, "flat") if frames > ALONE and not chosen else None
        return asked or alone
    if asked is None and frames <= (trained if free_noise else longest):
        return None
    # FreeNoise's windows inside the temporal layers move by a quarter of their length, whole calls by three quarters.
    plan = asked or Windows(trained, trained - trained // 4 if free_noise else trained // 4)
    if plan.length > longest:
        raise InputError(f"windows of {plan.length} frames are longer than the motion module's {longest} positions")
    return plan


def first_noise(
    latents: Tensor | None, source: FrameNoise | Drawn, address: Address, shuffle: Windows | None
) -> Tensor:
    """The clip of noise `b f c h w` that sampling begins with: `latents` where given, else drawn for (items, frames, (c, h, w)).

    shuffle   FreeNoise's windows, None for plain noise

    Raises InputError for no items, latents of another shape, and shuffled noise without addresses.
    """
    items, frames, shape = address
    if items < 1:
        raise InputError("no prompt is given; give at least one")
    if latents is not None:
        expected = (items, len(frames), *shape)
        if tuple(latents.shape) != expected:
            raise InputError(
                f"latents have shape {tuple(latents.shape)}; this call needs {expected} (batch, frames, channels, height, width)"
            )
        return latents
    if shuffle is None:
        return source(items, frames, shape)
    if not isinstance(source, FrameNoise):
        raise InputError("FreeNoise shuffles the noise of frames by their address: give seed=, not a generator")
    return shuffled(source, *address, window=shuffle.length, stride=shuffle.length - shuffle.overlap)
