"""Where the objects of a scene are at a time, and how far a pixel is from an object's outline."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from videogen.shapes import world
from videogen.shapes.world import Scenes


class Poses(NamedTuple):
    """Objects as the camera sees them, in pixels of the 128 x 128 frame."""

    centre: Tensor  # b f 2 2
    radius: Tensor  # b f 2
    angle: Tensor  # b f 2


def moments(frames: int, device: torch.device | str | None = None) -> Tensor:
    """Times `f` from 0 to 1, the clip's first and last frame; a clip of one frame is the first."""
    return torch.arange(frames, dtype=torch.float32, device=device) / max(frames - 1, 1)


def poses(scenes: Scenes, times: Tensor) -> Poses:
    """The objects at `times`, `f` or `b f`, 0 being the first frame and 1 the last."""
    times = times.expand(len(scenes), -1) if times.dim() == 1 else times
    u = rearrange(times - 0.5, "b f -> b f 1")
    way = world.table(world.DIRECTIONS, world.MOTIONS, u.device)[scenes.motion] * scenes.travel[..., None]
    centre = scenes.centre[:, None] + way[:, None] * u[..., None]
    magnified = scenes.zoom[:, None, None] ** u
    middle = world.SIZE / 2
    seen = centre - middle - (scenes.pan[:, None] * u)[:, :, None]
    return Poses(
        centre=middle + magnified[..., None] * seen,
        radius=scenes.radius[:, None] * scenes.growth[:, None] ** u * magnified,
        angle=scenes.angle[:, None] + scenes.turn[:, None] * u,
    )


def signed_distance(shape: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Distance to the outline of an upright `shape` around the origin, negative inside; exact near the edges.

    Args:
        x, y: coordinates in the object's own axes, any shape.
        radius: of the circumscribed circle, broadcast against x.
    """
    if shape == "circle":
        return torch.hypot(x, y) - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - radius / math.sqrt(2)
    if shape == "triangle":
        return torch.maximum(y, x.abs() * (math.sqrt(3) / 2) - y / 2) - radius / 2
    return _star(x, y, radius)


def _star(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Five mirror lines fold the plane onto half a point of the star, whose outline there is one straight line."""
    c, s = math.cos(math.pi / 5), math.sin(math.pi / 5)
    x, y = x.abs(), -y
    beyond = (c * x - s * y).clamp_(min=0).mul_(2)
    x, y = x - c * beyond, y + s * beyond
    beyond = (-c * x - s * y).clamp_(min=0).mul_(2)
    x, y = (x + c * beyond).abs_(), y + s * beyond
    normal_x, normal_y = 1 - world.STAR_INNER * c, world.STAR_INNER * s
    length = math.hypot(normal_x, normal_y)
    normal_x, normal_y = normal_x / length, normal_y / length
    return normal_x * x + normal_y * (y - radius)


def contour_width(radius: Tensor) -> Tensor:
    """Width of an outlined object's contour, which lies inside its outline."""
    return (world.CONTOUR_WIDTH * radius).clamp(*world.CONTOUR_LIMITS)


def inradius_factor(shape: str) -> float:
    """Distance of the centre from the outline's straight parts (of a star: from the lines they lie on), for radius 1."""
    c, s = world.STAR_INNER * math.cos(math.pi / 5), world.STAR_INNER * math.sin(math.pi / 5)
    return {"circle": 1.0, "square": math.sqrt(0.5), "triangle": 0.5, "star": s / math.hypot(1 - c, s)}[shape]


def area_factor(shape: str) -> float:
    """Area of a shape of radius 1."""
    return {
        "circle": math.pi,
        "square": 2.0,
        "triangle": 3 * math.sqrt(3) / 4,
        "star": 5 * world.STAR_INNER * math.sin(math.pi / 5),
    }[shape]
