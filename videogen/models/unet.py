"""The UNet of Stable Diffusion 1.x, 2.x and SDXL over clips: an image model inflated over time by folding frames (Rombach et al. 2022; Podell et al. 2023).

Parameter names and shapes are diffusers' `UNet2DConditionModel`'s, so public checkpoints load strictly. What videos add is installed into slots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videogen.conditioning import Conditioning, head
from videogen.control import Control, Pass, Site
from videogen.errors import InputError
from videogen.models.blocks import DownLevel, MidLevel, ResnetBlock, Transformer2D, UpLevel
from videogen.models.layers import Conv2d, GroupNorm, Linear, Scope, sinusoids

# Values that other checkpoints of the class may carry and that change its topology: each is another network, refused by name.
PLAIN = {
    "act_fn": "silu", "attention_type": "default", "class_embed_type": None, "encoder_hid_dim_type": None, "dual_cross_attention": False,
    "only_cross_attention": False, "resnet_time_scale_shift": "default", "time_embedding_type": "positional", "mid_block_type": "UNetMidBlock2DCrossAttn",
    "conv_in_kernel": 3, "conv_out_kernel": 3, "center_input_sample": False, "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
    "time_embedding_act_fn": None, "timestep_post_act": None, "time_cond_proj_dim": None, "num_class_embeds": None,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Widths, depths and heads of a UNet, by level from the outermost; all else is topology.

    channels      width of each level
    depths        transformer blocks of each level, 0 where it has no attention
    heads         attention heads of each level
    context       width of the text tokens
    layers        residual blocks per encoder level (one more in the decoder)
    linear        token projections stored as matrices (SD 2.x, SDXL) instead of 1x1 convolutions
    size_width    width of the sinusoids of SDXL's size conditions, None without micro-conditions
    pooled_width  width of the pooled text that stands before them
    norm_scope    statistics of the residual blocks' GroupNorm: per frame, or over the clip (AnimateDiff v1, Tune-A-Video)
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    depths: tuple[int, ...] = (1, 1, 1, 0)
    heads: tuple[int, ...] = (8, 8, 8, 8)
    context: int = 768
    layers: int = 2
    linear: bool = False
    groups: int = 32
    eps: float = 1e-5
    size_width: int | None = None
    pooled_width: int | None = None
    sample_size: int = 64
    norm_scope: Scope = "frame"

    @property
    def mid_depth(self) -> int:
        """Transformer blocks in the middle: as many as at the innermost level that names a number."""
        return max(self.depths[-1], 1)

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> UNetConfig:
        """Read diffusers' `unet/config.json`. Raises InputError where the file describes another network."""
        for key, plain in PLAIN.items():
            if key in config and config[key] not in (plain, None):
                raise InputError(f"this UNet has {key}={config[key]!r}, which is not a plain Stable Diffusion UNet; only {plain!r} is known here")
        channels = tuple(config["block_out_channels"])
        levels = len(channels)
        depth = config.get("transformer_layers_per_block") or 1
        per_level = tuple(depth) if isinstance(depth, (list, tuple)) else (depth,) * levels
        attends = ["CrossAttn" in name for name in config["down_block_types"]]
        if ["CrossAttn" in name for name in config["up_block_types"]][::-1] != attends:
            raise InputError("this UNet's encoder and decoder attend at different levels; such a network is not known here")
        # `attention_head_dim` is the number of heads in every released Stable Diffusion config; the name is a slip diffusers keeps for compatibility.
        heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
        added = config.get("addition_embed_type")
        if added not in (None, "text_time"):
            raise InputError(f"this UNet has addition_embed_type={added!r}; only 'text_time' (SDXL) is known here")
        size_width = config["addition_time_embed_dim"] if added else None
        return cls(
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            channels=channels,
            depths=tuple(d if on else 0 for d, on in zip(per_level, attends, strict=True)),
            heads=tuple(heads) if isinstance(heads, (list, tuple)) else (heads,) * levels,
            context=config["cross_attention_dim"],
            layers=config["layers_per_block"],
            linear=bool(config.get("use_linear_projection", False)),
            groups=config.get("norm_num_groups", 32),
            eps=config.get("norm_eps", 1e-5),
            size_width=size_width,
            pooled_width=config["projection_class_embeddings_input_dim"] - 6 * size_width if size_width else None,
            sample_size=config.get("sample_size") or 64,
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The same network as diffusers' `unet/config.json`."""
        down = ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in self.depths]
        up = ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in self.depths[::-1]]
        depths = [max(d, 1) for d in self.depths]
        config: dict[str, Any] = {
            "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.42.1", "act_fn": "silu", "sample_size": self.sample_size,
            "in_channels": self.in_channels, "out_channels": self.out_channels, "block_out_channels": list(self.channels),
            "down_block_types": down, "up_block_types": up, "mid_block_type": "UNetMidBlock2DCrossAttn",
            "layers_per_block": self.layers, "cross_attention_dim": self.context, "attention_head_dim": list(self.heads),
            "transformer_layers_per_block": depths, "use_linear_projection": self.linear, "norm_num_groups": self.groups,
            "norm_eps": self.eps, "flip_sin_to_cos": True, "freq_shift": 0, "center_input_sample": False, "downsample_padding": 1,
        }  # fmt: skip
        if self.size_width is not None and self.pooled_width is not None:
            config |= {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": self.size_width,
                "projection_class_embeddings_input_dim": self.pooled_width + 6 * self.size_width,
            }
        return config


