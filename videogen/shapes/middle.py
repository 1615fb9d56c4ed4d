"""Where in the frame things happen: anywhere, as the world draws them, or in most clips near the middle, as people film.

No caption tells the place, and a denoiser that must leave it open has to find the same one for all frames of a clip from noise. With most clips near
the middle, the words and the frame's number nearly tell it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from videogen.shapes import world
from videogen.shapes.geometry import moments, poses
from videogen.shapes.world import Scenes


@dataclass(frozen=True)
class Middle:
    """A share of clips whose middle (see `box`) is normal about the frame's own; that of the others is anywhere.

    share      0 leaves all scenes where they are
    deviation  of the middle, along either axis, pixels of 128; cut off where an object would leave the frame
    """

    share: float = 0.0
    deviation: float = 5.0

    def moved(self, scenes: Scenes, *, generator: Generator, alike: int = 1) -> Scenes:
        """Scenes whose cameras do not zoom, a share of them moved; so many in a row as `alike` says, of one middle, move together."""
        if not self.share:
            return scenes
        middle, half = (each.unflatten(0, (-1, alike)) for each in box(scenes))
        middle, half = middle[:, 0], half.amax(1)  # all of them are to stay inside
        count = len(middle)
        low, high = self._ends(half)
        rank = low + (high - low) * torch.rand(count, 2, generator=generator)
        there = world.SIZE / 2 + self.deviation * torch.special.ndtri(rank.double()).float()
        chosen = torch.rand(count, 1, generator=generator) < self.share
        shift = torch.where(chosen, there - middle, torch.zeros(())).repeat_interleave(alike, 0)
        return scenes.change(centre=scenes.centre + shift[:, None])

    def log_density(self, middle: Tensor, half: Tensor) -> Tensor:
        """Of a clip's middle `... 2`, where one of half this size `... 2` may be."""
        anywhere = -(world.SIZE - 2 * half).clamp(min=1).log().sum(-1)
        if not self.share:
            return anywhere.expand(middle.shape[:-1])
        low, high = self._ends(half)
        normal = torch.distributions.Normal(world.SIZE / 2, self.deviation)
        near = (normal.log_prob(middle) - (high - low).log()).sum(-1)
        shares = torch.tensor([self.share, 1 - self.share]).log()
        return torch.logaddexp(near + shares[0], anywhere + shares[1])

    def _ends(self, half: Tensor) -> tuple[Tensor, Tensor]:
        """The normal distribution's function where objects touch the frame's edges."""
        room = (world.SIZE / 2 - half).clamp(min=1e-3) / self.deviation
        return torch.special.ndtr(-room), torch.special.ndtr(room)


ANYWHERE = Middle()


def box(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """The box that the objects stay in throughout the clip, with the margin they keep: its middle and half its size, `b 2`, pixels."""
    pose = poses(scenes, moments(world.FRAMES))
    reach = pose.radius[..., None] + world.MARGIN
    inside = (torch.arange(2) < scenes.count[:, None])[:, None, :, None]
    low = torch.where(inside, pose.centre - reach, torch.inf).amin((1, 2))
    high = torch.where(inside, pose.centre + reach, -torch.inf).amax((1, 2))
    return (low + high) / 2, (high - low) / 2
