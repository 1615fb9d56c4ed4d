"""FreeInit (Wu et al. 2023): sample, noise the result again with the noise it came from, keep its low frequencies, renew the high ones, repeat.

Video models are trained on noised clips whose low frequencies still hold the clip; at inference they start from white noise.
The loop closes that gap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.path import Path

Filter = Literal["butterworth", "gaussian", "ideal"]


@dataclasses.dataclass(frozen=True)
class FreeInit:
    """iterations of sampling in all; the low-pass filter with its stop frequencies in space and time, as shares of the Nyquist frequency."""

    iterations: int = 3
    filter: Filter = "butterworth"
    space: float = 0.25
    time: float = 0.25
    order: int = 4

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"FreeInit with {self.iterations} iterations: give at least 1")
        if self.filter not in get_args(Filter):
            raise InputError(f"FreeInit's filter {self.filter!r}: choose one of {', '.join(get_args(Filter))}")
        if not (0 <= self.space <= 1 and 0 <= self.time <= 1):
            raise InputError("FreeInit's stop frequencies are shares of the highest frequency, between 0 and 1")


def low_pass(shape: tuple[int, int, int], settings: FreeInit) -> Tensor:
    """The filter `f h w` over the centred spectrum, values in [0, 1]; zero everywhere where a stop frequency is 0."""
    if settings.space == 0 or settings.time == 0:
        return torch.zeros(shape)
    f, h, w = (2 * torch.arange(n) / n - 1 for n in shape)
    square = (settings.space / settings.time * f[:, None, None]) ** 2 + h[:, None] ** 2 + w**2
    if settings.filter == "butterworth":
        return 1 / (1 + (square / settings.space**2) ** settings.order)
    if settings.filter == "gaussian":
        return torch.exp(-square / (2 * settings.space**2))
    # The authors compare the squared distance with twice the stop frequency, not with its square; results depend on it.
    return (square <= 2 * settings.space).float()


def exchange(low: Tensor, high: Tensor, passes: Tensor) -> Tensor:
    """The frequencies of `low` where the filter `f h w` passes, those of `high` elsewhere. Clips `b f c h w`."""
    axes = (1, 3, 4)
    passes = torch.fft.ifftshift(passes)[:, None].to(low.device)
    mixed = torch.fft.fftn(low, dim=axes) * passes + torch.fft.fftn(high, dim=axes) * (1 - passes)
    return torch.fft.ifftn(mixed, dim=axes).real


def free_init(
    run: Callable[[Tensor], Tensor], first: Tensor, fresh: Callable[[int], Tensor], path: Path, settings: FreeInit
) -> Tensor:
    """The loop of the paper's section 4: `run` samples a clip from noise `b f c h w`, `fresh(i)` is new noise for iteration i."""
    passes = low_pass((first.shape[1], first.shape[3], first.shape[4]), settings)
    x = run(first)
    for i in range(1, settings.iterations):
        noised = path.renoise(x, -1, path.steps - 1, first)
        x = run(exchange(noised, fresh(i), passes))
    return x
