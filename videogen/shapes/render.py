"""Scenes to pixels: antialiased by signed distances, in tensor code that runs on any device.

Pictures are painted in small groups that fit the processor's cache: the background, then the second object, then the
first, so that the first named object is in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from einops import rearrange
from torch import Tensor

from videogen.errors import InputError
from videogen.shapes import world
from videogen.shapes.geometry import Poses, contour_width, moments, poses, signed_distance
from videogen.shapes.truth import Rendered
from videogen.shapes.world import Scenes

_GROUP_PIXELS = 16 * 128 * 128


def render(
    scenes: Scenes,
    frames: int = world.FRAMES,
    size: int = world.SIZE,
    only: Sequence[int] | Tensor | None = None,
) -> Rendered:
    """Draw clips.

    Args:
        scenes: b clips, on the device that is to draw.
        frames: length of the whole clip; motions span it, whatever its length.
        size: side of the square frame in pixels.
        only: frames to draw, numbers `f` for all clips alike or a tensor `b f` for each its own; None draws all.

    Returns:
        Rendered, with `.frames` `b f 3 H W` in [0, 1] and the ground truth.

    Raises:
        InputError: for a frame that the clip does not have, or an empty picture.
    """
    device = scenes.centre.device
    chosen = torch.arange(frames, device=device) if only is None else torch.as_tensor(only, device=device)
    if size < 1 or bool(((chosen < 0) | (chosen >= frames)).any()):
        raise InputError(f"cannot draw the frames asked for: the clip has frames 0 to {frames - 1}, of {size} pixels")
    times = moments(frames, device)[chosen].expand(len(scenes), -1)
    pictures = torch.empty(len(scenes), times.shape[1], 3, size, size, device=device)
    flat, pose = pictures.flatten(0, 1), flatten_poses(poses(scenes, times))
    owner = torch.arange(len(scenes), device=device).repeat_interleave(times.shape[1])
    for rows in groups(len(flat), size):
        part = scenes[owner[rows]]
        picture = flat[rows]
        _paint_background(picture, part, times.flatten()[rows])
        for number in (1, 0):
            _paint_object(picture, part, Poses(*(field[rows, number] for field in pose)), number)
    return Rendered(scenes=scenes, frames=pictures, times=times, step=1 / max(frames - 1, 1))


def flatten_poses(pose: Poses) -> Poses:
    """Poses with clips and frames folded into one axis of pictures: `(b f) ...`."""
    return Poses(*(field.flatten(0, 1) for field in pose))


def groups(pictures: int, size: int) -> Iterator[slice]:
    """Slices of `pictures` that are small enough for the cache."""
    length = max(1, _GROUP_PIXELS // size**2)
    for start in range(0, pictures, length):
        yield slice(start, min(start + length, pictures))


def pixel_grid(size: int, device: torch.device) -> Tensor:
    """Pixel centres along one axis, `size`, in units of the 128 x 128 frame."""
    return (torch.arange(size, device=device) + 0.5) * (world.SIZE / size)


def local_axes(pose: Poses, size: int) -> tuple[Tensor, Tensor]:
    """Pixel coordinates x, y, each `n H W`, in the axes of one object a picture; pose fields are `n ...`."""
    grid = pixel_grid(size, pose.centre.device)
    x = grid - pose.centre[:, :1]
    y = grid - pose.centre[:, 1:]
    if not bool(pose.angle.any()):
        return x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)
    cos, sin = pose.angle.cos()[:, None], pose.angle.sin()[:, None]
    return (
        (cos * x)[:, None, :] + (sin * y)[:, :, None],
        (cos * y)[:, :, None] - (sin * x)[:, None, :],
    )


def outline_distance(shapes: Tensor, pose: Poses, size: int) -> Tensor:
    """Signed distance `n H W` in units of the 128 x 128 frame for n pictures of one object each; shapes `n`."""
    x, y = local_axes(pose, size)
    distance = torch.empty(len(shapes), size, size, device=shapes.device)
    for index, name in enumerate(world.SHAPES):
        rows = (shapes == index).nonzero()[:, 0]
        if len(rows):
            distance[rows] = signed_distance(name, x[rows], y[rows], pose.radius[rows, None, None])
    return distance


def coverage(distance: Tensor, size: int) -> Tensor:
    """Share of a pixel that lies inside: a ramp of one pixel across the outline."""
    return (0.5 - distance * (size / world.SIZE)).clamp_(0, 1)


def background_blend(scenes: Scenes, times: Tensor, size: int) -> Tensor:
    """How far each pixel takes the second of the background's tones, `n H W`; times `n`."""
    grid = pixel_grid(size, times.device)
    u = (times - 0.5)[:, None]
    origin = world.SIZE / 2 + scenes.pan * u
    shrunk = scenes.zoom[:, None] ** -u
    x = ((grid - world.SIZE / 2) * shrunk + origin[:, :1])[:, None, :]
    y = ((grid - world.SIZE / 2) * shrunk + origin[:, 1:])[:, :, None]
    softness = world.SIZE / size * shrunk[:, :, None]
    phase_x, phase_y = scenes.phase[:, 0, None, None], scenes.phase[:, 1, None, None]
    names = tuple(world.BACKGROUNDS)
    blend = torch.zeros(len(times), size, size, device=times.device)
    for name in ("striped", "checkered"):
        rows = (scenes.background == names.index(name)).nonzero()[:, 0]
        if not len(rows):
            continue
        if name == "striped":
            along = (x[rows] + y[rows]) * 0.5**0.5
            blend[rows] = _square_wave(along, world.STRIPE_PERIOD, phase_x[rows], softness[rows])
        else:
            a = _square_wave(x[rows], world.CHECKER_PERIOD, phase_x[rows], softness[rows])
            b = _square_wave(y[rows], world.CHECKER_PERIOD, phase_y[rows], softness[rows])
            blend[rows] = a + b - 2 * a * b
    return blend


