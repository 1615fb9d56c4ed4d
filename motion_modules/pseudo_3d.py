"""FateZero's network (Qi et al. 2023): Tune-A-Video's temporal attention, and pseudo-3D convolutions (Singer et al. 2022, section 3.2).

`add_pseudo_3d` installs a convolution over three frames behind every convolution of the picture that is wider than one cell, as the identity:
low-rank, h + U * (D * h) with U zero, or full, K * h with K one at the frame itself. Frames beyond the ends of the clip count as zero. There is
none behind 1x1 convolutions. Both turn with the dial `motion`, as the attention does.

Names in state dicts are `...conv1.temporal`, and `...transformer_blocks.0.temporal.attn` and `.norm`; `NAMES` gives the authors'
(`conv_temporal`, `attn_temporal`, `norm_temporal`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from motion_modules.tune_a_video import add_temporal, remove_temporal
from videogen.control import Pass, Site
from videogen.errors import InputError
from videogen.frame_choice import Entry, FrameChoice
from videogen.models.layers import Conv2d
from videogen.models.unet import UNet

NAMES = {
    ".temporal.attn.": ".attn_temporal.",
    ".temporal.norm.": ".norm_temporal.",
    ".temporal.": ".conv_temporal.",
}
"""Our names of the temporal layers and FateZero's; the order matters."""

FRAMES = 3  # that a convolution reads


class LowRank(nn.Module):
    """Added to its input: down to `rank` channels and back, each over three frames and without bias; zero at first."""

    dial = "motion"

    def __init__(self, width: int, rank: int, site: Site) -> None:
        super().__init__()
        self.site = site
        self.down = nn.Conv1d(width, rank, FRAMES, bias=False)
        self.up = nn.Conv1d(rank, width, FRAMES, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """h `(b f) c h w` -> the same shape."""
        if not p.on(self.dial, self.site):
            return h
        low = along_frames(h, self.down.weight, None, p)
        return p.add(h, along_frames(low, self.up.weight, None, p), self.dial, self.site)


class Full(nn.Conv1d):
    """In the place of its input: a convolution over three frames, the identity at first."""

    dial = "motion"

    def __init__(self, width: int, site: Site) -> None:
        super().__init__(width, width, FRAMES)
        assert self.bias is not None
        self.site = site
        nn.init.dirac_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, h: Tensor, p: Pass) -> Tensor:  # type: ignore[override]  # it must know which frames are a clip
        """h `(b f) c h w` -> the same shape."""
        if not p.on(self.dial, self.site):
            return h
        out = along_frames(h, self.weight, self.bias, p)
        return out if p.plain(self.dial) else p.add(h, out - h, self.dial, self.site)


def along_frames(h: Tensor, weight: Tensor, bias: Tensor | None, p: Pass) -> Tensor:
    """Convolve h `(b f) c h w` along the frames by weight `o c k` (k odd), zeros beyond the ends of the clip or the group -> `(b f) o h w`."""
    kernel = weight[..., None, None]
    if p.groups is not None:
        return F.conv3d(_neighbours(h, p.groups, weight.shape[-1] // 2), kernel, bias).squeeze(2)
    clip = rearrange(h, "(b f) c h w -> b c f h w", b=p.b)  # a view in channels-last memory
    out = F.conv3d(clip, kernel, bias, padding=(weight.shape[-1] // 2, 0, 0))
    return rearrange(out, "b c f h w -> (b f) c h w")


def _neighbours(h: Tensor, groups: Tensor, reach: int) -> Tensor:
    """For every frame of h `(b f) c h w` the frames of its group (`b f`) around it, zero where there is none: `(b f) c k h w`."""
    clip = h.unflatten(0, groups.shape)
    same = groups[:, :, None] == groups[:, None]
    rank = same.tril(-1).sum(2)
    items = torch.arange(len(clip), device=h.device)[:, None]
    found = []
    for step in range(-reach, reach + 1):
        hit = (same & (rank[:, None] == rank[:, :, None] + step)).to(h.device)
        # Selected, not multiplied: a NaN stays in its group.
        found.append(torch.where(hit.any(2)[..., None, None, None], clip[items, hit.int().argmax(2)], 0))
    return torch.stack(found, 3).flatten(0, 1)


def lowered(rank: int, width: int) -> int:
    """The rank of a convolution of that width: half the width, where the rank that is asked for does not fit in it (the authors' rule)."""
    return rank if rank <= width else width // 2


def convolutions(unet: UNet) -> dict[str, Conv2d]:
    """The convolutions of a UNet's picture that are wider than one cell, by name."""
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, Conv2d) and max(module.kernel_size) > 1
    }


def add_pseudo_3d(unet: UNet, rank: int | None) -> UNet:
    """Install temporal attention and convolutions along the frames, low-rank or (None) full, as the identity; norms run over the clip.

    Raises InputError where temporal layers or motion modules are already there.
    """
    if rank is not None and rank < 1:
        raise InputError(
            f"a rank of {rank} for the convolutions along the frames: give 1 or more, or none for full ones"
        )
    add_temporal(unet)
    for name, conv in convolutions(unet).items():
        site, width = _site(unet, name), conv.out_channels
        layer = Full(width, site) if rank is None else LowRank(width, lowered(rank, width), site)
        # Built on the meta device it waits for a checkpoint's tensors, which bring device and dtype along.
        like = conv.weight
        conv.temporal = layer if next(layer.parameters()).is_meta else layer.to(like.device, like.dtype)
    return unet


def remove_pseudo_3d(unet: UNet) -> UNet:
    """Take all of it out again; what was tuned of the image layers stays."""
    for conv in convolutions(unet).values():
        conv.temporal = None
    return remove_temporal(unet)


def _site(unet: UNet, name: str) -> Site:
    """The address of what stands behind the convolution of that name; those that halve or double the picture belong to the size they make."""
    block, *rest = name.split(".")
    innermost = len(unet.config.channels) - 1
    part = {"conv_in": "down", "down_blocks": "down", "mid_block": "mid"}.get(block, "up")
    level = {"down_blocks": 0, "mid_block": innermost, "up_blocks": innermost}.get(block, 0)
    if block in ("down_blocks", "up_blocks"):
        resized = rest[1] in ("downsamplers", "upsamplers")
        level += (int(rest[0]) + resized) * (1 if block == "down_blocks" else -1)
    return Site(unet.net, f"{name}.temporal", "temporal", part, level)


def frame_table(unet: UNet, entries: Sequence[Entry], least: int) -> FrameChoice:
    """Which frames self-attention reads, on levels that are at least so wide; narrower ones read their own frame."""
    channels = unet.config.channels
    return FrameChoice(tuple(entries), sites=lambda site: channels[site.level] >= least)
