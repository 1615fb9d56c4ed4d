"""SDXL's micro-conditions (Podell et al. 2023, section 2.2): what the network is told of the picture beside the text."""

from __future__ import annotations

import dataclasses

import torch

from videogen.conditioning import Conditioning
from videogen.errors import InputError

Pair = tuple[int, int]

# What diffusers' pipelines tell the refiner: the score it is to reach, and the one to move away from.
SCORE, NEGATIVE_SCORE = 6.0, 2.5


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What SDXL is told, with diffusers' names; None is what a plain picture has.

    original_size          height and width of the picture before it was scaled; None is the target's
    crops_coords_top_left  top and left of what was cut off
    target_size            height and width; None is the size that is made. The refiner does not read it
    aesthetic_score        1 to 10, read by the refiner alone; None is 6.0, and 2.5 on the negative side
    """

    original_size: Pair | None = None
    crops_coords_top_left: Pair = (0, 0)
    target_size: Pair | None = None
    aesthetic_score: float | None = None


def count(added_width: int | None, size_width: int | None, pooled: int) -> int:
    """How many numbers a UNet reads beside pooled text of width `pooled`: 6 in SDXL, 5 in its refiner.

    Raises InputError where the widths are of neither.
    """
    for numbers in (5, 6):
        if added_width is not None and size_width is not None and added_width == pooled + numbers * size_width:
            return numbers
    raise InputError(
        f"pooled text of width {pooled} and sizes of {size_width} each do not make the {added_width} that the UNet reads; "
        "text encoder and UNet are of different models"
    )


def size_condition(
    batch: int, made: Pair, numbers: int = 6, sizes: Sizes | None = None, negative: Sizes | None = None
) -> tuple[Conditioning, Conditioning]:
    """The micro-conditions as (given, null): vector["size"] `b 6` (original size, crop, target size), or `b 5` (original
    size, crop, score), heights before widths.

    made      height and width of the picture, in pixels
    negative  for the null; None is as in diffusers: SDXL's is the given, the refiner's is uncropped and of a low score
    """
    sizes = sizes or Sizes()
    if negative is None:
        negative = sizes if numbers == 6 else Sizes(sizes.original_size)
    return _vector(batch, made, numbers, sizes, SCORE), _vector(batch, made, numbers, negative, NEGATIVE_SCORE)


def _vector(batch: int, made: Pair, numbers: int, sizes: Sizes, score: float) -> Conditioning:
    target = sizes.target_size or made
    score = score if sizes.aesthetic_score is None else sizes.aesthetic_score
    told = (*(sizes.original_size or made), *sizes.crops_coords_top_left, *(target if numbers == 6 else (score,)))
    return Conditioning(vector={"size": torch.tensor([told] * batch, dtype=torch.float32)})
