"""Reads clips of the shapes world from their pixels alone.

The background is the colours around the median; what differs from it falls into connected regions, which are followed
from frame to frame; an object's outline tells its shape, extent and turn, and bands around the outline its colour and style.
Thresholds lie in the middle between what the world's constants allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from videogen.errors import InputError
from videogen.shapes import looks, outline, regions, world
from videogen.shapes.tracks import tracks

MEDIUM = 14.5  # pixels of radius between small and large
MOVED = 12.0  # pixels; the world's least is 24
GROWN = math.log(1.4) / 2  # of the logarithm of the ratio of radii
TURNED = math.radians(30)  # the world's least is 60 degrees
ODD = 0.25  # outlines this far from every shape are unknown
SAME_AREA = 0.25  # an object that neither grows nor shrinks keeps its area to this share
OUTLINE = 0.4  # of an object's contrast: more than a contour has on black, less than the shaded side of most
DIAGONAL = 0.85  # tangent of the angle at which one relation ceases to hold
BATCH = 8  # clips measured together


@dataclass(frozen=True)
class MeasuredObject:
    """One object through a clip; None is unknown. Per-frame values hold nan or None where the object is missing."""

    shape: str | None
    colour: str | None
    size: str
    motion: str | None
    centres: Tensor  # f 2, pixels of the 128 x 128 frame
    areas: Tensor  # f, pixels
    turn: float  # radians over the clip, clockwise
    shapes: tuple[str | None, ...]
    colours: tuple[str | None, ...]

    @property
    def unchanged(self) -> bool:
        """There in every frame with the same colour and shape, and the same area unless it grows or shrinks."""
        steady = self.motion in ("growing", "shrinking") or bool(
            ((self.areas / self.areas.nanmedian() - 1).abs() <= SAME_AREA).all()
        )
        return steady and {*self.shapes} == {self.shape} and {*self.colours} == {self.colour} and self.shape is not None


@dataclass(frozen=True)
class Measurement:
    """What a clip shows; None is unknown."""

    background: str | None
    style: str | None  # None where there is no object
    objects: tuple[MeasuredObject, ...]  # the largest first
    camera_still: bool | None  # None where nothing tells: on a plain background, in a single frame
    crowded: int = 0  # frames that hold more objects than these

    def holds(self, relation: str, first: int, second: int) -> bool:
        """Whether object `first` is `relation` (one of world.RELATIONS) object `second`.

        In every frame it has to be on that side, and on the whole at no more than a little over 45 degrees from it; so
        two relations may hold at once.
        """
        offset = self.objects[first].centres - self.objects[second].centres
        offset = offset[~offset.isnan().any(1)]
        axis = torch.tensor(world.RELATION_AXES[relation], dtype=torch.float32)
        along, across = (offset * axis).sum(1), (offset * (1 - axis.abs())).sum(1).abs()
        return bool(len(along) and (along > 0).all() and along.mean() >= DIAGONAL * across.mean())


@torch.no_grad()
def measure(frames: Tensor) -> list[Measurement]:
    """Measure b clips.

    Args:
        frames: `b f 3 H W` in [0, 1], square; other sizes than 128 are resampled.

    Raises:
        InputError: for another shape of tensor.
    """
    if frames.dim() != 5 or frames.shape[2] != 3 or frames.shape[3] != frames.shape[4] or not frames.shape[1]:
        raise InputError(f"clips to measure are b f 3 H W with H = W, not {tuple(frames.shape)}")
    found: list[Measurement] = []
    for clips in frames.float().split(BATCH):
        found += _measure(resized(clips) * 255)
    return found


def resized(clips: Tensor) -> Tensor:
    """Square clips `b f 3 H W` at the world's own size."""
    if clips.shape[-1] == world.SIZE:
        return clips
    small = F.interpolate(clips.flatten(0, 1), (world.SIZE, world.SIZE), mode="bilinear", antialias=True)
    return small.view(*clips.shape[:3], world.SIZE, world.SIZE)


class _Sight(NamedTuple):
    """One object in one frame."""

    clip: int
    track: int
    frame: int
    region: int  # of all regions of the batch


