"""An object's outline as a radius for each direction, and the shape, extent and turn that it tells.

The magnitudes of the outline's Fourier harmonics do not change when the object turns; a regular shape with k corners
shows in the k-th one, whose phase is the turn.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from videogen.shapes import world
from videogen.shapes.geometry import area_factor, inradius_factor, signed_distance

DIRECTIONS = 60
HARMONICS = 12
HALF = 44  # half the side of the piece of picture that is looked at
STEP = 0.5  # pixels between two samples on a ray
CORNERS = (0, 4, 3, 5)  # in the order of world.SHAPES; a circle has none
FIRST_CORNER = (0.0, math.pi / 4, -math.pi / 2, -math.pi / 2)  # of an upright shape

# Index in world.SHAPES and scale: blur takes harmonics away, most from stars, and adds none to a circle.
SOFTENED = ((0, 1.0), (1, 1.0), (1, 0.75), (2, 1.0), (2, 0.75), (2, 0.5), (3, 1.0), (3, 0.75), (3, 0.5))


class Outline(NamedTuple):
    """Outlines of p objects, each in one picture."""

    centre: Tensor  # p 2
    area: Tensor  # p, pixels
    harmonics: Tensor  # p HARMONICS, complex, those above the mean over the mean


def pieces(pictures: Tensor, picture: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a square around each centre: pictures `n c H W` to `p c 2*HALF 2*HALF`, and its corners `p 2` (x, y)."""
    padded = F.pad(pictures, (HALF, HALF, HALF, HALF))
    corner = centre.round().long() - HALF
    reach = torch.arange(2 * HALF, device=pictures.device)
    rows = (corner[:, 1:] + HALF + reach).clamp(0, padded.shape[-2] - 1)
    columns = (corner[:, :1] + HALF + reach).clamp(0, padded.shape[-1] - 1)
    cut = padded[picture[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2), corner.float()


def trace(amount: Tensor, centre: Tensor, level: Tensor) -> Outline:
    """Follow rays from inside out, to where the object's share of the colour falls below a level for the first time.

    Args:
        amount: how much of the object's colour is in each pixel of the pieces `p 2*HALF 2*HALF`.
        centre: a point inside, `p 2`, in the piece's pixels.
        level: the amount at the outline, `p`.
    """
    for _ in range(2):
        radius = _radii(amount, centre, level)
        angle = torch.arange(DIRECTIONS, device=radius.device) * (2 * math.pi / DIRECTIONS)
        area = (radius**2).sum(1) * (math.pi / DIRECTIONS)
        ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
        shift = (radius[..., None] ** 3 * ray).sum(1) * (2 * math.pi / DIRECTIONS / 3) / area.clamp(min=1)[:, None]
        centre = centre + shift
    return Outline(centre, area, _harmonics(_radii(amount, centre, level)))


def _radii(amount: Tensor, centre: Tensor, level: Tensor) -> Tensor:
    """Radius `p DIRECTIONS` of the innermost crossing; 0 where the centre is outside."""
    side = amount.shape[-1]
    angle = torch.arange(DIRECTIONS, device=amount.device) * (2 * math.pi / DIRECTIONS)
    steps = torch.arange(int((HALF - 2) / STEP), device=amount.device) * STEP
    ray = torch.stack([angle.cos(), angle.sin()], dim=-1)[:, None] * steps[:, None]
    grid = (centre[:, None, None] + ray) * (2 / side) - 1
    value = F.grid_sample(amount[:, None], grid, align_corners=False, padding_mode="zeros")[:, 0]
    value = value - level[:, None, None]
    value[..., -1] = value[..., -1].clamp(max=-1e-3)
    beyond = (value < 0).int().argmax(-1, keepdim=True)
    inner, outer = value.gather(2, (beyond - 1).clamp(min=0)), value.gather(2, beyond)
    crossing = beyond - 1 + inner / (inner - outer).clamp(min=1e-3)
    return crossing[..., 0].clamp(min=0) * STEP * (beyond[..., 0] > 0)


def _harmonics(radius: Tensor) -> Tensor:
    spectrum = torch.fft.rfft(radius, dim=-1)
    return 2 * spectrum[:, 1 : HARMONICS + 1] / spectrum[:, :1].real.clamp(min=1e-3)


@functools.lru_cache
def _templates() -> Tensor:
    """Magnitudes of each shape's harmonics, `shapes HARMONICS`, from a drawing of it with an edge as soft as a blurred one."""
    axis = torch.arange(2 * HALF) + 0.5 - HALF
    found = []
    for name in world.SHAPES:
        radius = torch.tensor(13.0)
        distance = signed_distance(name, axis.expand(2 * HALF, -1), axis[:, None].expand(-1, 2 * HALF), radius)
        soft = torch.sigmoid(-2 * distance)[None]
        outline = trace(soft, torch.full((1, 2), float(HALF)), torch.tensor([0.5]))
        found.append(outline.harmonics[0].abs())
    return torch.stack(found)


def shapes(magnitudes: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest shape for magnitudes `... HARMONICS` and how far it is; the first harmonic, a shift, is left out."""
    shape, scale = torch.tensor(SOFTENED, device=magnitudes.device).T
    templates = _templates().to(magnitudes)[shape.long(), 1:] * scale[:, None]
    least, index = (magnitudes[..., None, 1:] - templates).norm(dim=-1).min(dim=-1)
    return shape.long()[index], least


def radii(area: Tensor, shape: Tensor) -> Tensor:
    """Radius of the circumscribed circle from areas and shape indices."""
    factors = torch.tensor([area_factor(name) for name in world.SHAPES], device=area.device)
    return (area / factors[shape]).sqrt()


def grown(radius: Tensor, shape: Tensor, shift: Tensor) -> Tensor:
    """Radius of the circumscribed circle when the outline moves outwards by `shift` pixels."""
    factors = torch.tensor([inradius_factor(name) for name in world.SHAPES], device=radius.device)
    return radius + shift / factors[shape]


def turns(harmonics: Tensor, shape: Tensor) -> Tensor:
    """Angle from upright, up to the shape's symmetry, `...`; 0 for a circle."""
    corners = torch.tensor(CORNERS, device=shape.device)[shape]
    phase = harmonics.gather(-1, (corners - 1).clamp(min=0)[..., None])[..., 0].angle()
    first = torch.tensor(FIRST_CORNER, device=shape.device)[shape]
    return torch.where(corners > 0, -phase / corners.clamp(min=1) - first, torch.zeros_like(phase))
