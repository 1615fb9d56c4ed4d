"""Numbers that no caption tells, most of them near the middle of their range: radius, way, growth, turn.

The frames of a clip must agree on them, and a denoiser that has to find them from noise, in 16 frames alike, learns that last: outlines change from
frame to frame. With most scenes of nearly the same numbers, the words and the frame's number nearly tell them, as they do of places near the middle
(`videogen.shapes.middle`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from videogen.shapes import world
from videogen.shapes.middle import box
from videogen.shapes.sampling import promises
from videogen.shapes.world import Scenes

# Pixels between two objects' centres in the middle of the clip; the first that their motions allow is taken.
PAIR = (42.0, 50.0, 58.0, 66.0, 74.0)
SLOWER = (1.0, 0.6)  # ways of two objects that would meet
LOOSE = 4.0  # pixels, along and across


@dataclass(frozen=True)
class Usual:
    """A share of clips whose numbers are near the middle of their ranges; those of the others are as the world draws them.

    Two objects are besides as near to each other as their motions allow, in a row or a column. Where no place suits them they stay as they are.

    share   0 leaves all scenes as they are
    spread  of their ranges, how much of them those numbers keep
    large   so many of the objects that were drawn small are made large
    """

    share: float = 0.0
    spread: float = 0.25
    large: float = 0.6

    def drawn(self, scenes: Scenes, *, generator: Generator, alike: int = 1) -> Scenes:
        """Scenes whose cameras do not zoom, a share of them changed; so many in a row as `alike` says are changed alike, and stay inside the frame.

        Rotating ones of them turn clockwise, about upright in the middle of the clip.
        """
        if not self.share:
            return scenes

        def each(values: Tensor) -> Tensor:
            return values.repeat_interleave(alike, 0)

        fours, two = len(scenes) // alike, scenes.count == 2
        share, large = (each(chance) for chance in torch.rand(2, fours, generator=generator))
        changed = self._changed(scenes, large)
        usual, suits = _inside(changed, alike), ~two
        if two.any():
            pairs, found = _paired(changed, LOOSE * (2 * each(torch.rand(fours, 2, generator=generator)) - 1))
            usual, suits = _where(two, pairs, usual), suits | found
        return _where(suits & (share < self.share), usual, scenes)

    def _changed(self, scenes: Scenes, large: Tensor) -> Scenes:
        limits = torch.tensor([world.RADIUS[name] for name in world.SIZES])
        small = world.SIZES.index("small")
        size = torch.where(
            (scenes.size == small) & (large < self.large)[:, None], world.SIZES.index("large"), scenes.size
        )
        ratio = self._nearer(torch.maximum(scenes.growth, 1 / scenes.growth), world.GROWTH)
        turn = self._nearer(scenes.turn.abs().rad2deg(), world.TURN).deg2rad()
        return scenes.change(
            size=size,
            radius=self._near(_rank(scenes.radius, limits[scenes.size]), limits[size]),
            travel=self._nearer(scenes.travel, world.TRAVEL) * (scenes.travel > 0),
            growth=torch.where(scenes.growth > 1, ratio, torch.where(scenes.growth < 1, 1 / ratio, 1.0)),
            turn=turn * (scenes.turn != 0),
            angle=scenes.angle * self.spread,
        )

    def _nearer(self, values: Tensor, ends: tuple[float, float]) -> Tensor:
        limits = torch.tensor(ends)
        return self._near(_rank(values, limits), limits)

    def _near(self, rank: Tensor, limits: Tensor) -> Tensor:
        """The values at these ranks, 0 to 1, brought near the middle of a range."""
        low, high = limits.unbind(-1)
        return low + (high - low) * (0.5 + self.spread * (rank - 0.5))


AS_DRAWN = Usual()


def _rank(value: Tensor, limits: Tensor) -> Tensor:
    """Where in a range values are, from 0 to 1. Two objects that are close may be smaller, numbers at rest are outside: they count as an end."""
    low, high = limits.unbind(-1)
    return ((value - low) / (high - low)).clamp(0, 1)


def _where(which: Tensor, scenes: Scenes, others: Scenes) -> Scenes:
    """The scenes for which `which` (`b`) says so, and of the others the others."""
    pairs = zip(scenes.tensors(), others.tensors(), strict=True)
    return Scenes(*(torch.where(which.view(-1, *[1] * (one.ndim - 1)), one, two) for one, two in pairs))


def _inside(scenes: Scenes, alike: int = 1) -> Scenes:
    """The scenes, moved by as little as brings what they are in (`box`) into the frame; so many in a row as `alike` says move together."""
    middle, half = box(scenes)
    low, high = (each.unflatten(0, (-1, alike)) for each in (half - middle, world.SIZE - half - middle))
    shift = torch.zeros(2).clamp(low.amax(1), high.amin(1)).repeat_interleave(alike, 0)
    return scenes.change(centre=scenes.centre + shift[:, None])


def _paired(scenes: Scenes, loose: Tensor) -> tuple[Scenes, Tensor]:
    """The scenes with both objects about the middle of the frame, as near as suits them, and for which `b` there is a distance that does.

    loose  `b 2`, pixels that the first one is off, along and across
    """
    axis = world.table(world.RELATION_AXES, world.RELATIONS)[scenes.relation]
    off = loose[:, :1] * axis + loose[:, 1:] * axis.flip(1)
    placed, suits = scenes, torch.zeros(len(scenes), dtype=torch.bool)
    for slower in SLOWER:
        for distance in PAIR:
            first = world.SIZE / 2 + axis * distance / 2 + off
            centre = torch.stack([first, world.SIZE / 2 - axis * distance / 2], 1)
            trial = _inside(scenes.change(centre=centre, travel=scenes.travel * slower))
            new = promises(trial) & ~suits
            centre = torch.where(new[:, None, None], trial.centre, placed.centre)
            placed = placed.change(centre=centre, travel=torch.where(new[:, None], trial.travel, placed.travel))
            suits |= new
    return placed, suits
