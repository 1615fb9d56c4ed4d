"""Clips longer than a motion module's table, in overlapping windows whose predictions are averaged at every step (a `Denoise -> Denoise` wrapper).

The idea is MultiDiffusion's (Bar-Tal et al. 2023) along time. Positions in a motion module count from the window's start; everything that belongs to
a frame (prompts, dials, guidance scales, conditions, noise) follows the frame's id, because windows are called with `frames=`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.prediction import Denoise, Prediction

Weights = Literal["pyramid", "flat", "linear"]


@dataclasses.dataclass(frozen=True)
class Window:
    """One call: the places it takes from the clip, the ids of those frames, and their weights in the average."""

    places: tuple[int, ...]
    frames: tuple[int, ...]
    weights: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a clip is cut.

    length   frames of a window (what the module was trained on)
    overlap  frames two neighbours share, fewer than length
    weights  `pyramid` rises to the middle of the window, `linear` ramps over the overlap only, `flat` is 1
    closed   the clip is a loop: the last windows run on into the first frames
    """

    length: int = 16
    overlap: int = 4
    weights: Weights = "pyramid"
    closed: bool = False

    def __post_init__(self) -> None:
        if self.length < 1 or not 0 <= self.overlap < self.length:
            raise InputError(
                f"windows of {self.length} frames with an overlap of {self.overlap}: the overlap must be smaller than the window"
            )

    def cut(self, frames: Sequence[int]) -> list[Window]:
        """The windows over a clip with these frame ids; the last is shifted back to end with the clip. One window where the clip fits."""
        n = len(frames)
        if n <= self.length:
            return [Window(tuple(range(n)), tuple(frames), (1.0,) * n)]
        stride = self.length - self.overlap
        starts = list(range(0, n, stride)) if self.closed else [*range(0, n - self.length, stride), n - self.length]
        weights = self._weights()
        return [
            Window(places, tuple(frames[i] for i in places), weights)
            for places in (tuple((s + i) % n for i in range(self.length)) for s in starts)
        ]

    def _weights(self) -> tuple[float, ...]:
        edge = [min(i + 1, self.length - i) for i in range(self.length)]
        if self.weights == "flat":
            return (1.0,) * self.length
        top = max(edge) if self.weights == "pyramid" else max(self.overlap, 1)
        return tuple(min(e, top) / top for e in edge)


def windowed(denoise: Denoise, windows: Windows) -> Denoise:
    """`denoise` over windows: the weighted mean of what each window's call says about a frame. A clip that fits in one window is the plain call."""

    def over_windows(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
        ids = range(x.shape[1]) if frames is None else frames
        cut = windows.cut(ids)
        if len(cut) == 1:
            return denoise(x, t, ids)
        total, weight = torch.zeros_like(x), x.new_zeros(x.shape[1])
        for window in cut:
            places = torch.tensor(window.places, device=x.device)
            pred = denoise(x[:, places], t, window.frames)
            w = x.new_tensor(window.weights)
            total.index_add_(1, places, pred.out.to(x.dtype) * w[:, None, None, None])
            weight.index_add_(0, places, w)
        return pred.replace(x=x, out=total / weight[:, None, None, None], kept={})

    return over_windows