def _measure(clips: Tensor) -> list[Measurement]:
    ground = regions.backgrounds(clips)
    added = regions.difference(clips, ground)
    mask, threshold = regions.different(added)
    found = regions.regions(mask.flatten(0, 1))
    still = _camera_still(clips, mask, ground.textured)
    sights, crowded = _sights(found, *clips.shape[:2])
    if not sights:
        return [
            Measurement(name, None, (), steady, more)
            for name, steady, more in zip(ground.names, still, crowded, strict=True)
        ]
    table = torch.tensor(sights, device=clips.device)
    clip, track, frame, region = table.unbind(1)
    centre, picture = found.centre[region], clip * clips.shape[1] + frame
    seen = torch.cat([clips.flatten(0, 1), added.flatten(0, 1)], dim=1)
    cut, corner = outline.pieces(seen, picture, centre)
    # only what goes from the background towards the object's colour is the object: halos go the other way
    towards = regions.own_colours(clips, found)[region] - ground.tones.mean(1)[clip]
    contrast = towards.norm(dim=1)
    amount = torch.einsum("pchw,pc->phw", cut[:, 3:], towards / contrast.clamp(min=1)[:, None])
    labels, _ = outline.pieces(found.labels[:, None], picture, centre)
    own = labels[:, 0] == region[:, None, None] + 1
    others = ~own & (amount > threshold[clip, None, None])
    traced = outline.trace(amount.masked_fill(others, 0), centre - corner, contrast * OUTLINE)
    owner = torch.unique(clip * outline.HALF + track, return_inverse=True)[1]
    objects = _objects(cut[:, :3], ~others, traced, corner, owner, frame, clips.shape[1])
    result = []
    for index, name in enumerate(ground.names):
        mine = [objects[int(number)] for number in owner[clip == index].unique()]
        style = _style(mine)
        named = tuple(item.named(style) for item in mine)
        result.append(Measurement(name, style, named, still[index], crowded[index]))
    return result


def _sights(found: regions.Regions, clips: int, frames: int) -> tuple[list[_Sight], list[int]]:
    """Regions followed through each clip; and in how many of its frames there are more than are followed."""
    sights, crowded = [], []
    numbers = torch.arange(len(found.picture))
    picture = found.picture.cpu()
    for clip in range(clips):
        rows = [numbers[picture == clip * frames + frame] for frame in range(frames)]
        centres, areas = [found.centre[row].cpu() for row in rows], [found.area[row].cpu() for row in rows]
        followed = tracks(centres, areas)
        crowded.append(sum(len(row) > len(followed) for row in rows))
        for index, track in enumerate(followed):
            for frame, region in enumerate(track):
                if region is not None:
                    sights.append(_Sight(clip, index, frame, int(rows[frame][region])))
    return sights, crowded


def _camera_still(clips: Tensor, mask: Tensor, textured: Tensor) -> list[bool | None]:
    """Whether a textured background stays where it is, from the pixels that no object covers."""
    if clips.shape[1] < 2:
        return [None] * len(clips)
    change = (clips[:, 1:] - clips[:, :1]).square_().sum(2).sqrt_()
    free = ~(mask[:, 1:] | mask[:, :1])
    share = ((change > regions.DIFFERENT) & free).flatten(1).sum(1) / free.flatten(1).sum(1).clamp(min=1)
    return [bool(s < 0.1) if t else None for s, t in zip(share.tolist(), textured.tolist(), strict=True)]


@dataclass(frozen=True)
class _Reading:
    """One object's numbers, before the clip's style is known."""

    shape: int
    oddness: float
    shapes: list[str | None]
    centres: Tensor
    areas: Tensor
    turn: float
    motion: str | None
    errors: tuple[float, float]  # of the flat and of the outlined staircase
    slope: float
    colour: Tensor  # f 2 3, nan where it is missing; read as flat and as outlined
    radius: tuple[float, float]

    def named(self, style: str | None) -> MeasuredObject:
        """Colours by name, which takes the style."""
        outlined = int(style == "outlined")
        colour = self.colour[:, outlined]
        names = looks.colour_names(torch.cat([colour.nanmedian(dim=0, keepdim=True).values, colour.nan_to_num(1e4)]))
        return MeasuredObject(
            shape=world.SHAPES[self.shape] if self.oddness < ODD else None,
            colour=names[0],
            size=world.SIZES[self.radius[outlined] > MEDIUM],
            motion=self.motion,
            centres=self.centres,
            areas=self.areas,
            turn=self.turn,
            shapes=tuple(self.shapes),
            colours=tuple(names[1:]),
        )


def _style(objects: list[_Reading]) -> str | None:
    """One style for a clip: each object votes with its area."""
    if not objects:
        return None
    weight = torch.tensor([float(item.areas.nanmean()) for item in objects])
    readings = torch.tensor([[*item.errors, item.slope] for item in objects])
    flat, outlined, slope = (readings.T @ (weight / weight.sum())).tolist()
    if outlined + looks.BENDS < flat:
        return "outlined"
    return "shaded" if slope < looks.SHADED else "flat"


