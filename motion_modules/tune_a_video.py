"""Tune-A-Video's layers (Wu et al. 2023, section 3.2): an image UNet that is tuned on one clip.

`add_temporal` installs a temporal self-attention at the end of every transformer block, as the identity: its projection back is zero, bias
included (in the released code the bias keeps a random start: `bias="random"`; files that have one load as they are). There are no positions,
so a clip that stands still stays still. Self-attention over the first and the previous frame is no layer but a control, `frame_choice.SPARSE_CAUSAL`,
given with every call. Group norms of the residual blocks run over the clip, as in the released code.

Names in state dicts are `...transformer_blocks.0.temporal.attn` and `.norm`; `authors_name` gives the authors' (`attn_temp`, `norm_temp`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from motion_modules.animatediff import motion_parameters, set_resnet_norm_scope
from videogen.attention import temporal
from videogen.control import Pass, Site
from videogen.errors import InputError
from videogen.models.blocks import TransformerBlock
from videogen.models.layers import Attention, Scope, recompute
from videogen.models.unet import UNet

TRAINABLE = ("attn1.to_q", "attn2.to_q", "attn_temp")
"""What the authors tune, by the end of a module's name: queries of self- and text attention, and the temporal attention without its norm."""

Bias = Literal["zero", "random"]
"""How the bias of a new layer's projection back begins: as the identity wants it, or as the released code leaves it."""

NAMES = {".temporal.attn.": ".attn_temp.", ".temporal.norm.": ".norm_temp."}
"""Our names of the temporal layers and Tune-A-Video's."""


class TemporalAttention(nn.Module):
    """LayerNorm and self-attention along the frames, each place of the picture for itself, added to its input; the dial is `motion`."""

    dial = "motion"

    def __init__(self, width: int, heads: int, site: Site, bias: Bias = "zero") -> None:
        super().__init__()
        self.site = site
        self.start, self.end = site.ends()
        self.norm = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        for name, value in self.attn.to_out[0].named_parameters():
            if name == "weight" or bias == "zero":
                nn.init.zeros_(value)

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        """h `(b f) n c` -> the same shape."""
        if not p.on(self.dial, self.site):
            return h
        x = p.features(self.start, self.norm(h))
        x = recompute(p.recompute_pieces, self._attended, x, p)
        return p.add(h, p.features(self.end, x), self.dial, self.site)

    def _attended(self, x: Tensor, p: Pass) -> Tensor:
        layer = self.attn
        out = temporal(layer.to_q(x, p), layer.to_k(x, p), layer.to_v(x, p), layer.heads, self.site, p)
        return layer.to_out[0](out, p)


def blocks(unet: nn.Module) -> list[TransformerBlock]:
    """The transformer blocks of a UNet."""
    return [module for module in unet.modules() if isinstance(module, TransformerBlock)]


def add_temporal(unet: UNet, norm_scope: Scope = "clip", bias: Bias = "zero") -> UNet:
    """Install temporal attention into every transformer block, as the identity (for one frame and, with `frame` scope, for any clip); with a
    random `bias` each layer begins as that offset.

    Raises InputError where temporal layers or motion modules are already there.
    """
    if motion_parameters(unet) or temporal_parameters(unet):
        raise InputError("this UNet already has temporal layers; tune an image model (motion none)")
    for block in blocks(unet):
        at = block.site_self
        site = Site(at.net, at.place.removesuffix("attn1") + "temporal", "temporal", at.part, at.level)
        layer = TemporalAttention(block.norm1.weight.shape[0], block.attn1.heads, site, bias)
        like = block.norm1.weight
        # Built on the meta device it waits for a checkpoint's tensors, which bring device and dtype along.
        block.temporal = layer if layer.norm.weight.is_meta else layer.to(like.device, like.dtype)
    set_resnet_norm_scope(unet, norm_scope)
    return unet


def remove_temporal(unet: UNet) -> UNet:
    """Take the temporal layers out again; what was tuned of the image layers stays."""
    for block in blocks(unet):
        block.temporal = None
    set_resnet_norm_scope(unet, unet.config.norm_scope)
    return unet


def temporal_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The temporal layers' parameters by name."""
    return {name: value for name, value in unet.named_parameters() if ".temporal." in name}


def authors_name(name: str, names: Mapping[str, str] = NAMES) -> str:
    """A name of our state dict as the authors have it."""
    for ours, theirs in names.items():
        name = name.replace(ours, theirs)
    return name


def our_name(name: str, names: Mapping[str, str] = NAMES) -> str:
    """The inverse of `authors_name`."""
    return authors_name(name, {theirs: ours for ours, theirs in names.items()})


def trainable(unet: nn.Module, modules: Sequence[str] = TRAINABLE) -> dict[str, nn.Parameter]:
    """The parameters, by our names, of the modules whose authors' name ends with one of `modules`.

    Raises InputError for an end that no module has.
    """
    chosen: dict[str, nn.Parameter] = {}
    for end in modules:
        found = {name: value for name, value in unet.named_parameters() if _inside(authors_name(name), end)}
        if not found:
            raise InputError(
                f"trainable_modules: no module's name ends with {end!r}; the authors' are {', '.join(TRAINABLE)}"
            )
        chosen |= found
    return chosen


def _inside(name: str, end: str) -> bool:
    """Whether a parameter called `name` lies in a module whose name ends with `end`."""
    parts = name.split(".")
    return any(".".join(parts[:i]).endswith(end) for i in range(1, len(parts)))


@torch.no_grad()
def tuned_state(unet: nn.Module) -> dict[str, Tensor]:
    """The state dict with the authors' names."""
    return {authors_name(name): value for name, value in unet.state_dict().items()}