class Embedding(nn.Module):
    """Two linear layers with a SiLU between them, with diffusers' names."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.linear_1 = Linear(width, inner)
        self.linear_2 = Linear(inner, inner)

    def forward(self, values: Tensor) -> Tensor:
        """values `... width` -> `... inner`."""
        return self.linear_2(F.silu(self.linear_1(values)))


class UNet(nn.Module):
    """Noise (or v, or x0) prediction for clips. Slots are empty at first: the state dict is the image model's."""

    def __init__(self, config: UNetConfig, net: str = "unet") -> None:
        super().__init__()
        self.config = config
        self.net = net
        c = config.channels
        self.width = c[0] * 4
        self.conv_in = Conv2d(config.in_channels, c[0], 3, padding=1)
        self.time_embedding = Embedding(c[0], self.width)
        if config.size_width is not None and config.pooled_width is not None:
            self.add_embedding = Embedding(config.pooled_width + 6 * config.size_width, self.width)
        self.site_in = Site(net, "conv_in", "entry", "down", 0)
        self.down_blocks = nn.ModuleList(self._down(i) for i in range(len(c)))
        self.mid_block = self._mid()
        self.up_blocks = nn.ModuleList(self._up(i) for i in range(len(c)))
        self.conv_norm_out = GroupNorm(config.groups, c[0], config.eps, config.norm_scope)
        self.conv_out = Conv2d(c[0], config.out_channels, 3, padding=1)

    def _resnet(self, c_in: int, c_out: int, block: str, i: int, part: str, level: int) -> ResnetBlock:
        site = Site(self.net, f"{block}.resnets.{i}", "residual", part, level)
        return ResnetBlock(c_in, c_out, self.width, self.config.groups, self.config.eps, self.config.norm_scope, site)

    def _transformer(self, level: int, depth: int, block: str, i: int, part: str) -> Transformer2D:
        g = self.config
        site = Site(self.net, f"{block}.attentions.{i}", "transformer", part, level)
        return Transformer2D(g.channels[level], g.heads[level], depth, g.context, g.groups, g.linear, site)

    def _down(self, level: int) -> DownLevel:
        g, block = self.config, f"down_blocks.{level}"
        c_in, c = g.channels[max(level - 1, 0)], g.channels[level]
        resnets = [self._resnet(c_in if i == 0 else c, c, block, i, "down", level) for i in range(g.layers)]
        depth = g.depths[level]
        attentions = [self._transformer(level, depth, block, i, "down") for i in range(g.layers)] if depth else []
        return DownLevel(resnets, attentions, c, last=level == len(g.channels) - 1)

    def _mid(self) -> MidLevel:
        level, c = len(self.config.channels) - 1, self.config.channels[-1]
        resnets = [self._resnet(c, c, "mid_block", i, "mid", level) for i in (0, 1)]
        return MidLevel(resnets, [self._transformer(level, self.config.mid_depth, "mid_block", 0, "mid")])

    def _up(self, i: int) -> UpLevel:
        g, block = self.config, f"up_blocks.{i}"
        level = len(g.channels) - 1 - i
        c, below = g.channels[level], g.channels[min(level + 1, len(g.channels) - 1)]
        skips = [c] * g.layers + [g.channels[max(level - 1, 0)]]
        resnets = [self._resnet((below if j == 0 else c) + skips[j], c, block, j, "up", level) for j in range(g.layers + 1)]
        depth = g.depths[level]
        attentions = [self._transformer(level, depth, block, j, "up") for j in range(g.layers + 1)] if depth else []
        return UpLevel(resnets, attentions, c, last=level == 0, site_skip=Site(self.net, block, "skip", "up", level))

    @property
    def levels(self) -> list[DownLevel | MidLevel | UpLevel]:
        """All levels in the order they run."""
        return [*self.down_blocks, self.mid_block, *self.up_blocks]  # type: ignore[list-item]

    def set_checkpointing(self, on: bool = True) -> None:
        """Recompute each layer's activations in the backward pass instead of keeping them."""
        for level in self.levels:
            level.checkpointing = on

    def embed(self, labels: Tensor, cond: Conditioning) -> Tensor:
        """Time (and, for SDXL, size and pooled text) -> the activated embedding `b 1 d`, or `b f d` where a vector differs by frame."""
        dtype = self.conv_in.weight.dtype
        emb = self.time_embedding(sinusoids(labels, self.config.channels[0]).to(dtype))[:, None]
        if self.config.size_width is not None:
            try:
                pooled, size = cond.vector["text"], cond.vector["size"]
            except KeyError as missing:
                raise InputError(f"this model needs the vector {missing} (SDXL's pooled text and sizes); encode the prompt with its own text side") from None
            sizes = sinusoids(size, self.config.size_width).flatten(-2).to(dtype)
            emb = emb + self.add_embedding(torch.cat([_framed(pooled.to(dtype)), _framed(sizes)], -1))
        return F.silu(emb)

    def check(self, cond: Conditioning) -> None:
        """Raise InputError where the condition holds what this network does not take, or lacks its text."""
        takes = {"tokens": {"text"}, "vector": {"text", "size"} if self.config.size_width is not None else set(), "concat": set(), "residuals": set()}
        for port, heads in takes.items():
            for name in getattr(cond, port):
                if head(name) not in heads:
                    raise InputError(f"this model does not take {port} {name!r}; it takes {sorted(heads) or 'none'}")
        if not cond.entries("tokens", "text"):
            raise InputError("this model needs text; give a prompt (it may be empty)")

    def forward(self, x: Tensor, labels: Tensor, cond: Conditioning, control: Control | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """x `b f c h w`, labels `b` (what the net is told of the time), cond resolved for this call -> (output `b f c h w`, what was kept)."""
        b, f = x.shape[:2]
        dtype = self.conv_in.weight.dtype
        text = _text(cond).to(dtype)
        frames = cond.frames or tuple(range(f))
        p = Pass(b, f, self.embed(labels, cond), {"text": text}, frames, cond.rows, cond.groups, cond.strengths, control)
        h = self.conv_in(x.to(dtype).flatten(0, 1).contiguous(memory_format=torch.channels_last), p)
        h = p.features(self.site_in, h)
        skips = [h]
        for i, level in enumerate(self.down_blocks):
            p.sizes[i] = (h.shape[-2], h.shape[-1])
            h = level(h, p, skips)
        h = self.mid_block(h, p)
        for level in self.up_blocks:
            h = level(h, p, skips)
        out = self.conv_out(F.silu(self.conv_norm_out(h, p)), p)
        return out.unflatten(0, (b, f)).to(x.dtype), p.kept


def _framed(vector: Tensor) -> Tensor:
    """`b d` -> `b 1 d`; `b f d` stays."""
    return vector if vector.ndim == 3 else vector[:, None]


def _text(cond: Conditioning) -> Tensor:
    """All text entries joined along n; shared ones get a frame axis where another one has it."""
    entries = cond.entries("tokens", "text")
    if any(e.ndim == 4 for e in entries):
        frames = max(e.shape[1] for e in entries if e.ndim == 4)
        entries = [e if e.ndim == 4 else e[:, None].expand(-1, frames, -1, -1) for e in entries]
    return entries[0] if len(entries) == 1 else torch.cat(entries, -2)
