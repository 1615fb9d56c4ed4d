"""The UNet of Stable Diffusion 1.x, 2.x and SDXL over clips: an image model inflated over time by folding frames.

Rombach et al. 2022, section 3; Podell et al. 2023, section 2.

Parameter names and shapes are diffusers' `UNet2DConditionModel`'s, so public checkpoints load strictly. What videos add is installed into slots.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videogen.conditioning import PORTS, Conditioning, framed, head
from videogen.control import Control, Pass, Site
from videogen.errors import InputError
from videogen.models.blocks import DownLevel, MidLevel, ResnetBlock, Skips, Transformer2D, UpLevel
from videogen.models.layers import Conv2d, GroupNorm, Linear, Scope, sinusoids

# Values that other checkpoints of the class may carry and that change its topology: each is another network, refused by name.
PLAIN = {
    "act_fn": "silu", "attention_type": "default", "class_embed_type": None, "encoder_hid_dim_type": None,
    "dual_cross_attention": False, "only_cross_attention": False, "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional", "mid_block_type": "UNetMidBlock2DCrossAttn", "conv_in_kernel": 3,
    "conv_out_kernel": 3, "center_input_sample": False, "downsample_padding": 1, "flip_sin_to_cos": True,
    "freq_shift": 0, "time_embedding_act_fn": None, "timestep_post_act": None, "time_cond_proj_dim": None,
    "num_class_embeds": None, "resnet_out_scale_factor": 1, "resnet_skip_time_act": False, "mid_block_scale_factor": 1,
    "cross_attention_norm": None, "reverse_transformer_layers_per_block": None, "time_embedding_dim": None,
}  # fmt: skip
# Level types and whether they attend; diffusers names those of an animated UNet (UNetMotionModel) differently.
LEVELS = {
    f"{attends}{side}Block{kind}": bool(attends)
    for kind in ("2D", "Motion")
    for side in ("Down", "Up")
    for attends in ("CrossAttn", "")
}


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Widths, depths and heads of a UNet, by level from the outermost; all else is topology.

    channels      width of each level
    depths        transformer blocks of each level, 0 where it has no attention
    heads         attention heads of each level
    middle        transformer blocks in the middle; 0 is as many as the innermost level has, and at least one
    context       width of the text tokens
    layers        residual blocks per encoder level (one more in the decoder)
    linear        token projections stored as matrices (SD 2.x, SDXL) instead of 1x1 convolutions
    size_width    width of the sinusoids of SDXL's size conditions, None without micro-conditions
    added_width   width of all that joins the time embedding: the pooled text, then these sinusoids
    norm_scope    statistics of the residual blocks' GroupNorm: per frame, or over the clip (AnimateDiff v1, Tune-A-Video)
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    depths: tuple[int, ...] = (1, 1, 1, 0)
    heads: tuple[int, ...] = (8, 8, 8, 8)
    middle: int = 0
    context: int = 768
    layers: int = 2
    linear: bool = False
    groups: int = 32
    eps: float = 1e-5
    size_width: int | None = None
    added_width: int | None = None
    sample_size: int | tuple[int, int] = 64
    norm_scope: Scope = "frame"

    @property
    def sample_grid(self) -> tuple[int, int]:
        """Height and width of the latents the network was trained at."""
        return (self.sample_size, self.sample_size) if isinstance(self.sample_size, int) else self.sample_size

    @property
    def mid_depth(self) -> int:
        """Transformer blocks in the middle."""
        return self.middle or max(self.depths[-1], 1)

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> UNetConfig:
        """Read diffusers' `unet/config.json`. Raises InputError where the file describes another network."""
        for key, plain in PLAIN.items():
            if key in config and (config[key] or None) != (plain or None):
                raise InputError(
                    f"this UNet has {key}={config[key]!r}, which is not a plain Stable Diffusion UNet; only {plain!r} is known here"
                )
        channels = tuple(config["block_out_channels"])
        levels = len(channels)
        depth = config.get("transformer_layers_per_block") or 1
        per_level = tuple(depth) if isinstance(depth, (list, tuple)) else (depth,) * levels
        for key, sizes in {
            "transformer_layers_per_block": per_level,
            "layers_per_block": (config["layers_per_block"],),
        }.items():
            if not all(isinstance(size, int) for size in sizes):
                raise InputError(
                    f"this UNet has {key}={config[key]!r}; layers that differ inside a level are not known here"
                )
        for name in (*config["down_block_types"], *config["up_block_types"]):
            if name not in LEVELS:
                raise InputError(f"this UNet has a level of type {name}; known here are {', '.join(LEVELS)}")
        attends = [LEVELS[name] for name in config["down_block_types"]]
        if [LEVELS[name] for name in config["up_block_types"]][::-1] != attends:
            raise InputError(
                "this UNet's encoder and decoder attend at different levels; such a network is not known here"
            )
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
            middle=0 if attends[-1] or per_level[-1] == 1 else per_level[-1],
            context=config["cross_attention_dim"],
            layers=config["layers_per_block"],
            linear=bool(config.get("use_linear_projection", False)),
            groups=config.get("norm_num_groups", 32),
            eps=config.get("norm_eps", 1e-5),
            size_width=size_width,
            added_width=config["projection_class_embeddings_input_dim"] if size_width else None,
            sample_size=tuple(side) if isinstance(side := config.get("sample_size") or 64, (list, tuple)) else side,
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The same network as diffusers' `unet/config.json`."""
        down = ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in self.depths]
        up = ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in self.depths[::-1]]
        depths = [*(max(d, 1) for d in self.depths[:-1]), self.mid_depth]
        config: dict[str, Any] = {
            "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.42.1", "act_fn": "silu", "sample_size": self.sample_size,
            "in_channels": self.in_channels, "out_channels": self.out_channels, "block_out_channels": list(self.channels),
            "down_block_types": down, "up_block_types": up, "mid_block_type": "UNetMidBlock2DCrossAttn",
            "layers_per_block": self.layers, "cross_attention_dim": self.context, "attention_head_dim": list(self.heads),
            "transformer_layers_per_block": depths, "use_linear_projection": self.linear, "norm_num_groups": self.groups,
            "norm_eps": self.eps, "flip_sin_to_cos": True, "freq_shift": 0, "center_input_sample": False, "downsample_padding": 1,
        }  # fmt: skip
        if self.size_width is not None:
            config |= {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": self.size_width,
                "projection_class_embeddings_input_dim": self.added_width,
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
        self.checkpointing = False
        c = config.channels
        self.width = c[0] * 4
        self.conv_in = Conv2d(config.in_channels, c[0], 3, padding=1)
        self.time_embedding = Embedding(c[0], self.width)
        if config.added_width is not None:
            self.add_embedding = Embedding(config.added_width, self.width)
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
        last = level == len(g.channels) - 1
        sites = [Site(self.net, f"{block}.resnets.{i}", "down", "down", level) for i in range(g.layers)]
        sites += [] if last else [Site(self.net, f"{block}.downsamplers.0", "down", "down", level + 1)]
        return DownLevel(resnets, attentions, c, last, sites)

    def _mid(self) -> MidLevel:
        level, c = len(self.config.channels) - 1, self.config.channels[-1]
        resnets = [self._resnet(c, c, "mid_block", i, "mid", level) for i in (0, 1)]
        attention = self._transformer(level, self.config.mid_depth, "mid_block", 0, "mid")
        return MidLevel(resnets, [attention], Site(self.net, "mid_block", "mid", "mid", level))

    def _up(self, i: int) -> UpLevel:
        g, block = self.config, f"up_blocks.{i}"
        level = len(g.channels) - 1 - i
        c, below = g.channels[level], g.channels[min(level + 1, len(g.channels) - 1)]
        skips = [c] * g.layers + [g.channels[max(level - 1, 0)]]
        resnets = [
            self._resnet((below if j == 0 else c) + skips[j], c, block, j, "up", level) for j in range(g.layers + 1)
        ]
        depth = g.depths[level]
        attentions = [self._transformer(level, depth, block, j, "up") for j in range(g.layers + 1)] if depth else []
        sites = [Site(self.net, f"{block}.resnets.{j}", "up", "up", level) for j in range(g.layers + 1)]
        return UpLevel(resnets, attentions, c, level == 0, sites)

    @property
    def levels(self) -> list[DownLevel | MidLevel | UpLevel]:
        """All levels in the order they run."""
        return [*self.down_blocks, self.mid_block, *self.up_blocks]

    def set_checkpointing(self, on: bool = True) -> None:
        """Recompute each layer's activations in the backward pass instead of keeping them."""
        self.checkpointing = on

    @property
    def parts(self) -> list[str]:
        """The names of installed parts that a dial can turn: what their modules say in `dial`."""
        names = (getattr(module, "dial", None) for module in self.modules())
        return sorted({name for name in names if isinstance(name, str)})

    def embed(self, labels: Tensor, cond: Conditioning) -> Tensor:
        """Time (and, for SDXL, size and pooled text) -> the activated embedding `b 1 d`, or `b f d` where a vector differs by frame."""
        dtype = self.conv_in.weight.dtype
        emb = self.time_embedding(sinusoids(labels, self.config.channels[0]).to(dtype))[:, None]
        if self.config.size_width is not None:
            pooled, size = _vector(cond, "text"), _vector(cond, "size")
            sizes = sinusoids(size, self.config.size_width).flatten(-2).to(dtype)
            frames = max(pooled.shape[1], size.shape[1])
            added = [pooled.to(dtype).expand(-1, frames, -1), sizes.expand(-1, frames, -1)]
            emb = emb + self.add_embedding(torch.cat(added, -1))
        return F.silu(emb)

    def check(self, cond: Conditioning) -> None:
        """Raise InputError where the condition holds what this network does not take, or lacks what it needs."""
        takes = {"tokens": ["text"], "vector": [] if self.config.size_width is None else ["text", "size"]}
        for port in PORTS:
            for name in getattr(cond, port):
                if head(name) not in takes.get(port, []):
                    known = " and ".join(takes.get(port, [])) or "none"
                    raise InputError(f"this model does not take {port} {name!r}; of {port} it takes {known}")
        if not cond.entries("tokens", "text"):
            raise InputError("this model needs text; give a prompt (it may be empty)")
        turned = sorted({name for port in PORTS for name in getattr(cond, port)} | set(self.parts))
        for name in cond.dials:
            if name not in turned:
                raise InputError(
                    f"there is nothing called {name!r} that a dial could turn; there is {', '.join(turned)}"
                )
        for name in takes["vector"]:
            if not cond.entries("vector", name):
                raise InputError(
                    f"this model needs the vector {name!r} (SDXL's pooled text and sizes); encode the prompt with its own text side"
                )
        if self.config.size_width is not None:
            pooled, sizes = (cond.entries("vector", name)[0].shape[-1] for name in ("text", "size"))
            if pooled + sizes * self.config.size_width != self.config.added_width:
                raise InputError(
                    f"the pooled text is {pooled} wide and {sizes} sizes come with it, which this model does not read (SDXL reads 6, its refiner 5)"
                )
        for width in {tokens.shape[-1] for tokens in cond.entries("tokens", "text")} - {self.config.context}:
            raise InputError(
                f"the text is {width} wide and this model reads {self.config.context}; encode the prompt with the model's own text side"
            )

    def forward(
        self, x: Tensor, labels: Tensor, cond: Conditioning, control: Control | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x `b f c h w`, labels `b` (what the net is told of the time), cond resolved for this call -> (output `b f c h w`, what was kept)."""
        b, f = x.shape[:2]
        dtype = self.conv_in.weight.dtype
        text, entries = _text(cond)
        frames = cond.frames or tuple(range(f))
        p = Pass(
            b,
            f,
            self.embed(labels, cond),
            {"text": text.to(dtype)},
            frames,
            cond.rows,
            cond.groups,
            cond.strengths,
            control,
            spans=tuple(cond.spans.cut(frames)) if cond.spans is not None else (),
            entries={"text": entries},
            checkpointing=self.checkpointing,
            frame_ids=torch.tensor(frames, device=x.device),
        )
        h = self.conv_in(x.to(dtype).flatten(0, 1).contiguous(memory_format=torch.channels_last), p)
        h = p.features(self.site_in, h)
        skips = Skips(h)
        for i, level in enumerate(self.down_blocks):
            p.sizes[i] = (h.shape[-2], h.shape[-1])
            h = level(h, p, skips)
        h = self.mid_block(h, p)
        for level in self.up_blocks:
            h = level(h, p, skips)
        out = self.conv_out(F.silu(self.conv_norm_out(h, p)), p)
        # A copy: checkpointing fills the pass's own dictionary once more in the backward pass.
        return out.unflatten(0, (b, f)).to(x.dtype), dict(p.kept)


def _vector(cond: Conditioning, name: str) -> Tensor:
    """The sum of all vectors of one head by their dials' weights, `b 1 d`, or `b f d` where one differs by frame."""
    values = []
    for full, value in cond.vector.items():
        if head(full) == name:
            strength, value = cond.strengths.get(full), framed("vector", value)
            values.append(value if strength is None or strength.plain else value * strength.weight.to(value)[..., None])
    return functools.reduce(torch.add, values)


def _text(cond: Conditioning) -> tuple[Tensor, tuple[tuple[str, int], ...]]:
    """All text entries joined along n, `b n d`, or `b f n d` where one differs by frame; with their names and lengths.

    Entries that are off in the whole call are left out, unless all are.
    """
    named = {name: value for name, value in cond.tokens.items() if head(name) == "text"}
    off = [name for name in named if name in cond.strengths and cond.strengths[name].off]
    if len(off) < len(named):
        named = {name: value for name, value in named.items() if name not in off}
    entries = list(named.values())
    if len(entries) > 1 and any(e.ndim == 4 for e in entries):
        entries = [framed("tokens", e) for e in entries]
        frames = max(e.shape[1] for e in entries)
        entries = [e.expand(-1, frames, -1, -1) for e in entries]
    text = entries[0] if len(entries) == 1 else torch.cat(entries, -2)
    return text, tuple((name, e.shape[-2]) for name, e in zip(named, entries, strict=True))
