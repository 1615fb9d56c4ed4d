"""Targets without the scatter of places: the mean of a clean clip over all places that its objects could as well have had.

No caption tells where an object is, so at high noise nearly all of a denoiser's squared error is that of the place, and its scatter drowns the
little that words change. On a plain background, scenes that differ by a shift of whole latent cells are equally likely, and their latents are
nearly shifts of each other (seen on 16 scenes: to 0.2 % of an object's latents sideways, to 11 % up and down). Taken as shifts, their posterior given
the noisy clip is known in closed form, and its mean may stand for the clip itself: E[E[x0 | x_t, shifts of x0] | x_t] = E[x0 | x_t], with less
variance (Rao-Blackwell; Xu et al. 2023, arXiv 2302.00670, do the same with a batch of other examples).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from videogen.shapes import world
from videogen.shapes.middle import ANYWHERE, Middle, box
from videogen.shapes.world import Scenes

CELL = 8  # pixels
OPEN = 0.6  # alpha from which on the place is certain


class Places(NamedTuple):
    """Where else the objects of clips could be.

    free    by how many cells each clip may be shifted, its objects staying inside the frame: least and most along x and y, `b 2 2`
    middle  and half the size of the box that they stay in, `b 2`, pixels
    prior   how likely middles are before anything is seen
    """

    free: Tensor
    middle: Tensor
    half: Tensor
    prior: Middle = ANYWHERE

    def before(self, item: int) -> Tensor:
        """The logarithm of how likely each shift of a clip is before anything is seen, `y x`, from the lowest and rightmost on."""
        (left, right), (up, down) = self.free[item].tolist()
        y, x = torch.arange(down, up - 1, -1), torch.arange(right, left - 1, -1)
        shifts = CELL * torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
        return self.prior.log_density(self.middle[item] + shifts, self.half[item])


def places(scenes: Scenes, prior: Middle = ANYWHERE) -> Places:
    """Where else clips could be, before anything is seen anywhere alike; with a textured background or a moving camera nowhere."""
    middle, half = box(scenes)
    low, high = middle - half, middle + half
    free = torch.stack([-(low / CELL).floor(), ((world.SIZE - high) / CELL).floor()], -1).long()
    free = torch.stack([free[..., 0].clamp(max=0), free[..., 1].clamp(min=0)], -1)
    plain = torch.tensor([name in world.PLAIN_BACKGROUNDS for name in world.BACKGROUNDS])[scenes.background]
    still = scenes.camera == world.CAMERAS.index("none")
    return Places(free * (plain & still)[:, None, None], middle, half, prior)


def expected(noisy: Tensor, latents: Tensor, grounds: Tensor, there: Places, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The mean of the clean clip given the noisy one, over the shifts that `there` allows.

    noisy    alpha x0 + sigma noise, `b f c h w`
    latents  x0
    grounds  latents of the backgrounds alone, `b c h w`
    there    as `places` gives them
    alpha    and sigma: `b`
    """
    mean = latents.clone()
    for i in range(len(latents)):
        if float(alpha[i]) < OPEN and there.free[i].any():
            before = there.before(i).to(noisy.device)
            ends = there.free[i].tolist()
            mean[i] = _over_shifts(noisy[i], latents[i], grounds[i], ends, before, float(alpha[i]), float(sigma[i]))
    return mean


def _over_shifts(
    noisy: Tensor, latents: Tensor, ground: Tensor, free: list[list[int]], before: Tensor, alpha: float, sigma: float
) -> Tensor:
    """One clip, `f c h w`. What stands out from the background is shifted; beyond its edges it goes on as there."""
    (left, right), (up, down) = free
    standing_out = latents - ground
    height, width = latents.shape[-2:]
    wide = F.pad(standing_out, (right, -left, down, -up), mode="replicate")
    shifts = wide.unfold(2, height, 1).unfold(3, width, 1)  # f c y x h w, from the shift to the lower right on
    rest = noisy - alpha * ground
    # log N(noisy; alpha (ground + shift), sigma^2), without what is the same for all shifts.
    match = torch.einsum("fchw,fcyxhw->yx", rest, shifts)
    size = torch.einsum("fcyxhw,fcyxhw->yx", shifts, shifts)
    weights = (before + (alpha * match - alpha**2 * size / 2) / sigma**2).flatten().softmax(0).view_as(match)
    return ground + torch.einsum("yx,fcyxhw->fchw", weights, shifts)
