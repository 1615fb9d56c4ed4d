"""Where a sampler stops on its way from noise to data: the spacings of Lin et al. 2023 and Karras et al. 2022.

Each function lays out the steps as diffusers' scheduler of that name does. What differs between them is small and has
consequences: whether positions are whole, whether the clean end is one of the points that are spaced out, and where a
step goes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogen.errors import InputError
from videogen.path import Path, RectifiedFlow, VariancePreserving

Spacing = Literal["leading", "trailing", "linspace"]


@dataclass(frozen=True)
class Grid:
    """How steps are spaced. A sampler has its own defaults, and a model's scheduler_config.json may say otherwise."""

    spacing: Spacing = "leading"
    offset: int = 0  # training steps added to "leading" positions
    last: Literal[-1, 0] = -1  # where the last step ends: clean data, or training step 0
    karras: bool = False  # equal steps of (sigma/alpha)^(1/7)
    whole_labels: bool = False  # between training steps, the net is told the nearest
    distilled: int = 50  # for lcm: the steps of the solver that the net was distilled from

    def from_config(self, config: Mapping[str, Any]) -> "Grid":
        """This grid with what a scheduler_config.json says. Raises InputError, with the key, for unknown values."""
        spacing = config.get("timestep_spacing", self.spacing)
        if spacing not in get_args(Spacing):
            raise InputError(f"timestep_spacing {spacing!r}: known are {', '.join(get_args(Spacing))}")
        final = config.get("final_sigmas_type", "zero")
        if final not in ("zero", "sigma_min"):
            raise InputError(f"final_sigmas_type {final!r}: known are zero, sigma_min")
        return replace(
            self,
            spacing=spacing,
            offset=_whole(config, "steps_offset", self.offset),
            last=-1 if final == "zero" and config.get("set_alpha_to_one", True) else 0,
            karras=bool(config.get("use_karras_sigmas", self.karras)),
            distilled=_whole(config, "original_inference_steps", self.distilled),
        )


@dataclass(frozen=True, eq=False)
class Times:
    """A descending list of steps: step i asks the net at t[i] and goes to to[i], usually but not always t[i + 1].

    `path` is the one the positions are meant on. Give the denoiser the same one: where a sampler stops between training
    steps, it differs from the training's in how it interpolates and in what the net is told.
    """

    path: Path
    t: Tensor  # n, float64
    to: Tensor  # n, float64
    scale: float = 1.0  # of the first x: the standard deviation of the noise it starts from
    late: bool = False  # earlier steps are left out: x is not noise at first
    left_out: tuple[int, int] = (0, 0)  # steps of the whole grid before and after these

    def __post_init__(self) -> None:
        # A position off the path is found here, before any step is paid for.
        self.path.alpha(self.t)
        self.path.alpha(self.to)

    def __len__(self) -> int:
        return len(self.t)

    @property
    def whole(self) -> bool:
        """Whether no step of the grid is left out."""
        return self.left_out == (0, 0)

    def remaining(self, i: int) -> int:
        """How many steps there are from step i on, those that are left out at the end among them."""
        return len(self) - i + self.left_out[1]

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return zip(self.t.tolist(), self.to.tolist())

    def final(self, count: int) -> "Times":
        """The last `count` steps alone, for an x that is at the first of them. Raises InputError where there are fewer."""
        if not 0 <= count <= len(self):
            raise InputError(f"{count} steps of {len(self)}: choose 0 to {len(self)}")
        first = len(self) - count
        before, after = self.left_out
        return replace(self, t=self.t[first:], to=self.to[first:], scale=1.0, left_out=(before + first, after))

    def between(self, start: float, end: float) -> "Times":
        """The steps between two shares of the path, cut as by `denoising_start` and `denoising_end` in diffusers.

        What one call ends with, another goes on from: 0 to s and s to 1 are all steps, each once. Raises InputError for
        shares that leave no step.
        """
        if start == 0 and end == 1:
            return self
        kept = torch.zeros(0)
        if 0 <= start < end <= 1:
            above, below = (round(self.path.steps - share * self.path.steps) for share in (start, end))
            kept = ((self.t < above) | (start == 0)) & ((self.t >= below) | (end == 1))
        if not kept.any():
            raise InputError(
                f"no step lies between the shares {start:g} and {end:g} of the path; give 0 to 1, in order"
            )
        scale = self.scale if start == 0 else 1.0
        first, last = int(kept.nonzero()[0]), int(kept.nonzero()[-1])
        before, after = self.left_out
        left_out = (before + first, after + len(self) - 1 - last)
        return replace(self, t=self.t[kept], to=self.to[kept], scale=scale, late=start > 0, left_out=left_out)


def ancestral_steps(path: Path, n: int, grid: Grid) -> Times:
    """ddpm: whole positions, each step to the next of them, the last to clean data."""
    t = spaced(_preserving(path, "ddpm").steps, n, grid).round()
    return Times(path, t, _then(t, -1))