def _square_wave(x: Tensor, period: float, phase: Tensor, softness: Tensor) -> Tensor:
    """0 and 1 in turns, half a period each, with ramps as wide as a pixel."""
    place = (x / period + phase).remainder(1) - 0.5
    return (0.5 + (0.25 - place.abs()) * (period / softness)).clamp(0, 1)


def _paint_background(picture: Tensor, scenes: Scenes, times: Tensor) -> None:
    """Fill `picture` `n 3 H W`."""
    picture[:] = scenes.ground[:, 0, :, None, None]
    textured = (scenes.ground[:, 0] != scenes.ground[:, 1]).any(1).nonzero()[:, 0]
    if len(textured):
        blend = background_blend(scenes[textured], times[textured], picture.shape[-1])
        tones = scenes.ground[textured, :, :, None, None]
        picture[textured] = torch.lerp(tones[:, 0], tones[:, 1], blend[:, None])


def _paint_object(picture: Tensor, scenes: Scenes, pose: Poses, number: int) -> None:
    """Paint the objects of column `number` over `picture` `n 3 H W`, where a clip has them."""
    rows = (scenes.count > number).nonzero()[:, 0]
    if not len(rows):
        return
    whole = len(rows) == len(picture)
    part, pose = (scenes, pose) if whole else (scenes[rows], Poses(*(field[rows] for field in pose)))
    size = picture.shape[-1]
    distance = outline_distance(part.shape[:, number], pose, size)
    colour = part.rgb[:, number, :, None, None]
    if bool((part.style > 0).any()):
        colour = _styled(colour.expand(-1, -1, size, size).clone(), part.style, distance, pose)
    cover = coverage(distance, size)[:, None]
    if whole:
        picture.lerp_(colour.expand_as(picture), cover)
    else:
        picture[rows] = torch.lerp(picture[rows], colour.expand(-1, -1, size, size), cover)


def _styled(colour: Tensor, style: Tensor, distance: Tensor, pose: Poses) -> Tensor:
    """Colours `n 3 H W` with a dark contour inside the outline, or light from the upper left."""
    size = colour.shape[-1]
    rows = (style == world.STYLES.index("outlined")).nonzero()[:, 0]
    if len(rows):
        inside = coverage(distance[rows] + contour_width(pose.radius[rows, None, None]), size)[:, None]
        contour = torch.tensor(world.CONTOUR, device=colour.device)[:, None, None] / 255
        colour[rows] = torch.lerp(contour.expand_as(colour[rows]), colour[rows], inside)
    rows = (style == world.STYLES.index("shaded")).nonzero()[:, 0]
    if len(rows):
        grid = pixel_grid(size, colour.device)
        x = (grid - pose.centre[rows, :1]) / pose.radius[rows, None]
        y = (grid - pose.centre[rows, 1:]) / pose.radius[rows, None]
        away = rearrange(x, "n w -> n 1 w") + rearrange(y, "n h -> n h 1")
        away = (away / 2**0.5).clamp_(-1, 1)[:, None]
        lit = torch.lerp(colour[rows], torch.ones_like(colour[rows]), (-away).clamp(min=0) * world.LIGHT)
        colour[rows] = lit * (1 - away.clamp_(min=0) * world.SHADE)
    return colour
