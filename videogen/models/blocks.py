"""The blocks of a latent-diffusion UNet over folded frames, with diffusers' parameter names and empty slots for what videos add.

Inside, h is `(b f) c h w` in channels-last memory: the step to tokens and back is a view, and so is folding frames.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videogen.attention import spatial, weighed
from videogen.control import Pass, Site, add
from videogen.models.layers import (
    Attention,
    Conv2d,
    FeedForward,
    GroupNorm,
    Linear,
    Scope,
    TokenConv,
    plus,
    recompute,
    silu,
    to_picture,
    to_tokens,
)


class ResnetBlock(nn.Module):
    """GroupNorm-SiLU-conv twice, the time embedding added in between (Ho et al. 2020)."""

    def __init__(self, c_in: int, c_out: int, width: int, groups: int, eps: float, scope: Scope, site: Site) -> None:
        super().__init__()
        self.site = site
        self.norm1 = GroupNorm(groups, c_in, eps, scope)
        self.conv1 = Conv2d(c_in, c_out, 3, padding=1)
        self.time_emb_proj = Linear(width, c_out)
        self.norm2 = GroupNorm(groups, c_out, eps, scope)
        self.conv2 = Conv2d(c_out, c_out, 3, padding=1)
        self.conv_shortcut = Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """h `(b f) c h w`."""
        return p.features(self.site, recompute(p.recompute_pieces, self._added, h, p))

    def _added(self, h: Tensor, p: Pass) -> Tensor:
        x = self.conv1(silu(self.norm1(h, p)), p)
        emb = self.time_emb_proj(p.emb, p).expand(-1, p.f, -1).flatten(0, 1)
        x = plus(x, emb[:, :, None, None])
        x = self.conv2(silu(self.norm2(x, p)), p)
        h = h if self.conv_shortcut is None else self.conv_shortcut(h, p)
        return plus(x, h)


class TransformerBlock(nn.Module):
    """Self-attention, text attention and feed-forward, each behind a LayerNorm and added to its input, in place where no gradient is asked for.

    `temporal` is the slot of a temporal attention at the end (Tune-A-Video, FateZero), called `(h, p)`; empty, it leaves the state dict as the
    image model's.
    """

    def __init__(self, width: int, heads: int, context: int, site: Site) -> None:
        super().__init__()
        self.site_self = Site(site.net, f"{site.place}.attn1", "self", site.part, site.level)
        self.site_text = Site(site.net, f"{site.place}.attn2", "cross", site.part, site.level, "text")
        self.ends_self, self.ends_text = self.site_self.ends(), self.site_text.ends()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)
        self.temporal: nn.Module | None = None

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """h `(b f) n c`."""
        x = p.features(self.ends_self[0], self.norm1(h))
        x = recompute(p.recompute_pieces, attended, self.attn1, x, x, self.site_self, p)
        h = plus(h, p.features(self.ends_self[1], x))
        h = self._told(h, p)
        h = plus(h, recompute(p.recompute_pieces, self._fed, h, p))
        return h if self.temporal is None else self.temporal(h, p)

    def _told(self, h: Tensor, p: Pass) -> Tensor:
        text = p.tokens["text"]
        text = text.flatten(0, 1) if text.ndim == 4 else text
        bias, amount = weighed("text", self.site_text, h, p) or (None, None)
        x = p.features(self.ends_text[0], self.norm2(h))
        x = recompute(p.recompute_pieces, attended, self.attn2, x, text, self.site_text, p, bias)
        x = p.features(self.ends_text[1], x)
        return plus(h, x) if amount is None else add(h, x, amount)

    def _fed(self, h: Tensor, p: Pass) -> Tensor:
        return self.ff(self.norm3(h), p)


def attended(layer: Attention, h: Tensor, source: Tensor, site: Site, p: Pass, bias: Tensor | None = None) -> Tensor:
    """h `(b f) n c` attends over source through a layer's projections; bias as in `spatial`."""
    q, k, v = layer.to_q(h, p), layer.to_k(source, p), layer.to_v(source, p)
    return layer.to_out[0](spatial(q, k, v, layer.heads, site, p, bias), p)


class Transformer2D(nn.Module):
    """Spatial transformer: normalised, projected, a stack of blocks, projected back and added (Rombach et al. 2022)."""

    def __init__(self, width: int, heads: int, depth: int, context: int, groups: int, linear: bool, site: Site) -> None:
        super().__init__()
        self.site = site
        projection = Linear if linear else lambda i, o: TokenConv(i, o, 1)
        self.norm = GroupNorm(groups, width, 1e-6)
        self.proj_in = projection(width, width)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(
                width,
                heads,
                context,
                Site(site.net, f"{site.place}.transformer_blocks.{i}", "self", site.part, site.level),
            )
            for i in range(depth)
        )
        self.proj_out = projection(width, width)

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """h `(b f) c h w`."""
        x = recompute(p.recompute_pieces, self._tokens, h, p)
        for block in self.transformer_blocks:
            x = block(x, p)
        return p.features(self.site, plus(to_picture(self.proj_out(x, p), h), h))

    def _tokens(self, h: Tensor, p: Pass) -> Tensor:
        return self.proj_in(to_tokens(self.norm(h, p)), p)


