"""An object's colour and style, read in bands around its outline."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from videogen.shapes import world
from videogen.shapes.geometry import contour_width, signed_distance

RIM = (-1.5, -0.5)  # pixels from the outline: where a contour would be
DEEP = 1.2  # pixels from the deepest point of an object that is too small to have an inside otherwise
OUTLINED = 0.45  # of the way from the object's colour to the contour's
SHADED = -14.0  # of 255 per radius, away from the light
STRANGE = 85.0  # of 255: a colour this far from every known one is unknown


class Looks(NamedTuple):
    """What p objects look like, each in one picture."""

    colour: Tensor  # p 3, of 255, mean of the inside
    rim: Tensor  # p, how far the rim is from that colour, as a share of the contour's distance from it
    slope: Tensor  # p, change of lightness away from the light, of 255 per radius


def look(pixels: Tensor, centre: Tensor, shape: Tensor, radius: Tensor, angle: Tensor) -> Looks:
    """Read pieces of picture `p 3 s s`, of 255, each with one object of known place (`p 2`, in the piece), shape and size."""
    side = pixels.shape[-1]
    grid = torch.arange(side, device=pixels.device) + 0.5
    x = (grid - centre[:, :1])[:, None, :].expand(-1, side, -1)
    y = (grid - centre[:, 1:])[:, :, None].expand(-1, -1, side)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    distance = torch.full_like(x, torch.inf)
    for index, name in enumerate(world.SHAPES):
        rows = (shape == index).nonzero()[:, 0]
        if len(rows):
            local = (cos * x + sin * y)[rows], (cos * y - sin * x)[rows]
            distance[rows] = signed_distance(name, *local, radius[rows, None, None])
    floor = distance.flatten(1).amin(1) + DEEP
    inside = distance <= torch.maximum(-contour_width(radius) - 1, floor)[:, None, None]
    colour = _mean(pixels, inside)
    rim = _mean(pixels, (distance >= RIM[0]) & (distance <= RIM[1]))
    contour = torch.tensor(world.CONTOUR, dtype=torch.float32, device=pixels.device)
    share = (rim - colour).norm(dim=1) / (contour - colour).norm(dim=1).clamp(min=1)
    away = (x + y) / (2**0.5 * radius[:, None, None])
    return Looks(colour, share, _slope(pixels.mean(1), away, distance < -1))


def _mean(pixels: Tensor, mask: Tensor) -> Tensor:
    weight = mask.flatten(1).float()
    return torch.einsum("pcn,pn->pc", pixels.flatten(2), weight) / weight.sum(1, keepdim=True).clamp(min=1)


def _slope(light: Tensor, away: Tensor, mask: Tensor) -> Tensor:
    """Least squares slope `p` of light over away, both `p s s`."""
    weight = rearrange(mask.float(), "p h w -> p (h w)")
    total = weight.sum(1, keepdim=True).clamp(min=1)
    light, away = light.flatten(1), away.flatten(1)
    light = light - (light * weight).sum(1, keepdim=True) / total
    away = away - (away * weight).sum(1, keepdim=True) / total
    return (light * away * weight).sum(1) / (away**2 * weight).sum(1).clamp(min=1e-3)


def colour_names(colour: Tensor, outlined: Tensor) -> list[str | None]:
    """The nearest of the world's colours for `p 3`, of 255; None where all are far.

    Of an outlined object that is small or blurred, the contour's colour is mixed in: up to half of it is allowed for.
    """
    names = tuple(world.COLOURS)
    known = torch.tensor(list(world.COLOURS.values()), dtype=torch.float32, device=colour.device)
    contour = torch.tensor(world.CONTOUR, dtype=torch.float32, device=colour.device)
    way, offset = known - contour, colour[:, None] - contour
    share = ((offset * way).sum(-1) / (way**2).sum(-1)).clamp(0.5, 1)
    share = torch.where(outlined[:, None], share, torch.ones_like(share))
    least, index = (offset - share[..., None] * way).norm(dim=-1).min(dim=1)
    return [names[i] if d < STRANGE else None for i, d in zip(index.tolist(), least.tolist(), strict=True)]
