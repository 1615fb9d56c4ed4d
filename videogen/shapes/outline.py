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
INSIDE = 2.0  # pixels inside the faint edge at which an object's own contrast is read
CORNERS = (0, 4, 3, 5)  # in the order of world.SHAPES; a circle has none
FIRST_CORNER = (0.0, math.pi / 4, -math.pi / 2, -math.pi / 2)  # of an upright shape


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


def trace(distance: Tensor, centre: Tensor, threshold: Tensor) -> Outline:
    """Follow rays from inside out.

    The outline is where the difference to the background falls, for the last time, below half of what it is a little
    further in: so it does not depend on contrast, nor on blur.

    Args:
        distance: difference to the background in pieces `p 2*HALF 2*HALF`, other objects taken out.
        centre: a point inside, `p 2`, in the piece's pixels.
        threshold: the least difference that counts, `p`.
    """
    for _ in range(2):
        radius = _radii(distance, centre, threshold)
        angle = torch.arange(DIRECTIONS, device=radius.device) * (2 * math.pi / DIRECTIONS)
        area = (radius**2).sum(1) * (math.pi / DIRECTIONS)
        ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
        shift = (radius[..., None] ** 3 * ray).sum(1) * (2 * math.pi / DIRECTIONS / 3) / area.clamp(min=1)[:, None]
        centre = centre + shift
    return Outline(centre, area, _harmonics(_radii(distance, centre, threshold)))


def _radii(distance: Tensor, centre: Tensor, threshold: Tensor) -> Tensor:
    """Radius `p DIRECTIONS` of the outermost crossing; 0 where a ray meets nothing."""
    side = distance.shape[-1]
    angle = torch.arange(DIRECTIONS, device=distance.device) * (2 * math.pi / DIRECTIONS)
    steps = torch.arange(int((HALF - 2) / STEP), device=distance.device) * STEP
    ray = torch.stack([angle.cos(), angle.sin()], dim=-1)[:, None] * steps[:, None]
    grid = (centre[:, None, None] + ray) * (2 / side) - 1
    value = F.grid_sample(distance[:, None], grid, align_corners=False, padding_mode="zeros")[:, 0]
    faint = _last(value > threshold[:, None, None])
    inner = (faint - round(INSIDE / STEP)).clamp(min=0)
    level = torch.maximum(value.gather(2, inner[..., None])[..., 0] / 2, threshold[:, None])
    edge = _last(value > level[..., None])
    here = value.gather(2, edge[..., None])[..., 0]
    beyond = value.gather(2, (edge + 1).clamp(max=len(steps) - 1)[..., None])[..., 0]
    share = ((here - level) / (here - beyond).clamp(min=1e-3)).clamp(0, 1)
    return (edge + share) * STEP * (here > level)


def _last(flags: Tensor) -> Tensor:
    """Index of the last true one along the last axis, 0 where there is none."""
    return (flags * torch.arange(flags.shape[-1], device=flags.device)).amax(-1)


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
        soft = torch.sigmoid(-2 * distance)[None] * 255
        outline = trace(soft, torch.full((1, 2), float(HALF)), torch.tensor([22.0]))
        found.append(outline.harmonics[0].abs())
    return torch.stack(found)


def shapes(magnitudes: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest shape for magnitudes `... HARMONICS` and how far it is; the first harmonic, a shift, is left out."""
    distance = (magnitudes[..., None, 1:] - _templates().to(magnitudes)[:, 1:]).norm(dim=-1)
    least, index = distance.min(dim=-1)
    return index, least


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