class Downsample(nn.Module):
    """Halve the picture by a strided convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """h `(b f) c h w`."""
        return self.conv(h, p)


class Upsample(nn.Module):
    """Double the picture (to the size of the skip that follows, where sizes are odd) and convolve."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor, size: tuple[int, int], p: Pass) -> Tensor:
        """h `(b f) c h w` -> `(b f) c *size`."""
        return self.conv(F.interpolate(h, size, mode="nearest"), p)


class Skips:
    """The encoder's outputs on their way to the decoder. No list: torch's `fully_shard` hands a level copies of lists."""

    def __init__(self, first: Tensor) -> None:
        self.held = [first]

    def append(self, h: Tensor) -> None:
        """Keep another."""
        self.held.append(h)

    def pop(self) -> Tensor:
        """Take the last."""
        return self.held.pop()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the last."""
        return self.held[-1].shape[-2], self.held[-1].shape[-1]


class Level(nn.Module):
    """What the levels share: residual blocks, each followed by its transformer and its motion module where there is one.

    `motion_modules` is the slot of temporal layers; empty, it leaves the state dict as the image model's.
    """

    def __init__(self, resnets: list[ResnetBlock], attentions: list[Transformer2D]) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.motion_modules = nn.ModuleList()

    def layer(self, i: int, h: Tensor, p: Pass) -> Tensor:
        """Residual block i with what follows it."""
        h = self.resnets[i](h, p)
        if len(self.attentions):
            h = self.attentions[i](h, p)
        return self.motion(i, h, p)

    def motion(self, i: int, h: Tensor, p: Pass) -> Tensor:
        """Motion module i, where one is installed and its dial is not off. Where its family says so, lone frames skip it."""
        if len(self.motion_modules) == 0:
            return h
        module: Any = self.motion_modules[i]
        lone = p.lone() if module.alone == "skip" else None
        if not p.on("motion", module.site) or (lone is not None and p.f == 1):
            return h
        moved = p.add(h, module(h, p), "motion", module.site)
        if lone is not None:
            moved = torch.where(lone.to(h.device).flatten()[:, None, None, None], h, moved)
        return p.features(module.site, moved)


class DownLevel(Level):
    """One level of the encoder; every output goes to the decoder as a skip. `sites` are the outputs' addresses."""

    def __init__(
        self, resnets: list[ResnetBlock], attentions: list[Transformer2D], width: int, last: bool, sites: list[Site]
    ) -> None:
        super().__init__(resnets, attentions)
        self.sites = sites
        self.downsamplers = None if last else nn.ModuleList([Downsample(width)])

    def forward(self, h: Tensor, p: Pass, skips: Skips) -> Tensor:
        """h `(b f) c h w`; appends to `skips`."""
        for i in range(len(self.resnets)):
            h = p.features(self.sites[i], recompute(p.recompute_layers, self.layer, i, h, p))
            skips.append(h)
        if self.downsamplers is not None:
            h = p.features(self.sites[-1], self.downsamplers[0](h, p))
            skips.append(h)
        return h


class MidLevel(Level):
    """Residual block, transformer (and motion module), residual block."""

    def __init__(self, resnets: list[ResnetBlock], attentions: list[Transformer2D], site: Site) -> None:
        super().__init__(resnets, attentions)
        self.site = site

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """h `(b f) c h w`."""
        return p.features(self.site, recompute(p.recompute_layers, self._whole, h, p))

    def _whole(self, h: Tensor, p: Pass) -> Tensor:
        h = self.resnets[0](h, p)
        h = self.attentions[0](h, p)
        return self.resnets[1](self.motion(0, h, p), p)


class UpLevel(Level):
    """One level of the decoder; each residual block reads a skip beside h. `sites` are the addresses of the blocks' inputs."""

    def __init__(
        self, resnets: list[ResnetBlock], attentions: list[Transformer2D], width: int, last: bool, sites: list[Site]
    ) -> None:
        super().__init__(resnets, attentions)
        self.sites = sites
        self.sites_skip = [dataclasses.replace(site, kind="skip") for site in sites]
        self.upsamplers = None if last else nn.ModuleList([Upsample(width)])

    def forward(self, h: Tensor, p: Pass, skips: Skips) -> Tensor:
        """h `(b f) c h w`; takes its skips from the end of `skips`."""
        for i in range(len(self.resnets)):
            h, skip = p.features(self.sites[i], h), p.features(self.sites_skip[i], skips.pop())
            h = recompute(p.recompute_layers, self._joined, i, h, skip, p)
        if self.upsamplers is not None:
            h = self.upsamplers[0](h, skips.size, p)
        return h

    def _joined(self, i: int, h: Tensor, skip: Tensor, p: Pass) -> Tensor:
        return self.layer(i, torch.cat([h, skip], 1), p)
