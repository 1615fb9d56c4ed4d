"""How a picture of any size becomes one of the size that is trained on, scaled to cover it and cut; and in which bucket of sizes it belongs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Fit:
    """The size that is wanted, and which part stays: `x` and `y` are shares of what is cut off that lie left and above."""

    width: int
    height: int
    x: float = 0.5
    y: float = 0.5

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture of this size after scaling: the smallest of its aspect that covers the wanted size."""
        scale = max(self.width / width, self.height / height)
        return max(self.width, round(width * scale)), max(self.height, round(height * scale))

    def corner(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the part that stays of a scaled picture."""
        return round((width - self.width) * self.x), round((height - self.height) * self.y)


def nearest(sizes: Sequence[tuple[int, int]], width: int, height: int) -> tuple[int, int]:
    """The size of the nearest aspect (by log(width / height)); of several such, the largest that need not be enlarged, else the smallest."""

    def distance(size: tuple[int, int]) -> tuple[float, float]:
        apart = abs(math.log(size[0] / size[1]) - math.log(width / height))
        enlarged = size[0] > width or size[1] > height
        return round(apart, 9), size[0] * size[1] * (1e-6 if enlarged else -1.0)

    return min(sizes, key=distance)


def fitted(picture: Image.Image, fit: Fit | None) -> np.ndarray:
    """A picture scaled and cut, `h w 3` uint8."""
    if fit is not None:
        width, height = fit.scaled(*picture.size)
        if (width, height) != picture.size:
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = fit.corner(width, height)
        picture = picture.crop((left, top, left + fit.width, top + fit.height))
    return np.asarray(picture)
