"""What the camera does, read from pixels alone: the phase of a textured background, followed from frame to frame.

A pan moves the phase of the texture's fundamental waves evenly, a zoom stretches the waves (Kuglin and Hines 1975 find a
shift by phases). The pan and the zoom with which the waves of all frames add up best are the camera's. What covers the
background is left out. Stripes tell only the part of a pan across them; the rest comes from the objects, whose own ways
run along the axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from videogen.errors import InputError
from videogen.shapes import regions, world
from videogen.shapes.geometry import moments
from videogen.shapes.measure import BATCH, MeasuredObject, Measurement, change, motion_of, resized

PANNED = 6.0  # pixels over the clip; the world's least is 12
ZOOMED = math.log(1.2) / 2  # of the logarithm of the magnification's ratio; the world's least is 1.2
COHERENT = 0.75  # waves of noise add up to about half of what those of a true background do
WAYS = torch.arange(-48, 48.01, 0.25)  # pixels over the clip that are tried
ZOOMS = torch.linspace(-0.6, 0.6, 49)  # logarithms of ratios that are tried
EDGE = 2  # pixels around objects that are left out too

# Fundamental waves of each texture: their period along x and along y together, and the sign of the y part.
_WAVES: dict[str, tuple[float, tuple[int, ...]]] = {
    "striped": (world.STRIPE_PERIOD * 2**0.5, (1,)),
    "checkered": (world.CHECKER_PERIOD, (1, -1)),
}


@dataclass(frozen=True)
class Camera:
    """What the camera does over a clip.

    name  one of world.CAMERAS
    pan   its way to the right and downwards, pixels of the 128 x 128 frame; (0, 0) where it zooms
    zoom  ratio of the last magnification to the first
    """

    name: str
    pan: tuple[float, float]
    zoom: float

    def along(self, name: str) -> float:
        """Pixels that it pans as `name` says, a pan of world.CAMERAS; negative the other way. Raises InputError for what is no pan."""
        if name not in world.CAMERA_AXES:
            raise InputError(f"{name!r} is no pan; the pans are {', '.join(world.CAMERA_AXES)}")
        return sum(way * axis for way, axis in zip(self.pan, world.CAMERA_AXES[name], strict=True))


@torch.no_grad()
def cameras(frames: Tensor, measured: Sequence[Measurement]) -> list[Camera | None]:
    """Measure the camera of b clips of two frames or more.

    Args:
        frames: `b f 3 H W` in [0, 1], square.
        measured: what `measure` found in them.

    Returns:
        None where nothing tells: on plain and unknown backgrounds, where the background is not one texture that moves evenly, and where a pan over
        stripes has no object beside it.
    """
    found: list[Camera | None] = []
    for clips in frames.float().split(BATCH):
        clips = resized(clips) * 255
        ground = regions.backgrounds(clips)
        weight = _free(regions.different(regions.difference(clips, ground))[0])
        for clip, tones, free in zip(clips, ground.tones, weight, strict=True):
            found.append(_camera(clip, tones, free, measured[len(found)]))
    return found


def own_motion(seen: MeasuredObject, camera: Camera) -> str | None:
    """An object's motion (one of world.MOTIONS, or None) with the camera's taken out."""
    u = moments(len(seen.areas)) - 0.5
    shrunk = camera.zoom**-u
    middle = world.SIZE / 2
    centres = middle + (seen.centres - middle) * shrunk[:, None] + torch.tensor(camera.pan) * u[:, None]
    return motion_of(centres, seen.areas * shrunk**2, seen.turn)


def _free(mask: Tensor) -> Tensor:
    """How much each pixel `b f H W` counts: less towards the border, so that waves do not leak into one another, and not where objects are."""
    near = F.max_pool2d(mask.flatten(0, 1).float(), 2 * EDGE + 1, 1, EDGE).view(mask.shape)
    window = torch.hann_window(world.SIZE + 1, device=mask.device)[1:] + 1e-3
    return (1 - near) * window * window[:, None]


def _camera(clip: Tensor, tones: Tensor, weight: Tensor, measured: Measurement) -> Camera | None:
    """One clip `f 3 H W`, of 255; the background's tones `2 3`; weights `f H W`."""
    if measured.background not in _WAVES or len(clip) < 2:
        return None
    period, signs = _WAVES[measured.background]
    way = tones[1] - tones[0]
    blend = torch.einsum("fchw,c->fhw", clip - tones.mean(0)[:, None, None], way / way.square().sum().clamp(min=1e-6))
    total = weight.sum((1, 2), keepdim=True).clamp(min=1e-6)
    signal = weight * (blend.clamp(-0.75, 0.75) - (weight * blend).sum() / weight.sum().clamp(min=1e-6)) / total
    u = moments(len(clip), clip.device) - 0.5
    waves = torch.stack([_waves(signal, u, period, sign) for sign in signs])  # w z f
    turns = torch.exp(-2j * math.pi / period * WAYS.to(u)[:, None] * u)
    strength = torch.einsum("wzf,sf->wzs", waves, turns).abs()
    best, place = strength.max(-1)
    zoom = int(best.sum(0).argmax())
    if float(best[:, zoom].sum() / waves[:, zoom].abs().sum().clamp(min=1e-9)) < COHERENT:
        return None
    ratio = float(ZOOMS[zoom])
    if abs(ratio) > ZOOMED:
        return Camera("zooms in" if ratio > 0 else "zooms out", (0.0, 0.0), math.exp(ratio))
    ways = [float(WAYS[index]) for index in place[:, zoom].tolist()]
    pan = _across(ways[0], measured) if len(ways) == 1 else ((ways[0] + ways[1]) / 2, (ways[0] - ways[1]) / 2)
    return None if pan is None else Camera(_name(pan), pan, math.exp(ratio))


def _waves(signal: Tensor, u: Tensor, period: float, sign: int) -> Tensor:
    """The complex amplitude of a wave in each frame, for each zoom: `z f`."""
    middle = world.SIZE / 2
    grid = torch.arange(world.SIZE, device=u.device) + 0.5 - middle
    stretched = torch.exp(-ZOOMS.to(u)[:, None] * u)[..., None] * grid + middle  # z f n
    x = torch.exp(-2j * math.pi / period * stretched)
    y = torch.exp(-2j * math.pi / period * sign * stretched)
    return torch.einsum("fhz,zfh->zf", torch.einsum("fhw,zfw->fhz", signal.to(x.dtype), x), y)


def _across(way: float, measured: Measurement) -> tuple[float, float] | None:
    """The pan whose parts along x and along y add up to `way`: the one that leaves the objects' own ways nearest to an axis; None without objects."""
    if abs(way) < PANNED:
        return way / 2, way / 2
    odd = {(way, 0.0): 0.0, (0.0, way): 0.0}
    seen = [item for item in measured.objects if int((~item.areas.isnan()).sum()) > 1]
    for item in seen:
        at = (~item.areas.isnan()).nonzero()[:, 0]
        x, y = change(at, item.centres[at], len(item.areas))
        for pan in odd:
            odd[pan] += min(abs(x + pan[0]), abs(y + pan[1]))
    return min(odd, key=odd.__getitem__) if seen else None


def _name(pan: tuple[float, float]) -> str:
    x, y = pan
    if max(abs(x), abs(y)) < PANNED:
        return "none"
    if abs(x) > abs(y):
        return "pans right" if x > 0 else "pans left"
    return "pans down" if y > 0 else "pans up"
