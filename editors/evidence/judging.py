"""Whether an edited clip shows what was asked for, and whether all else stayed: from its pixels, against what is known of the scene.

A clip shows what its frames show, read one by one: where a few more than half of them are right the clip as a whole reads right, and flickers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from editors.evidence.trials import Trial, centres
from videogen.metrics.text_to_video import read
from videogen.shapes import Measurement, Scenes, Wanted, measure, parse, render, world
from videogen.shapes.geometry import area_factor, contour_width, inradius_factor, moments, poses
from videogen.shapes.measure import SAME_AREA, MeasuredObject
from videogen.shapes.wanted import truths

NEAR = 3.0  # pixels of 128 that an object's centre may be off, in every frame
# Of so many frames one may be wrong or unreadable. Of 20 true edits of each kind, after the VAE, no frame is, but where the VAE takes a contour from
# all of them. Their areas lie within 0.91 and 1.11 of the true ones, and inside of a contour within 0.93 and 1.68, so SAME_AREA is room enough.
SPARED = 8
APART = 4  # pixels of 128 around the masks where a change is nobody's fault


@dataclass(frozen=True)
class Verdict:
    """What became of a clip.

    done    whether the edit asked for happened; None where none was asked for
    stayed  by what had to stay: position, motion, size, colour, shape, style, background, count, other (the second object)
    values  `change`, the mean absolute difference from the source, of the range 1, where nothing was asked for; `distance`, the mean distance
            of the objects' centres from where they belong, pixels of 128, of clips that show all of them in all frames; `velocity`, the error
            of the first object's over the velocity itself, 1 where an object that moves was lost
    read    what the measuring program said, as plain values; None for a clip with values that are no numbers
    """

    done: bool | None
    stayed: Mapping[str, bool]
    values: Mapping[str, float] = field(default_factory=dict)
    read: Mapping[str, object] | None = None


def judge(trial: Trial, edited: Tensor, source: Tensor, frames: int, every: int = 1) -> Verdict:
    """Judge frames `f 3 H W` in [0, 1], every `every`-th of the clip's `frames`; the source's frames are of the same shape.

    Of one frame nothing is said of motion.
    """
    wanted = _wanted(trial)
    places = centres(trial.scene, frames)[:, ::every]
    must_stay = _must_stay(trial, wanted, moving=len(edited) > 1)
    going = trial.moves and len(edited) > 1
    if not bool(torch.isfinite(edited).all()):
        return Verdict(
            False if trial.asked else None, dict.fromkeys(must_stay, False), {"velocity": 1.0} if going else {}
        )
    (found,) = measure(edited[None])
    items = at_places(found, places)
    room = [limit[:, ::every] for limit in areas(trial, frames)]
    facts = _of_the_clip(found, measure(edited[:, None]), wanted) | _of_objects(items, wanted, places, room)
    asked = [facts[name] for name in _asked(trial)]
    values = {"change": change(trial, edited, source, frames, every), "distance": _distance(items, places)}
    if going:
        values["velocity"] = _velocity_error(items[0], places[0])
    return Verdict(
        all(asked) if asked else None,
        {name: all(facts[part] for part in parts) for name, parts in must_stay.items()},
        {name: value for name, value in values.items() if math.isfinite(value)},
        read(found),
    )


def judge_text(trial: Trial, made: Tensor) -> Verdict:
    """Judge a clip made from the trial's prompt alone: it moves as asked, and its object has one colour in all frames.

    A flow may carry an object out of the picture while others stay: of each frame the largest object is looked at.
    """
    wanted = parse(trial.target).objects[0]
    if not bool(torch.isfinite(made).all()):
        return Verdict(False, {"one colour": False, "colour": False})
    (found,) = measure(made[None])
    one = found.objects[0] if found.objects else None
    colours = {_largest_colour(found, frame) for frame in range(len(made))}
    same = None not in colours and len(colours) == 1
    asked = one is not None and one.colour == wanted.colour
    return Verdict(
        one is not None and one.motion == wanted.motion, {"one colour": same, "colour": asked}, read=read(found)
    )


def _largest_colour(found: Measurement, frame: int) -> str | None:
    """The colour of the largest object that a frame shows; None where there is none, or its colour cannot be read."""
    there = [item for item in found.objects if not math.isnan(item.areas[frame])]
    return max(there, key=lambda item: float(item.areas[frame])).colours[frame] if there else None


def at_places(found: Measurement, places: Tensor) -> list[MeasuredObject | None]:
    """A measured object for each true one, by where they are (`objects f 2`), so that the sum of their distances is least."""
    numbers: list[int | None] = [*range(len(found.objects)), *[None] * len(places)]

    def way(order: tuple[int | None, ...]) -> float:
        return sum(
            world.SIZE
            if index is None
            else _off(found.objects[index].centres, place).nan_to_num(world.SIZE).mean().item()
            for index, place in zip(order, places, strict=True)
        )

    best = min(itertools.permutations(numbers, len(places)), key=way)
    return [None if index is None else found.objects[index] for index in best]


def areas(trial: Trial, frames: int) -> tuple[Tensor, Tensor]:
    """The least and the largest area of the objects, each `objects f` in pixels of 128, as they are before the edit and as they are to be.

    Another shape has another area, and a contour is not always told from the ground, so that an outlined object may do without.
    """
    whole = [_areas(scene, frames) for scene in (trial.scene, trial.changed)]
    least = [_areas(scene, frames, inside=_outlined(scene)) for scene in (trial.scene, trial.changed)]
    return torch.minimum(*least), torch.maximum(*whole)


def _outlined(scene: Scenes) -> bool:
    return world.STYLES[int(scene.style)] == "outlined"


def _areas(scene: Scenes, frames: int, inside: bool = False) -> Tensor:
    """True areas `objects f`, all or inside of a contour."""
    count = int(scene.count)
    radius = poses(scene, moments(frames)).radius[0, :, :count].T
    names = [world.SHAPES[index] for index in scene.shape[0, :count].tolist()]
    area, inradius = (
        torch.tensor([factor(name) for name in names])[:, None] for factor in (area_factor, inradius_factor)
    )
    if inside:
        radius = (radius - contour_width(radius) / inradius).clamp(min=0)
    return area * radius**2


def elsewhere(trial: Trial, frames: int, size: int) -> Tensor:
    """Where nothing was asked for, `f H W` of bool: APART from the objects of the edit, as they are in the source and are to be.

    For an edit of the background: inside the objects.
    """
    count = int(trial.scene.count) if trial.everywhere or "background" in trial.asked else 1
    before, after = (render(scene, frames, size).masks[0] for scene in (trial.scene, trial.changed))
    if "background" in trial.asked:
        asked = (before.sum(1) < 1).float()
    else:
        asked = torch.maximum(before, after)[:, :count].amax(1).gt(0).float()
    if not trial.asked:
        asked = torch.zeros_like(asked)
    reach = round(APART * size / world.SIZE)
    return F.max_pool2d(asked[:, None], 2 * reach + 1, 1, reach)[:, 0] == 0


def change(trial: Trial, edited: Tensor, source: Tensor, frames: int, every: int = 1) -> float:
    """The mean absolute difference where nothing was asked for; nan where there is no such place."""
    free = elsewhere(trial, frames, source.shape[-1])[::every]
    return float(rearrange((edited - source).abs(), "f c h w -> f h w c")[free].mean())


def _wanted(trial: Trial) -> Wanted:
    """All that the clip is to show: what the target prompt says, and the source's in what it leaves out."""
    (whole,) = truths(trial.changed)
    return whole


