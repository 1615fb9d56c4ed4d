"""The leaves of our networks.

Every leaf is called `(h, p)`, so that a wrapped one (a LoRA that differs by row or frame) can read the call's dials.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videogen.control import Pass

Scope = Literal["frame", "clip"]

# Feed-forward layers work in pieces of about this many inner values when no gradient is asked for: their inner width is eight times the outer one
# and would otherwise set the peak memory of the whole network. Smaller ones on a processor stay in its caches, which is faster too.
FEED_FORWARD_PIECE = 1 << 23
CACHED_PIECE = 1 << 21

# oneDNN's matrix product. PyTorch gives float32 on processors to MKL, which stays at half the width of the registers on AMD's.
ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def linear(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """h `... i` times weight `o i` transposed, plus bias `o`; by oneDNN where that is faster and no gradient is asked for."""
    plain = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled(h.device.type)
    if plain or ONEDNN_LINEAR is None or h.device.type != "cpu" or not h.dtype == weight.dtype == torch.float32:
        return F.linear(h, weight, bias)
    return ONEDNN_LINEAR(h, weight, bias, "none", [], "")


def silu(h: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else reads: in its own memory where no gradient is asked for."""
    return F.silu(h, inplace=not torch.is_grad_enabled())


def plus(own: Tensor, h: Tensor) -> Tensor:
    """own + h, h broadcast, for a tensor that nobody else reads: in its own memory where no gradient is asked for."""
    return own + h if torch.is_grad_enabled() or own.dtype != h.dtype else own.add_(h)