def implicit_steps(path: Path, n: int, grid: Grid) -> Times:
    """ddim: whole positions. Each step goes T // n back, whatever the spacing, which need not be the next position."""
    t = spaced(_preserving(path, "ddim").steps, n, grid).round()
    to = t - path.steps // n
    return Times(path, t, torch.where(to < 0, float(grid.last), to))


def ratio_steps(path: Path, n: int, grid: Grid) -> Times:
    """euler, euler_ancestral, heun: also between training steps. A rectified flow is spaced by its own time (euler)."""
    if isinstance(path, RectifiedFlow):
        u = torch.linspace(1.0, float(path.sigma(0)), _counted(n, path.steps), dtype=torch.float64)
        t = path.steps * u - 1
        return Times(path, t, _then(t, -1))
    path = _preserving(path, "euler").finite()
    t = spaced(path.steps, n, grid)
    if grid.karras:
        path, t = _karras(path, float(path.ratio(t[-1])), float(path.ratio(t[0])), n, grid)
    # The other spacings were meant to start from x0 = 0 exactly, "leading" from noise of variance one.
    scale = 1.0 if grid.spacing == "leading" else float(path.sigma(t[0]))
    return Times(path, t, _then(t, grid.last), scale)


def multistep_steps(path: Path, n: int, grid: Grid) -> Times:
    """dpmpp_2m, unipc: whole positions; the clean end is one of the n + 1 points that are spaced out.

    Under Karras spacing labels are rounded. (On cosine tables diffusers' dpmpp_2m cuts them off instead; this one rounds.)
    """
    path = _preserving(path, "a multistep sampler").finite()
    t = spaced(path.steps, n, grid, end=True).round()
    if grid.karras:
        ratios = path.ratios()
        path, t = _karras(path, float(ratios[0]), float(ratios[-1]), n, grid)
    return Times(path, t, _then(t, grid.last))


def consistency_steps(path: Path, n: int, grid: Grid) -> Times:
    """lcm: n of the positions that the net was distilled on (Luo et al. 2023), the last step to clean data."""
    steps = _preserving(path, "lcm").steps
    if not 1 <= n <= grid.distilled <= steps:
        raise InputError(
            f"lcm takes 1 to {grid.distilled} steps (original_inference_steps, at most {steps}), not {n}; choose fewer"
        )
    known = torch.arange(grid.distilled, 0, -1, dtype=torch.float64) * (steps // grid.distilled) - 1
    chosen = np.floor(np.linspace(0, grid.distilled, n, endpoint=False)).astype(np.int64)
    t = known[torch.from_numpy(chosen)]
    return Times(path, t, _then(t, -1))


def spaced(steps: int, n: int, grid: Grid, *, end: bool = False) -> Tensor:
    """n positions from noise to data by `grid.spacing`: float64, descending; fractional only under "linspace".

    With `end`, n + 1 points are spaced out and the last is left away (not under "trailing", which has no end).
    """
    points = _counted(n, steps - end) + end
    # numpy rather than torch: halves are rounded later, and the two libraries' last bits differ.
    t: NDArray[np.floating[Any]]
    if grid.spacing == "linspace":
        t = np.linspace(0, steps - 1, points)[::-1][:n]
    elif grid.spacing == "leading":
        t = np.arange(points, dtype=np.float64)[::-1][:n] * (steps // points) + grid.offset
    else:
        t = np.arange(steps, 0, -steps / n)[:n].round() - 1
    return torch.from_numpy(t.copy())


def _karras(
    path: VariancePreserving, smallest: float, largest: float, n: int, grid: Grid
) -> tuple[VariancePreserving, Tensor]:
    """Karras et al. 2022, eq. 5 with rho = 7, in sigma/alpha; positions are read off the logarithm of the table."""
    rho = 7.0
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    ratios = (largest ** (1 / rho) + ramp * (smallest ** (1 / rho) - largest ** (1 / rho))) ** rho
    path = replace(path, interpolation="log", whole_labels=grid.whole_labels)
    return path, path.position(ratios)


def _then(t: Tensor, last: float) -> Tensor:
    return torch.cat([t[1:], torch.tensor([last], dtype=torch.float64)])


def _whole(config: Mapping[str, Any], key: str, otherwise: int) -> int:
    value = config.get(key, otherwise)
    if not isinstance(value, int):
        raise InputError(f"{key} {value!r} in the scheduler config: give a whole number")
    return value


def _counted(n: int, steps: int) -> int:
    if not 1 <= n <= steps:
        raise InputError(f"{n} steps: choose 1 to {steps}, which is how many the model was trained with")
    return n


def _preserving(path: Path, sampler: str) -> VariancePreserving:
    if not isinstance(path, VariancePreserving):
        raise InputError(f"{sampler} does not know the path of this model (a {type(path).__name__}); use euler")
    return path
