"""Random scenes: attributes first, then places that keep the world's promises.

Objects stay wholly inside the frame for the whole clip; two objects never touch, differ in colour, and the relation
between them holds in every frame. All numbers are drawn on the CPU: a seed gives the same scenes on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from videogen.errors import InputError
from videogen.shapes import world
from videogen.shapes.geometry import moments, poses
from videogen.shapes.world import Scenes

_TRIES = 4096  # places drawn at once, shared by the clips that still have none
_ROUNDS = 200
_GROUP = 1024  # clips placed together
_PATIENCE = 20  # rounds after which a clip's relation is drawn anew too


def sample(
    count: int,
    *,
    generator: Generator,
    split: str = "train",  # train and test: without the held-out combinations; held_out: the first object is one; all
    objects: int | None = None,  # None: two in three clips of ten
    plain: bool | None = None,  # True: only plain backgrounds, False: only textured ones
    styles: Sequence[str] | None = None,  # None: flat in half of the clips
    motions: Sequence[str] | None = None,
    cameras: Sequence[str] | None = None,  # None: the camera stands still
) -> Scenes:
    """Draw `count` clips. Colour, shape and motion of its objects decide on a clip's split: `world.held_out`.

    "train" and "test" have the same attributes and differ by their seeds only: use another generator for each.

    Raises:
        InputError: for a name that the world does not have, or where no clip can be as asked.
    """
    _check(count, split, objects, styles, motions, cameras)
    styles = list(styles or ("flat", "flat", "outlined", "shaded"))
    fields = _attributes(count, split, list(motions or world.MOTIONS), generator)
    grounds = [name for name in world.BACKGROUNDS if plain is None or (name in world.PLAIN_BACKGROUNDS) == plain]
    fields |= {
        "count": _count(count, objects, generator),
        "size": torch.randint(len(world.SIZES), (count, 2), generator=generator),
        "background": _pick(grounds, tuple(world.BACKGROUNDS), (count,), generator),
        "style": _pick(styles, world.STYLES, (count,), generator),
        "relation": torch.randint(len(world.RELATIONS), (count,), generator=generator),
        "camera": _pick(cameras or ("none",), world.CAMERAS, (count,), generator),
    }
    fields |= _paint(fields, generator)
    starts = range(0, count, _GROUP)
    parts = [{name: field[at : at + _GROUP] for name, field in fields.items()} for at in starts]
    return world.concatenate([_placed(part, generator) for part in parts])


def _check(
    count: int,
    split: str,
    objects: int | None,
    styles: Sequence[str] | None,
    motions: Sequence[str] | None,
    cameras: Sequence[str] | None,
) -> None:
    if split not in world.SPLITS:
        raise InputError(f"there is no split {split!r}; take one of {', '.join(world.SPLITS)}")
    if count < 1:
        raise InputError(f"cannot draw {count} clips; ask for one or more")
    if objects not in (None, 1, 2):
        raise InputError(f"a clip has 1 or 2 objects, not {objects}")
    for names, known in ((styles, world.STYLES), (motions, world.MOTIONS), (cameras, world.CAMERAS)):
        for name in names or ():
            if name not in known:
                raise InputError(f"the shapes world does not know {name!r}; it knows {', '.join(known)}")


def _pick(names: Sequence[str], known: Sequence[str], shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Indices in `known`, uniform over `names`."""
    indices = torch.tensor([known.index(name) for name in names])
    return indices[torch.randint(len(indices), shape, generator=generator)]


def _count(count: int, objects: int | None, generator: Generator) -> Tensor:
    two = torch.rand(count, generator=generator) < 0.3
    return torch.full((count,), objects) if objects else two.long() + 1


def _attributes(count: int, split: str, motions: Sequence[str], generator: Generator) -> dict[str, Tensor]:
    """Shape, colour, motion `b 2`: a circle never rotates, colours differ, and the split's rule holds for both."""
    circle, rotating = world.SHAPES.index("circle"), world.MOTIONS.index("rotating")
    found = torch.zeros(0, 2, 3, dtype=torch.long)
    for _ in range(_ROUNDS):
        drawn = 2 * count + 32
        shape = torch.randint(len(world.SHAPES), (drawn, 2), generator=generator)
        colour = torch.randint(len(world.COLOURS), (drawn, 2), generator=generator)
        motion = _pick(motions, world.MOTIONS, (drawn, 2), generator)
        if len(motions) > 1:  # else a world of rotating objects would have no way out
            others = [name for name in motions if name != "rotating"]
            motion = torch.where(
                (shape == circle) & (motion == rotating), _pick(others, world.MOTIONS, (drawn, 2), generator), motion
            )
        rare = world.held_out(shape, colour, motion)
        good = (colour[:, 0] != colour[:, 1]) & ~((shape == circle) & (motion == rotating)).any(1)
        if split == "held_out":
            good &= rare[:, 0]
        elif split != "all":
            good &= ~rare.any(1)
        found = torch.cat([found, torch.stack([shape, colour, motion], -1)[good]])
        if len(found) >= count:
            return dict(zip(("shape", "colour", "motion"), found[:count].unbind(-1), strict=True))
    raise InputError(f"no clip of the split {split!r} has only the motions {', '.join(motions)}")