class Linear(nn.Linear):
    """`nn.Linear`, called `(h, p)`."""

    def forward(self, h: Tensor, p: Pass | None = None) -> Tensor:
        return linear(h, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, called `(h, p)`; h `(b f) c h w`.

    `temporal` is the slot of a convolution along the frames (pseudo-3D networks), called `(h, p)`; empty, it leaves the state dict as the
    image model's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.temporal: nn.Module | None = None

    def forward(self, h: Tensor, p: Pass | None = None) -> Tensor:
        h = self._conv_forward(h, self.weight, self.bias)
        return h if self.temporal is None else self.temporal(h, p)


class TokenConv(Conv2d):
    """A 1x1 convolution in the state dict, a linear layer over tokens `(b f) n c` in effect."""

    def forward(self, h: Tensor, p: Pass | None = None) -> Tensor:
        return linear(h, self.weight.flatten(1), self.bias)


class GroupNorm(nn.GroupNorm):
    """Group normalisation of h `(b f) c h w` with statistics per frame or over the whole clip; checkpoint families differ in it."""

    def __init__(self, groups: int, channels: int, eps: float, scope: Scope = "frame") -> None:
        super().__init__(groups, channels, eps)
        self.scope: Scope = scope

    def forward(self, h: Tensor, p: Pass) -> Tensor:  # type: ignore[override]  # it must know which frames are a clip
        if self.scope == "frame" or p.f == 1:
            return self._normed(h)
        if p.groups is not None:
            return self._by_group(h, p)
        return self._over_clip(h, p.b)

    def _normed(self, h: Tensor) -> Tensor:
        """The plain norm. Behind frozen layers weight and bias come after it: PyTorch's channels-last kernel crashes on the processor in the
        backward pass where they want a gradient and the input does not (seen in 2.13, on small pictures).
        """
        if not (torch.is_grad_enabled() and self.weight.requires_grad and not h.requires_grad):
            return F.group_norm(h, self.num_groups, self.weight, self.bias, self.eps)
        plain = F.group_norm(h, self.num_groups, eps=self.eps)
        return torch.addcmul(self.bias[:, None, None], plain, self.weight[:, None, None]).to(plain.dtype)

    def _over_clip(self, h: Tensor, clips: int) -> Tensor:
        """Frames below each other form one tall picture, a view in channels-last memory."""
        _, c, height, width = h.shape
        tall = h.permute(0, 2, 3, 1).reshape(clips, -1, width, c).permute(0, 3, 1, 2)
        return self._normed(tall).permute(0, 2, 3, 1).reshape(-1, height, width, c).permute(0, 3, 1, 2)

    def _by_group(self, h: Tensor, p: Pass) -> Tensor:
        """Statistics of every group of frames from those of its frames, without a shape that depends on the groups.

        All frames are of one size, so mean and variance of a group are E m and E[v + (m - E m)^2] over its frames' own m and v.
        """
        assert p.groups is not None
        wide = h.float() if h.dtype in (torch.float16, torch.bfloat16) else h
        var, mean = torch.var_mean(wide.unflatten(1, (self.num_groups, -1)), (2, 3, 4), correction=0)
        same = (p.groups[:, :, None] == p.groups[:, None])[..., None]
        members = same.sum(2)

        def over_group(values: Tensor) -> Tensor:
            # Selected, not multiplied: a NaN stays in its group.
            return torch.where(same, values.unflatten(0, (p.b, 1, p.f)), 0).sum(2).div(members).flatten(0, 1)

        shared = over_group(mean)
        rate = (over_group(var + (mean - shared).square()) + self.eps).rsqrt()
        per_channel = self.num_channels // self.num_groups
        scale = rate.repeat_interleave(per_channel, 1) * self.weight
        shift = self.bias - shared.repeat_interleave(per_channel, 1) * scale
        return torch.addcmul(shift[:, :, None, None], wide, scale[:, :, None, None]).to(h.dtype)


class Attention(nn.Module):
    """Projections of one attention layer, with diffusers' names: to_q, to_k, to_v without bias, to_out.0 with one."""

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(context or width, width, bias=False)
        self.to_v = Linear(context or width, width, bias=False)
        self.to_out = nn.ModuleList([Linear(width, width), nn.Identity()])


class Gated(torch.autograd.Function):
    """value * gelu(gate) of `... (value gate)`, keeping its input alone for the backward pass: gelu(gate) is made again, which is cheap, where
    PyTorch would keep it too. Of what a training step holds, feed-forward layers are nearly half.
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor) -> Tensor:
        """`... 2c` -> `... c`."""
        ctx.save_for_backward(projected)
        value, gate = projected.chunk(2, -1)
        return value * F.gelu(gate)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient, `... c` -> `... 2c`."""
        (projected,) = ctx.saved_tensors
        value, gate = projected.chunk(2, -1)
        out = torch.empty_like(projected)
        to_value, to_gate = out.chunk(2, -1)
        torch.mul(grad, F.gelu(gate), out=to_value)
        to_gate.copy_(torch.ops.aten.gelu_backward(grad * value, gate))
        return out


class GatedLinear(nn.Module):
    """The first half of a GEGLU feed-forward: one projection, split into value and gate."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, inner * 2)

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        projected = self.proj(h, p)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            gated: Tensor = Gated.apply(projected)
            return gated
        value, gate = projected.chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU feed-forward with inner width 4c (Shazeer 2020), over tokens `(b f) n c`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GatedLinear(width, width * 4), nn.Identity(), Linear(width * 4, width)])

    def forward(self, h: Tensor, p: Pass) -> Tensor:
        inner: Any = self.net[0].proj
        outer: Any = self.net[2]
        plain = type(inner) is type(outer) is Linear  # wrapped ones are called, with all rows of the pass
        if plain and _pieces(h) > 1 and not torch.is_grad_enabled():
            out: Tensor = _in_pieces(h, inner.weight, inner.bias, outer.weight, outer.bias)
        else:
            out = outer(self.net[0](h, p), p)
        return out


def _pieces(h: Tensor) -> int:
    return math.ceil(h.numel() * 8 / (CACHED_PIECE if h.device.type == "cpu" else FEED_FORWARD_PIECE))


# One operator to the compiler, which would make the inner values of several pieces before it uses the first.
@torch.library.custom_op("videogen::feed_forward_in_pieces", mutates_args=())
def _in_pieces(h: Tensor, inner: Tensor, inner_bias: Tensor, outer: Tensor, outer_bias: Tensor) -> Tensor:
    """The feed-forward of h `... c` with weights `8c c`, `8c`, `c 4c` and `c`, some tokens after the other."""
    tokens, pieces = h.reshape(-1, h.shape[-1]), _pieces(h)
    out = torch.empty_like(tokens)
    for some, into in zip(tokens.tensor_split(pieces), out.tensor_split(pieces), strict=True):
        value, gate = linear(some, inner, inner_bias).chunk(2, -1)
        into.copy_(linear(F.gelu(gate).mul_(value), outer, outer_bias))
    return out.view(h.shape)


@_in_pieces.register_fake
def _like(h: Tensor, *weights: Tensor) -> Tensor:
    return torch.empty_like(h, memory_format=torch.contiguous_format)


def to_tokens(h: Tensor) -> Tensor:
    """`(b f) c h w` -> `(b f) (h w) c`, a view in channels-last memory."""
    return h.permute(0, 2, 3, 1).flatten(1, 2)


def to_picture(h: Tensor, like: Tensor) -> Tensor:
    """`(b f) (h w) c` -> `(b f) c h w`, the inverse of `to_tokens`."""
    return h.unflatten(1, like.shape[-2:]).permute(0, 3, 1, 2)


def sinusoids(values: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of numbers `...` -> `... width`: cosines first, highest frequency first (Ho et al. 2020, as Stable Diffusion has it)."""
    half = width // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=values.device) / half)
    angles = values.float()[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def recompute(on: bool, block: Callable[..., Any], *args: Any) -> Any:
    """Call a block; when gradient checkpointing is on, its activations are recomputed in the backward pass (always non-reentrant)."""
    if on and torch.is_grad_enabled():
        return checkpoint(block, *args, use_reentrant=False)
    return block(*args)
