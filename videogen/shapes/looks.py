"""An object's colour and style, and where its outline truly is, from the colours in thin bands along the outline.

Across the outline of a flat object the mean colour steps from the background's to the object's; an outlined one has the
contour's between them. Both staircases, blurred by any of several widths and set off by any of several shifts, are fitted by
least squares, which gives the object's colour free of what blur mixes into it.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from videogen.shapes import world
from videogen.shapes.geometry import signed_distance

BANDS = (-7.0, 5.0, 0.5)  # first, last, width: pixels from the outline, negative inside
BLURS = (0.35, 0.6, 0.9, 1.2, 1.6)  # standard deviations, pixels
SHIFTS = (-1.5, 4.0, 0.25)  # first, last, step: how far the true outline may be outside the one that was traced
HALOS = (0.0, 0.12, 0.24, 0.36)  # how far the background overshoots beside a flat object, as shares of the step
WIDTHS = (1.5, 2.0, 2.5, 3.0)  # of a contour, pixels
BENDS = 16.0  # by how much, mean square of 255, the outlined staircase has to fit better than the flat one: it bends more easily
SHADED = -14.0  # of 255 per radius: change of lightness away from the light
STRANGE = 85.0  # of 255: a colour this far from every known one is unknown


class Fit(NamedTuple):
    """The best staircase of one kind for p objects."""

    error: Tensor  # p, mean square, of 255
    shift: Tensor  # p, pixels from the traced to the true outline
    colour: Tensor  # p 3, of 255


class Looks(NamedTuple):
    """What p objects look like, each in one picture."""

    flat: Fit
    outlined: Fit
    slope: Tensor  # p, change of lightness away from the light, of 255 per radius


def look(pixels: Tensor, free: Tensor, centre: Tensor, shape: Tensor, radius: Tensor, angle: Tensor) -> Looks:
    """Read pieces of picture with one object of known place, shape and size each.

    Args:
        pixels: `p 3 s s`, of 255.
        free: `p s s`, where no other object is.
        centre: `p 2`, in the piece; shape `p` indices; radius and angle `p`.
    """
    side = pixels.shape[-1]
    grid = torch.arange(side, device=pixels.device) + 0.5
    x = (grid - centre[:, :1])[:, None, :].expand(-1, side, -1)
    y = (grid - centre[:, 1:])[:, :, None].expand(-1, -1, side)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    distance = torch.empty_like(pixels[:, 0])
    for index, name in enumerate(world.SHAPES):
        rows = (shape == index).nonzero()[:, 0]
        if len(rows):
            local = cos[rows] * x[rows] + sin[rows] * y[rows], cos[rows] * y[rows] - sin[rows] * x[rows]
            distance[rows] = signed_distance(name, *local, radius[rows, None, None])
    profile, weight = _profile(pixels, distance, free)
    flat, outlined = (_fit(profile, weight, staircases) for staircases in _staircases())
    away = (x + y) / (2**0.5 * radius[:, None, None])
    return Looks(flat, outlined, _slope(pixels.mean(1), away, distance < -1))


def _profile(pixels: Tensor, distance: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Mean colour `p n 3` of each band and the share of pixels in it, `p n`."""
    first, last, width = BANDS
    number = round((last - first) / width)
    band = ((distance - first) / width).floor().long()
    item, row, column = (free & (band >= 0) & (band < number)).nonzero().unbind(1)
    place = item * number + band[item, row, column]
    colours = torch.cat([pixels[item, :, row, column], torch.ones_like(item)[:, None]], dim=1)
    sums = torch.zeros(len(pixels) * number, 4, device=pixels.device).index_add_(0, place, colours)
    sums = rearrange(sums, "(p n) c -> p n c", n=number)
    count = sums[..., 3]
    return sums[..., :3] / count.clamp(min=1)[..., None], count / count.sum(1, keepdim=True).clamp(min=1)


