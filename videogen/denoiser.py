"""A network with what makes its output meaningful: the path it was trained on and what it predicts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videogen.applied import as_written
from videogen.conditioning import Conditioning
from videogen.control import Control
from videogen.errors import InputError
from videogen.path import Path
from videogen.prediction import Denoise, Kind, Prediction


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """A network `(x, labels, cond, control) -> (out, kept)`, its path and what it predicts (`eps`, `v`, `x0`, `flow`)."""

    net: nn.Module
    path: Path
    predicts: Kind = "eps"

    def given(
        self, cond: Conditioning, control: Control | None = None, times: Sequence[float] | Tensor | None = None
    ) -> Denoise:
        """The denoiser under a condition. `times` is the descending grid in which the dials' `steps` count."""
        check = getattr(self.net, "check", None)
        if check is not None:
            check(cond)
        grid = None if times is None else tuple(float(t) for t in times)
        return Given(self, cond, control, grid)

    def replace(self, **changes: Any) -> Denoiser:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Given:
    """A `Denoise`: the network asked under one condition.

    Where the condition has k times as many rows as x has items, x is repeated block by block.
    """

    denoiser: Denoiser
    cond: Conditioning
    control: Control | None
    times: tuple[float, ...] | None

    def __call__(self, x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
        """x `b f c h w`, t a position on the path (one for all, or one per item), frames the ids of x's frames in the whole clip."""
        if x.ndim != 5:
            raise InputError(
                f"a clip has five axes (batch, frames, channels, height, width); this one has shape {tuple(x.shape)}"
            )
        blocks, rest = divmod(self.cond.batch, x.shape[0])
        if rest or not blocks:
            raise InputError(
                f"the condition has {self.cond.batch} items and the clip {x.shape[0]}; the first must be a multiple of the second"
            )
        ids = tuple(range(x.shape[1])) if frames is None else tuple(int(i) for i in frames)
        if len(ids) != x.shape[1]:
            raise InputError(f"{len(ids)} frame ids for a clip of {x.shape[1]} frames")
        path = self.denoiser.path
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        # Training draws one time per item; dials with a schedule belong to sampling, where all items share one.
        now = float(t.max())
        cond = self.cond.at(now, ids, self.times).to(x.device)
        control = None if self.control is None else self.control.at(now, ids, self.times)
        if blocks > 1:
            x = x.repeat(blocks, 1, 1, 1, 1)
            t = t if t.ndim == 0 else t.repeat(blocks)
        labels = path.label(t).to(x.device, torch.float32).expand(x.shape[0])
        # Each new control would have the blocks compiled once more.
        with contextlib.nullcontext() if control is None or control.compiles else as_written():
            out, kept = self.denoiser.net(x, labels, cond, control)
        return Prediction(x, out, path.alpha(t), path.sigma(t), self.denoiser.predicts, cond.rows, kept)