def _asked(trial: Trial) -> list[str]:
    """The facts that the edit is about."""
    return [name if name in ("style", "background") else f"{name} 0" for name in trial.asked]


def _must_stay(trial: Trial, wanted: Wanted, moving: bool = True) -> dict[str, list[str]]:
    """What must stay -> the facts that it consists of; `moving` where there are frames enough to tell how objects move."""
    parts = {
        "position": ["position 0"],
        "motion": ["motion 0"],
        "size": ["size 0"],
        "colour": ["colour 0"],
        "shape": ["shape 0"],
        "style": ["style"],
        "background": ["background"],
        "count": ["count"],
    }
    if len(wanted.objects) == 2:
        parts["other"] = [f"{name} 1" for name in ("position", "motion", "size", "colour", "shape")]
    if not moving:
        parts = {name: [fact for fact in facts if "motion" not in fact] for name, facts in parts.items()}
    return {name: facts for name, facts in parts.items() if facts and name not in trial.asked}


def _of_the_clip(found: Measurement, alone: list[Measurement], wanted: Wanted) -> dict[str, bool]:
    """Facts about the clip as a whole, `alone` being its frames each measured by itself."""
    ground = found.background == wanted.background and found.camera_still is not False
    # One frame is too little to see a thin contour on some grounds. An outlined clip that flickers betrays itself by the areas inside of the contour.
    told = wanted.style == "outlined" or _nearly_all(frame.style == wanted.style for frame in alone)
    return {
        "style": found.style == wanted.style and told,
        "background": ground and _nearly_all(frame.background == wanted.background for frame in alone),
        "count": len(found.objects) == len(wanted.objects),
    }


