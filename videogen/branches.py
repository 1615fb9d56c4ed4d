"""A network under both sides of a condition, given and null, with the guidance between them: in one call, or in two of half the memory."""

from __future__ import annotations

from torch import Tensor

from videogen.conditioning import Conditioning, stack
from videogen.control import Control
from videogen.denoiser import Denoiser
from videogen.guidance import Scale, cfg, cfg_apart
from videogen.prediction import Denoise

Pair = tuple[Conditioning, Conditioning]
"""What every builder of a condition returns: it is given, and its null."""


def together(
    denoiser: Denoiser, pair: Pair, scale: Scale, times: Tensor, control: Control | None = None, rescale: float = 0.0
) -> Denoise:
    """Both sides in one call, the rows named `uncond` and `cond`; the given side alone where the scale is 1.

    times    the descending grid in which dials and controls count their steps
    control  sees the rows of both sides
    rescale  see `guidance.cfg`
    """
    given, null = pair
    if scale == 1:
        return denoiser.given(given.named("cond"), control, times)
    return cfg(denoiser.given(stack(uncond=null, cond=given), control, times), scale, rescale=rescale)


def apart(
    denoiser: Denoiser, pair: Pair, scale: Scale, times: Tensor, control: Control | None = None, rescale: float = 0.0
) -> Denoise:
    """The same, one side after the other. The control must not join rows: it sees those of one side at a time."""
    if scale == 1:
        return together(denoiser, pair, scale, times, control)
    given, null = pair
    uncond, cond = (
        denoiser.given(side.named(name), control, times) for side, name in ((null, "uncond"), (given, "cond"))
    )
    return cfg_apart(uncond, cond, scale, rescale=rescale)
