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
from videogen.shapes.world import Scenes


@dataclass(frozen=True)
class Usual:
    """A share of clips of one object whose numbers are near the middle of their ranges; those of the others are as the world draws them.

    share   0 leaves all scenes as they are
    spread  of their ranges, how much of them those numbers keep
    large   so many of them that were drawn small are made large
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
        chance = torch.rand(2, -(-len(scenes) // alike), generator=generator).repeat_interleave(alike, 1)
        share, large = chance[:, : len(scenes), None]
        chosen = (share < self.share) & (scenes.count == 1)[:, None]

        limits = torch.tensor([world.RADIUS[name] for name in world.SIZES])
        small = world.SIZES.index("small")
        rank = _rank(scenes.radius, limits[scenes.size])
        size = torch.where((scenes.size == small) & (large < self.large), world.SIZES.index("large"), scenes.size)
        ratio = torch.maximum(scenes.growth, 1 / scenes.growth)
        ratio = self._near(_rank(ratio, _limits(world.GROWTH)), _limits(world.GROWTH))
        growth = torch.where(scenes.growth > 1, ratio, torch.where(scenes.growth < 1, 1 / ratio, 1.0))
        turn = self._near(_rank(scenes.turn.abs().rad2deg(), _limits(world.TURN)), _limits(world.TURN)).deg2rad()
        changed = {
            "size": size,
            "radius": self._near(rank, limits[size]),
            "travel": self._near(_rank(scenes.travel, _limits(world.TRAVEL)), _limits(world.TRAVEL))
            * (scenes.travel > 0),
            "growth": growth,
            "turn": turn * (scenes.turn != 0),
            "angle": scenes.angle * self.spread,
        }
        kept = {name: torch.where(chosen, value, getattr(scenes, name)) for name, value in changed.items()}
        return _inside(scenes.change(**kept))

    def _near(self, rank: Tensor, limits: Tensor) -> Tensor:
        """The values at these ranks, 0 to 1, brought near the middle of a range."""
        low, high = limits.unbind(-1)
        return low + (high - low) * (0.5 + self.spread * (rank - 0.5))


AS_DRAWN = Usual()


def _limits(ends: tuple[float, float]) -> Tensor:
    return torch.tensor(ends)


def _rank(value: Tensor, limits: Tensor) -> Tensor:
    """Where in a range values are, from 0 to 1. Two objects that are close may be smaller, numbers at rest are outside: they count as an end."""
    low, high = limits.unbind(-1)
    return ((value - low) / (high - low)).clamp(0, 1)


def _inside(scenes: Scenes) -> Scenes:
    """The scenes, moved by as little as brings what they are in (`box`) into the frame."""
    middle, half = box(scenes)
    room = world.SIZE - half
    return scenes.change(centre=scenes.centre + (middle.clamp(half, room) - middle)[:, None])
