"""Targets without the scatter of places: the mean of a clean clip over all places that its objects could as well have had.

No caption tells where an object is, so at high noise nearly all of a denoiser's squared error is that of the place, and its scatter drowns the
little that words change. On a plain background, scenes that differ by a shift of whole latent cells are equally likely, and their latents are
nearly shifts of each other (seen on 16 scenes: to 0.2 % of an object's latents sideways, to 11 % up and down). Taken as shifts, their posterior given
the noisy clip is known in closed form, and its mean may stand for the clip itself: E[E[x0 | x_t, shifts of x0] | x_t] = E[x0 | x_t], with less
variance (Rao-Blackwell; Xu et al. 2023, arXiv 2302.00670, do the same with a batch of other examples).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from videogen.shapes import world
from videogen.shapes.geometry import moments, poses
from videogen.shapes.world import Scenes

CELL = 8  # pixels
OPEN = 0.6  # alpha from which on the place is certain


def ranges(scenes: Scenes) -> Tensor:
    """By how many cells each clip may be shifted, its objects staying inside the frame: least and most along x and y, `b 2 2`.

    Where the background has a texture or the camera moves, nothing may.
    """
    pose = poses(scenes, moments(world.FRAMES))
    there = torch.arange(2) < scenes.count[:, None]
    reach = pose.radius[..., None] + world.MARGIN
    inside = there[:, None, :, None]
    low = torch.where(inside, pose.centre - reach, torch.inf).amin((1, 2))
    high = torch.where(inside, pose.centre + reach, -torch.inf).amax((1, 2))
    free = torch.stack([-(low / CELL).floor(), ((world.SIZE - high) / CELL).floor()], -1).long()
    free = torch.stack([free[..., 0].clamp(max=0), free[..., 1].clamp(min=0)], -1)
    plain = torch.tensor([name in world.PLAIN_BACKGROUNDS for name in world.BACKGROUNDS])[scenes.background]
    still = scenes.camera == world.CAMERAS.index("none")
    return free * (plain & still)[:, None, None]


def expected(noisy: Tensor, latents: Tensor, grounds: Tensor, free: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The mean of the clean clip given the noisy one, over the shifts in `free`, all of them equally likely before.

    noisy    alpha x0 + sigma noise, `b f c h w`
    latents  x0
    grounds  latents of the backgrounds alone, `b c h w`
    free     as `ranges` gives them, `b 2 2`
    alpha    and sigma: `b`
    """
    mean = latents.clone()
    for i in range(len(latents)):
        if float(alpha[i]) < OPEN and free[i].any():
            mean[i] = _over_shifts(noisy[i], latents[i], grounds[i], free[i], float(alpha[i]), float(sigma[i]))
    return mean


def _over_shifts(noisy: Tensor, latents: Tensor, ground: Tensor, free: Tensor, alpha: float, sigma: float) -> Tensor:
    """One clip, `f c h w`. What stands out from the background is shifted; beyond its edges it goes on as there."""
    (left, right), (up, down) = free.tolist()
    standing_out = latents - ground
    height, width = latents.shape[-2:]
    wide = F.pad(standing_out, (right, -left, down, -up), mode="replicate")
    shifts = wide.unfold(2, height, 1).unfold(3, width, 1)  # f c y x h w, from the shift to the lower right on
    rest = noisy - alpha * ground
    # log N(noisy; alpha (ground + shift), sigma^2), without what is the same for all shifts.
    match = torch.einsum("fchw,fcyxhw->yx", rest, shifts)
    size = torch.einsum("fcyxhw,fcyxhw->yx", shifts, shifts)
    weights = ((alpha * match - alpha**2 * size / 2) / sigma**2).flatten().softmax(0).view_as(match)
    return ground + torch.einsum("yx,fcyxhw->fchw", weights, shifts)
