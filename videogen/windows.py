"""Clips longer than a motion module's table, in overlapping windows whose predictions are averaged at every step (a `Denoise -> Denoise` wrapper).

The idea is MultiDiffusion's (Bar-Tal et al. 2023) along time. Positions in a motion module count from the window's start; everything that belongs to
a frame (prompts, dials, guidance scales, conditions, noise) follows the frame's id, because windows are called with `frames=`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

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
    anchor   frame ids that stand at the front of every window, their own outputs counted only where the window has them anyway
             (Text2Video-Zero: every frame reads frame 0); they are part of `length`
    """

    length: int = 16
    overlap: int = 4
    weights: Weights = "pyramid"
    closed: bool = False
    anchor: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.weights not in get_args(Weights):
            raise InputError(f"weights of windows {self.weights!r}: choose one of {', '.join(get_args(Weights))}")
        own = self.length - len(self.anchor)
        if own < 1 or not 0 <= self.overlap < own:
            beside = f" beside {len(self.anchor)} anchors" if self.anchor else ""
            raise InputError(
                f"windows of {self.length} frames with an overlap of {self.overlap}{beside}: the overlap must be smaller than the window"
            )

    def cut(self, frames: Sequence[int]) -> list[Window]:
        """The windows over a clip with these frame ids; the last is shifted back to end with the clip. One window where the clip fits."""
        n = len(frames)
        if n <= self.length:
            return [Window(tuple(range(n)), tuple(frames), (1.0,) * n)]
        length = self.length - len(self.anchor)
        stride = length - self.overlap
        starts = list(range(0, n, stride)) if self.closed else [*range(0, n - length, stride), n - length]
        return [self._window([(s + i) % n for i in range(length)], frames) for s in starts]

    def _window(self, places: list[int], frames: Sequence[int]) -> Window:
        """The window over these places, the anchors that it lacks in front of them with weight 0."""
        ids = list(frames)
        lacking = [ids.index(frame) for frame in self.anchor if frame in ids and ids.index(frame) not in places]
        whole = (*lacking, *places)
        return Window(whole, tuple(ids[i] for i in whole), (*(0.0 for _ in lacking), *self._weights(len(places))))

    def _weights(self, length: int) -> tuple[float, ...]:
        edge = [min(i + 1, length - i) for i in range(length)]
        if self.weights == "flat":
            return (1.0,) * length
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
