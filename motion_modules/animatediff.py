"""AnimateDiff's motion module (Guo et al. 2023): two temporal self-attentions and a feed-forward behind every layer of a frozen image UNet.

`add_motion` installs the modules into the UNet's slots; they start as the identity (`proj_out` is zero). Parameter names are those of diffusers'
`MotionAdapter`. Where the statistics of GroupNorm run (`norm_scope`) and how many positions the table has differ by checkpoint family.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from videogen.attention import temporal
from videogen.control import Pass, Site
from videogen.errors import InputError
from videogen.models.blocks import DownLevel, MidLevel, ResnetBlock, UpLevel
from videogen.models.layers import (
    Attention,
    FeedForward,
    GroupNorm,
    Linear,
    Scope,
    plus,
    recompute,
    to_picture,
    to_tokens,
)
from videogen.models.unet import UNet

Alone = Literal["run", "skip"]


@dataclasses.dataclass(frozen=True)
class MotionConfig:
    """Sizes and switches of a set of motion modules.

    channels           width of each level of the UNet it belongs to
    layers             modules per encoder level (one more in the decoder)
    heads              attention heads of every module
    positions          length of the table of positions, the longest clip of one call
    mid                whether the middle has a module (AnimateDiff v2)
    norm_scope         statistics of the module's own GroupNorm: per frame (the authors' SD 1.5 code) or over the clip (diffusers, the SDXL branch)
    resnet_norm_scope  what the family expects of the UNet's residual blocks: over the clip in AnimateDiff v1, else per frame
    alone              a frame without company in its group: the modules run and it sees itself, or they are skipped there
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    heads: int = 8
    positions: int = 32
    mid: bool = False
    norm_scope: Scope = "clip"
    resnet_norm_scope: Scope = "frame"
    groups: int = 32
    alone: Alone = "run"

    def __post_init__(self) -> None:
        counts = (self.layers, self.heads, self.positions, self.groups)
        if not self.channels or min(counts) < 1 or any(c % self.heads or c % self.groups for c in self.channels):
            raise InputError(f"motion modules cannot be built so: {self}")
        for scope in (self.norm_scope, self.resnet_norm_scope):
            if scope not in get_args(Scope):
                raise InputError(f"a norm of motion modules is over each {' or '.join(get_args(Scope))}, not {scope!r}")
        if self.alone not in get_args(Alone):
            raise InputError(f"a lone frame's motion modules are to {' or '.join(get_args(Alone))}, not {self.alone!r}")

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> MotionConfig:
        """Read a MotionAdapter's `config.json`, or that of a UNetMotionModel, which holds the same under other keys.

        `norm_scope` is diffusers' (over the clip) where the file does not say.
        """
        for key in ("motion_transformer_layers_per_block", "motion_transformer_layers_per_mid_block"):
            depth = config.get(key, 1)
            if depth not in (1, None) and set(depth if isinstance(depth, (list, tuple)) else [depth]) != {1}:
                raise InputError(f"this motion adapter has {key}={depth!r}; only modules of one block are known here")
        if config.get("conv_in_channels"):
            raise InputError("this motion adapter brings its own first convolution (PIA); it is not supported yet")
        return cls(
            channels=tuple(config["block_out_channels"]),
            layers=int(config.get("motion_layers_per_block", config.get("layers_per_block", 2))),
            heads=int(config.get("motion_num_attention_heads", 8)),
            positions=int(config.get("motion_max_seq_length", 32)),
            mid=bool(config.get("use_motion_mid_block", True)),
            norm_scope=config.get("norm_scope", "clip"),
            resnet_norm_scope=config.get("resnet_norm_scope", "frame"),
            groups=int(config.get("motion_norm_num_groups", config.get("norm_num_groups", 32))),
            alone=config.get("alone", "run"),
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The same as a MotionAdapter's `config.json`; diffusers ignores the two scopes and `alone`, which are ours."""
        return {
            "_class_name": "MotionAdapter", "_diffusers_version": "0.42.1", "block_out_channels": list(self.channels),
            "motion_layers_per_block": self.layers, "motion_mid_block_layers_per_block": 1, "motion_num_attention_heads": self.heads,
            "motion_norm_num_groups": self.groups, "motion_max_seq_length": self.positions, "use_motion_mid_block": self.mid,
            "conv_in_channels": None, "norm_scope": self.norm_scope, "resnet_norm_scope": self.resnet_norm_scope,
            "alone": self.alone,
        }  # fmt: skip


class Positions(nn.Module):
    """The table of sinusoidal positions `pe [1, length, c]`; a buffer, never trained.

    by_frame  a frame's position is its id in the whole clip, not its place among the frames of its group in this call
    """

    pe: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.by_frame = False
        self.register_buffer("pe", sinusoidal_positions(width, length))

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """Add to h `(b f) n c`, a norm's output, the position of each frame. Raises InputError beyond the table."""
        if self.by_frame:
            return plus(h, self.pe[0, p.frame_ids].to(h.dtype).repeat(p.b, 1)[:, None])
        length = self.pe.shape[1]
        if p.f > length:
            raise InputError(
                f"this motion module has positions for {length} frames, the call has {p.f}; run the clip in windows of at most {length}"
            )
        if p.groups is None:
            return plus(h, self.pe[0, : p.f].to(h.dtype).repeat(p.b, 1)[:, None])
        same = p.groups[:, :, None] == p.groups[:, None, :]
        place = same.tril(-1).sum(-1)
        return plus(h, self.pe[0, place.flatten()].to(h.dtype)[:, None])


class TemporalBlock(nn.Module):
    """Two self-attentions along the frames and a GEGLU feed-forward, each behind a LayerNorm and added to its input, in place where no
    gradient is asked for; positions are added to the normed tokens.
    """

    def __init__(self, width: int, heads: int, length: int, site: Site) -> None:
        super().__init__()
        self.sites = tuple(dataclasses.replace(site, place=f"{site.place}.{name}") for name in ("attn1", "attn2"))
        self.ends = tuple(site.ends() for site in self.sites)
        self.pos_embed = Positions(width, length)
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """h `(b f) n c`."""
        h = self._attended(h, p) if len(p.spans) < 2 else over_spans(self._attended, h, p)
        return plus(h, recompute(p.recompute_pieces, self._fed, h, p))

    def _attended(self, h: Tensor, p: Pass) -> Tensor:
        layers = (self.norm1, self.attn1), (self.norm2, self.attn2)
        for (norm, layer), site, (start, end) in zip(layers, self.sites, self.ends, strict=True):
            x = p.features(start, self.pos_embed(norm(h), p))
            h = plus(h, p.features(end, recompute(p.recompute_pieces, _attend, layer, x, site, p)))
        return h

    def _fed(self, h: Tensor, p: Pass) -> Tensor:
        return self.ff(self.norm3(h), p)


def _attend(layer: Attention, x: Tensor, site: Site, p: Pass) -> Tensor:
    out = temporal(layer.to_q(x, p), layer.to_k(x, p), layer.to_v(x, p), layer.heads, site, p)
    return layer.to_out[0](out, p)


def over_spans(layer: Callable[[Tensor, Pass], Tensor], h: Tensor, p: Pass) -> Tensor:
    """A temporal layer over the pass's windows, its outputs averaged by their weights (FreeNoise, Qiu et al. 2023, eq. 6). h `(b f) n c`."""
    clip = h.unflatten(0, (p.b, p.f))
    total, weight = torch.zeros_like(clip), clip.new_zeros(p.f)
    for span in p.spans:
        places = torch.tensor(span.places, device=h.device)
        piece = dataclasses.replace(
            p,
            f=len(span.places),
            frames=span.frames,
            groups=None if p.groups is None else p.groups[:, places],
            spans=(),
        )
        w = clip.new_tensor(span.weights)
        out = layer(clip[:, places].flatten(0, 1), piece).unflatten(0, (p.b, piece.f))
        total.index_add_(1, places, out * w[:, None, None])
        weight.index_add_(0, places, w)
    return (total / weight[:, None, None]).flatten(0, 1)


class MotionModule(nn.Module):
    """GroupNorm, projection, one temporal block, projection back (zero at first). Returns what is to be added to h."""

    dial = "motion"

    def __init__(self, width: int, config: MotionConfig, site: Site) -> None:
        super().__init__()
        self.site = site
        self.alone = config.alone
        self.norm = GroupNorm(config.groups, width, 1e-6, config.norm_scope)
        self.proj_in = Linear(width, width)
        block = dataclasses.replace(site, place=f"{site.place}.transformer_blocks.0")
        self.transformer_blocks = nn.ModuleList([TemporalBlock(width, config.heads, config.positions, block)])
        self.proj_out = Linear(width, width)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """h `(b f) c h w` -> the same shape."""
        x = recompute(p.recompute_pieces, self._tokens, h, p)
        return to_picture(self.proj_out(self.transformer_blocks[0](x, p), p), h)

    def _tokens(self, h: Tensor, p: Pass) -> Tensor:
        return self.proj_in(to_tokens(self.norm(h, p)), p)


def sinusoidal_positions(width: int, length: int) -> Tensor:
    """`1 length c`: pe[pos, 2i] = sin(pos 10000^(-2i/c)), pe[pos, 2i+1] its cosine (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[None]


def add_motion(unet: UNet, config: MotionConfig) -> UNet:
    """Install motion modules into the UNet's slots, as the identity. Raises InputError where widths differ or modules are already there."""
    if motion_parameters(unet):
        raise InputError("this UNet already has motion modules; take them out with remove_motion first")
    levels = len(config.channels)
    if config.channels != unet.config.channels:
        raise InputError(
            f"these motion modules are for a UNet of widths {config.channels}, this one has {unet.config.channels}: another model family"
        )
    if config.layers != unet.config.layers:
        raise InputError(
            f"these motion modules have {config.layers} per level, the UNet has {unet.config.layers} layers there"
        )

    def modules(level: int, block: str, part: str, count: int) -> list[MotionModule]:
        sites = [Site(unet.net, f"{block}.motion_modules.{i}", "temporal", part, level) for i in range(count)]
        return [MotionModule(config.channels[level], config, site) for site in sites]

    for i, down in enumerate(unet.down_blocks):
        _fill(down, modules(i, f"down_blocks.{i}", "down", config.layers))
    for i, up in enumerate(unet.up_blocks):
        _fill(up, modules(levels - 1 - i, f"up_blocks.{i}", "up", config.layers + 1))
    if config.mid:
        _fill(unet.mid_block, modules(levels - 1, "mid_block", "mid", 1))
    set_resnet_norm_scope(unet, config.resnet_norm_scope)
    return unet


@torch.no_grad()
def near_in_time(unet: nn.Module, scale: float) -> None:
    """Fresh modules begin by attending to the same and neighbouring frames: queries and keys start as the identity, times `scale`.

    Their product is then that of the positions, which falls with the distance in the heads of fast sines and hardly in those of slow ones. So a
    frame's position reaches its own values from the start; under random queries attention is an even mean, in which every frame's position is
    the same, and modules must find both what a frame is to do and when, where neither helps alone.
    """
    for module in unet.modules():
        if isinstance(module, TemporalBlock):
            for layer in (module.attn1.to_q, module.attn1.to_k, module.attn2.to_q, module.attn2.to_k):
                layer.weight.copy_(scale * torch.eye(*layer.weight.shape))


def positions_by_frame(unet: nn.Module) -> None:
    """From now on a call's `frames` say which positions they have, and lie in the table: what is learnt from some frames of a clip holds for all."""
    for module in unet.modules():
        if isinstance(module, Positions):
            module.by_frame = True


def _fill(level: DownLevel | MidLevel | UpLevel | nn.Module, modules: list[MotionModule]) -> None:
    slot = nn.ModuleList(modules)
    like = next(level.parameters())
    # Built on the meta device they wait for a checkpoint's tensors, which bring device and dtype along.
    level.motion_modules = slot if next(slot.parameters()).is_meta else slot.to(like.device, like.dtype)


def remove_motion(unet: UNet) -> UNet:
    """Take the motion modules out again; the UNet is the image model it was."""
    for level in unet.levels:
        level.motion_modules = nn.ModuleList()
    set_resnet_norm_scope(unet, unet.config.norm_scope)
    return unet


def set_resnet_norm_scope(unet: UNet, scope: Scope) -> None:
    """Where the residual blocks' and the last GroupNorm take their statistics; a switch of the family that is animated."""
    norms = [norm for block in unet.modules() if isinstance(block, ResnetBlock) for norm in (block.norm1, block.norm2)]
    for norm in (*norms, unet.conv_norm_out):
        norm.scope = scope


def motion_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The motion modules' parameters by name."""
    return {name: value for name, value in unet.named_parameters() if "motion_modules." in name}


def motion_state(unet: nn.Module) -> dict[str, Tensor]:
    """The motion modules' state dict, position tables included, with the names of diffusers' MotionAdapter."""
    return {name: value for name, value in unet.state_dict().items() if "motion_modules." in name}
