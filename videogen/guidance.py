"""Classifier-free guidance (Ho and Salimans 2022) as a function from a `Denoise` to a `Denoise`. No network knows of it.

A scale is a number, a function of the time, or one number per frame; all branches are read in the net's own parametrisation, in which guidance is
the same linear rule (eps, v and x0 differ by terms that both branches share).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from videogen.conditioning import keyed
from videogen.errors import InputError
from videogen.prediction import Denoise, Prediction

Scale = float | Callable[[float], float] | Sequence[float]


def cfg(denoise: Denoise, scale: Scale, *, rescale: float = 0.0) -> Denoise:
    """Guidance over one call: `denoise` is given `stack(uncond=..., cond=...)`.

    scale    s of uncond + s (cond - uncond); 1 is the conditional prediction, 0 the unconditional one
    rescale  share of the guided prediction that is scaled back to the conditional one's deviation (Lin et al. 2023, eq. 16)
    """

    def guided(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
        both = denoise(x, t, frames)
        return combine(both["uncond"], both["cond"], _scale(scale, t, frames, x), rescale).replace(kept=both.kept)

    return guided


def cfg_apart(uncond: Denoise, cond: Denoise, scale: Scale, *, rescale: float = 0.0) -> Denoise:
    """The same guidance, one branch after the other: half the memory of the activations, for a little time.

    A control that joins rows cannot act across two calls; the pipeline refuses it.
    """

    def guided(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
        without, given = uncond(x, t, frames), cond(x, t, frames)
        return combine(without, given, _scale(scale, t, frames, x), rescale).replace(
            kept={**without.kept, **given.kept}
        )

    return guided


def combine(uncond: Prediction, cond: Prediction, scale: float | Tensor, rescale: float = 0.0) -> Prediction:
    """uncond + s (cond - uncond), of one parametrisation; s a number or broadcastable to `b f c h w`."""
    out = torch.lerp(uncond.out, cond.out, scale)
    if rescale:
        axes = tuple(range(1, out.ndim))
        back = out * (cond.out.std(axes, keepdim=True) / out.std(axes, keepdim=True))
        out = torch.lerp(out, back, rescale)
    return cond.replace(out=out, rows=tuple(row - {"cond"} for row in cond.rows))


def _scale(scale: Scale, t: float | Tensor, frames: Sequence[int] | None, x: Tensor) -> float | Tensor:
    if callable(scale):
        return float(scale(float(torch.as_tensor(t).max())))
    if isinstance(scale, Sequence):
        if not scale:
            raise InputError("the guidance scales by frame are empty; give one number, or one per frame")
        ids = range(x.shape[1]) if frames is None else frames
        return x.new_tensor(keyed(scale, list(ids)))[None, :, None, None, None]
    return float(scale)