def _objects(
    pixels: Tensor, free: Tensor, traced: outline.Outline, corner: Tensor, owner: Tensor, frame: Tensor, frames: int
) -> list[_Reading]:
    """Readings in the order of `owner`, the number of the object to which each of p sights belongs."""
    magnitudes = traced.harmonics.abs()
    count = int(owner.max()) + 1
    rows = [(owner == number).nonzero()[:, 0] for number in range(count)]
    shape, oddness = outline.shapes(torch.stack([magnitudes[row].median(dim=0).values for row in rows]))
    single, single_odd = outline.shapes(magnitudes)
    radius = outline.radii(traced.area, shape[owner])
    angle = outline.turns(traced.harmonics, shape[owner])
    looked = looks.look(pixels, free, traced.centre, shape[owner], radius, angle)
    fits = (looked.flat, looked.outlined)
    true_radius = [outline.grown(radius, shape[owner], fit.shift).clamp(min=1) for fit in fits]
    columns = [traced.centre + corner, traced.area[:, None], *(fit.colour for fit in fits)]
    table = torch.cat(columns, dim=1).cpu()
    result = []
    for number, row in enumerate(rows):
        at = frame[row]
        numbers = torch.full((frames, 9), torch.nan)
        numbers[at] = table[row]
        names: list[str | None] = [None] * frames
        for index, name, odd in zip(at.tolist(), single[row].tolist(), single_odd[row].tolist(), strict=True):
            names[index] = world.SHAPES[name] if odd < ODD else None
        turn = _turn(at.cpu(), angle[row].cpu(), outline.CORNERS[int(shape[number])], frames)
        result.append(
            _Reading(
                shape=int(shape[number]),
                oddness=float(oddness[number]),
                shapes=names,
                centres=numbers[:, :2],
                areas=numbers[:, 2],
                turn=turn,
                errors=(float(looked.flat.error[row].median()), float(looked.outlined.error[row].median())),
                slope=float(looked.slope[row].median()),
                colour=numbers[:, 3:].unflatten(1, (2, 3)),
                radius=(float(true_radius[0][row].log().mean().exp()), float(true_radius[1][row].log().mean().exp())),
                motion=motion_of(numbers[:, :2], numbers[:, 2], turn),
            )
        )
    return result


def _turn(at: Tensor, angle: Tensor, corners: int, frames: int) -> float:
    """Turn over the whole clip from angles known up to the shape's symmetry."""
    if not corners or len(at) < 2:
        return 0.0
    period = 2 * math.pi / corners
    step = (angle.diff() + period / 2).remainder(period) - period / 2
    whole = torch.cat([angle[:1], angle[:1] + step.cumsum(0)])
    return change(at, whole[:, None], frames)[0]


def change(at: Tensor, values: Tensor, frames: int) -> list[float]:
    """Change over the whole clip of values `n d` at frames `n`, by a straight line: d numbers."""
    return (_line(at, values) * (frames - 1)).tolist()


def _line(at: Tensor, values: Tensor) -> Tensor:
    """Slopes `d` of the straight lines through values `n d` at frames `n`."""
    time = at.float() - at.float().mean()
    return (time[:, None] * (values - values.mean(0))).sum(0) / (time**2).sum().clamp(min=1e-6)


def motion_of(centres: Tensor, areas: Tensor, turn: float) -> str | None:
    """The motion that stands out most, each measured by its threshold; centres `f 2`, areas `f`, nan where the object is missing, turn in radians.

    None where in some frame the object is as far from its straight course as counts for a motion: it goes there and back, or jumps. Its area may
    waver; that is told by `MeasuredObject.unchanged`.
    """
    at = (~areas.isnan()).nonzero()[:, 0]
    values = torch.cat([centres[at], areas[at, None].clamp(min=1).log() / 2], dim=1)
    slope = _line(at, values)
    course = values.mean(0) + (at - at.float().mean())[:, None] * slope
    if bool(((values - course)[:, :2].abs() > MOVED).any()):
        return None
    x, y, growth = (slope * (len(areas) - 1)).tolist()
    strength = {
        "standing still": 1.0,
        "moving left": -x / MOVED,
        "moving right": x / MOVED,
        "moving up": -y / MOVED,
        "moving down": y / MOVED,
        "growing": growth / GROWN,
        "shrinking": -growth / GROWN,
        "rotating": abs(turn) / TURNED,
    }
    return max(strength, key=strength.__getitem__)