def _of_objects(
    items: list[MeasuredObject | None], wanted: Wanted, places: Tensor, room: list[Tensor]
) -> dict[str, bool]:
    """Facts about each object; `room` is the least and the largest area that it may have, each `objects f`."""
    facts = {}
    for number, (item, asked, place, *limits) in enumerate(zip(items, wanted.objects, places, *room, strict=True)):
        near = item is not None and bool((_off(item.centres, place) <= NEAR).all())  # nan, a missing frame, is not near
        facts[f"position {number}"] = near
        facts[f"motion {number}"] = item is not None and item.motion == asked.motion
        facts[f"colour {number}"] = item is not None and _nearly_all(name == asked.colour for name in item.colours)
        facts[f"shape {number}"] = item is not None and _nearly_all(name == asked.shape for name in item.shapes)
        facts[f"size {number}"] = item is not None and _nearly_all(_fitting(item.areas.cpu(), *limits))
    return facts


def _fitting(areas: Tensor, least: Tensor, largest: Tensor) -> list[bool]:
    """Whether areas `f` lie between the limits `f`, and are the same part of them in each frame, both to SAME_AREA."""
    part = areas / largest
    between = (part >= least / largest * (1 - SAME_AREA)) & (part <= 1 + SAME_AREA)
    found: list[bool] = (between & ((part / part.nanmedian() - 1).abs() <= SAME_AREA)).tolist()
    return found


def _nearly_all(right: Iterable[bool]) -> bool:
    """Whether at most one of SPARED is wrong."""
    found = list(right)
    return found.count(False) <= len(found) // SPARED


def _distance(items: list[MeasuredObject | None], places: Tensor) -> float:
    """Mean distance over objects and frames; nan where an object is missing in any."""
    off = [_off(item.centres, place) for item, place in zip(items, places, strict=True) if item is not None]
    return float(torch.cat(off).mean()) if len(off) == len(places) else math.nan


def _velocity_error(item: MeasuredObject | None, place: Tensor) -> float:
    """Over the true velocity; that of an object that was lost, or seen in one frame alone, is wholly wrong."""
    true = _velocity(place)
    error = math.nan if item is None else float((_velocity(item.centres.cpu()) - true).norm() / true.norm())
    return error if math.isfinite(error) else 1.0


def _velocity(centres: Tensor) -> Tensor:
    """Pixels a frame, x and y, by a straight line through `f 2`; frames without an object are left out."""
    seen = ~centres.isnan().any(1)
    time = torch.arange(len(centres))[seen].float()
    time = time - time.mean()
    return (time[:, None] * centres[seen]).sum(0) / time.square().sum()


def _off(centres: Tensor, place: Tensor) -> Tensor:
    """Distances `f`."""
    return (centres.cpu() - place).norm(dim=-1)