@functools.lru_cache
def _staircases() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """For flat and for outlined: shares `m n 3` of object, contour and background in each band; and shifts `m`."""
    first, last, width = BANDS
    at = torch.arange(first + width / 2, last, width)
    shift = torch.arange(SHIFTS[0], SHIFTS[1] + 1e-6, SHIFTS[2])
    blur = torch.tensor(BLURS)

    def step(edge: Tensor) -> Tensor:
        z = (at - edge[..., None]) / blur[:, None, None, None]
        return (1 + torch.erf(z / math.sqrt(2))) / 2

    def both(own: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
        shares = torch.stack([own, 1 - own - ground, ground], dim=-1)  # blur shift kind n 3
        shifts = shift[None, :, None].expand(shares.shape[:3])
        return shares.flatten(0, 2), shifts.flatten()

    outer = step(shift[:, None])
    bump = (-((at - shift[:, None, None] - 2 - blur[:, None, None, None]) ** 2) / 2).exp()
    halo = torch.tensor(HALOS)[:, None] * bump
    outer_wide = outer.expand(-1, -1, len(WIDTHS), -1)
    return both(1 - outer - halo, outer + halo), both(1 - step(shift[:, None] - torch.tensor(WIDTHS)), outer_wide)


def _fit(profile: Tensor, weight: Tensor, staircases: tuple[Tensor, Tensor]) -> Fit:
    """Weighted least squares for the colours of object and background, the contour's being known; best staircase."""
    shares, shifts = (part.to(profile.device) for part in staircases)
    contour = torch.tensor(world.CONTOUR, dtype=torch.float32, device=profile.device)
    own, _, ground = shares.unbind(-1)  # m n
    # with y = profile - contour, the residual is y - own * (colour - contour) - ground * (background - contour)
    y = profile - contour
    own_own, own_ground, ground_ground = (weight @ (a * b).T for a, b in ((own, own), (own, ground), (ground, ground)))
    weighted = weight[..., None] * y
    own_y, ground_y = (torch.einsum("mn,pnc->pmc", part, weighted) for part in (own, ground))
    scale = (own_own * ground_ground - own_ground**2).clamp(min=1e-6)[..., None]
    colour = (ground_ground[..., None] * own_y - own_ground[..., None] * ground_y) / scale
    behind = (own_own[..., None] * ground_y - own_ground[..., None] * own_y) / scale
    error = (weighted * y).sum((1, 2))[:, None] - (colour * own_y + behind * ground_y).sum(-1)
    outside = (
        ((colour + contour - 127.5).abs() - 137.5).clamp(min=0).square().sum(-1)
    )  # no colour beyond white or black
    best = (error + 0.1 * outside).argmin(1, keepdim=True)
    found = colour.gather(1, best[..., None].expand(-1, -1, 3))[:, 0] + contour
    return Fit(error.gather(1, best)[:, 0].clamp(min=0), shifts[best[:, 0]], found.clamp(0, 255))


def _slope(light: Tensor, away: Tensor, mask: Tensor) -> Tensor:
    """Least squares slope `p` of light over away, both `p s s`."""
    weight = mask.flatten(1).float()
    total = weight.sum(1, keepdim=True).clamp(min=1)
    light, away = light.flatten(1), away.flatten(1)
    light = light - (light * weight).sum(1, keepdim=True) / total
    away = away - (away * weight).sum(1, keepdim=True) / total
    return (light * away * weight).sum(1) / (away**2 * weight).sum(1).clamp(min=1e-3)


def colour_names(colour: Tensor) -> list[str | None]:
    """The nearest of the world's colours for `p 3`, of 255; None where all are far."""
    names = tuple(world.COLOURS)
    known = torch.tensor(list(world.COLOURS.values()), dtype=torch.float32, device=colour.device)
    least, index = torch.cdist(colour, known).min(dim=1)
    return [names[i] if d < STRANGE else None for i, d in zip(index.tolist(), least.tolist(), strict=True)]