def _paint(fields: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
    """Colours with their jitter (a textured background's two tones move together) and the texture's phase."""
    count = len(fields["count"])

    def jitter(*shape: int) -> Tensor:
        return (torch.rand(*shape, 3, generator=generator) * 2 - 1) * world.JITTER

    colours = torch.tensor(list(world.COLOURS.values()), dtype=torch.float32)
    grounds = torch.tensor(list(world.BACKGROUNDS.values()), dtype=torch.float32)
    return {
        "rgb": ((colours[fields["colour"]] + jitter(count, 2)) / 255).clamp(0, 1),
        "ground": ((grounds[fields["background"]] + jitter(count, 1)) / 255).clamp(0, 1),
        "phase": torch.rand(count, 2, generator=generator),
    }


def _placed(fields: dict[str, Tensor], generator: Generator) -> Scenes:
    """Draw extents and places until every clip keeps the promises."""
    count = len(fields["count"])
    left = torch.arange(count)
    numbers: dict[str, Tensor] = {}
    for round_ in range(_ROUNDS):
        if round_ >= _PATIENCE:
            fields["relation"][left] = torch.randint(len(world.RELATIONS), (len(left),), generator=generator)
        tries = _TRIES // len(left)
        repeated = left.repeat_interleave(tries)
        drawn = _extents(
            {name: field[repeated] for name, field in fields.items()}, 1 + max(0, round_ - 2) / 2, generator
        )
        good = promises(drawn).view(-1, tries)
        placed, first = good.any(1), good.int().argmax(1)
        chosen = (torch.arange(len(left)) * tries + first)[placed]
        for name in ("centre", "radius", "angle", "travel", "growth", "turn", "pan", "zoom"):
            field = getattr(drawn, name)
            numbers.setdefault(name, torch.zeros(count, *field.shape[1:]))[left[placed]] = field[chosen]
        left = left[~placed]
        if not len(left):
            return Scenes(**fields, **numbers)
    raise InputError("no place was found for some objects; a clip cannot be as asked")


def _extents(fields: dict[str, Tensor], pull: float, generator: Generator) -> Scenes:
    """Radii, ways and turns from the world's ranges, and a centre from which one object alone stays in the frame.

    With `pull` above 1 radii, ways and growth tend to their least, as two large objects that meet need it.
    """
    count, motion = len(fields["count"]), fields["motion"]

    def uniform(low: Tensor | float, high: Tensor | float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    def least(low: Tensor | float, high: Tensor | float, columns: int = 2) -> Tensor:
        return low + (high - low) * torch.rand(count, columns, generator=generator) ** pull

    def where(name: str, value: Tensor, otherwise: float) -> Tensor:
        return torch.where(motion == world.MOTIONS.index(name), value, torch.tensor(otherwise))

    radii = torch.tensor([world.RADIUS[name] for name in world.SIZES])[fields["size"]]
    radius = least(radii[..., 0], radii[..., 1])
    moves = world.table(world.DIRECTIONS, world.MOTIONS)[motion]
    travel = least(*world.TRAVEL) * moves.abs().sum(-1)
    grown = least(*world.GROWTH)
    growth = where("growing", grown, 1.0) * where("shrinking", 1 / grown, 1.0)
    degrees = uniform(*world.TURN, count, 2)
    sign = torch.randint(2, (count, 2), generator=generator) * 2 - 1
    reach = (radius * torch.maximum(growth, 1 / growth).sqrt())[..., None] + (moves * travel[..., None]).abs() / 2
    camera = fields["camera"]
    pan = world.table(world.CAMERA_AXES, world.CAMERAS)[camera] * least(*world.PAN, 1)
    zoom = least(*world.ZOOM, 1)[:, 0]
    edge = world.MARGIN + reach + pan[:, None].abs() / 2
    ones = torch.ones(count)
    return Scenes(
        **fields,
        radius=radius,
        travel=travel,
        growth=growth,
        turn=where("rotating", torch.deg2rad(degrees) * sign, 0.0),
        angle=where("rotating", uniform(-math.pi, math.pi, count, 2), 0.0),
        centre=uniform(edge, world.SIZE - edge, count, 2, 2),
        pan=pan,
        zoom=torch.where(
            camera == world.CAMERAS.index("zooms in"),
            zoom,
            torch.where(camera == world.CAMERAS.index("zooms out"), 1 / zoom, ones),
        ),
    )


def promises(scenes: Scenes) -> Tensor:
    """Which clips `b` keep their objects inside the frame and, having two, apart and truly related, in every frame."""
    pose = poses(scenes, moments(world.FRAMES))
    edge = (pose.radius + world.MARGIN - 1e-3)[..., None]
    inside = ((pose.centre >= edge) & (pose.centre <= world.SIZE - edge)).all(-1).all(1)
    offset = pose.centre[:, :, 0] - pose.centre[:, :, 1]
    axis = world.table(world.RELATION_AXES, world.RELATIONS)[scenes.relation]
    along = (offset * axis[:, None]).sum(-1)
    across = (offset * (1 - axis.abs())[:, None]).sum(-1).abs()
    apart = offset.norm(dim=-1) >= pose.radius.sum(-1) + world.GAP
    related = (along >= world.APART) & (along >= across)
    return inside[:, 0] & ((scenes.count == 1) | (inside[:, 1] & (apart & related).all(1)))
