"""Attention over one layout of views, with a control between the projections and the product.

Frames are folded: self-attention of every frame, text attention of the whole clip with keys and values made once, and temporal attention are the
same function over differently folded views, none of which copies.
"""

from __future__ import annotations

from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor

from videogen.control import Pass, Site
from videogen.errors import InputError

# CUDA's fused kernels put batch and heads on grid axes of 65,535 blocks.
MOST_HEADS = 32768

# Maps up to this size are held for the backward pass on processors, see `_written_out`.
SMALL_MAP = 512 * 512

# So many inputs and scores `_in_pieces` works on at a time: 5 MiB, which a processor's caches keep.
PIECE = 5 * 2**19


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for q `b f heads n d` and k, v `b g heads m d`, g = f or 1 -> `b f n heads d`.

    With g = 1 the queries of all frames form one sequence over the shared keys.
    mask `b f|1 1 n|1 m`: True may be attended; or numbers that are added to the scores.
    """
    b, f, heads, n, d = q.shape
    if mask is not None:
        # Each frame has a mask of its own. Keys that the clip shares are repeated, being far smaller than a mask for one long sequence.
        k, v, mask = (x.expand(-1, f, -1, -1, -1) for x in (k, v, mask))
        mask = mask.flatten(0, 1)
    if k.shape[1] == f:
        out = _product(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), mask)
        return out.transpose(1, 2).unflatten(0, (b, f))
    sequence = q.transpose(2, 3).reshape(b, f * n, heads, d).transpose(1, 2)
    out = _product(sequence, k[:, 0], v[:, 0])
    return out.transpose(1, 2).unflatten(1, (f, n))


def _product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over the last two of four axes, by the fused kernel or written out; in pieces along an axis that is too long."""
    for axis in (0, 1):
        if q.shape[axis] > MOST_HEADS:
            masks = repeat(mask) if mask is None or mask.shape[axis] == 1 else mask.split(MOST_HEADS, axis)
            pieces = zip(*(x.split(MOST_HEADS, axis) for x in (q, k, v)), masks, strict=False)
            return torch.cat([_product(*piece) for piece in pieces], axis)
    if _written_out(q, k):
        return torch.matmul(_maps(q, k, mask).to(v.dtype), v)
    if mask is None and _slow_when_fused(q, k, v):
        return _in_pieces(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, mask)


def _maps(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d)) over the last two axes, where the mask allows it or with its numbers added to the scores."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


def _trains(*inputs: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def _bfloat16_on_processor(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.bfloat16


def _written_out(q: Tensor, k: Tensor) -> bool:
    """Training in bfloat16 on a processor: the fused kernel's backward pass takes three to eight times the time of the plain product."""
    return _trains(q, k) and _bfloat16_on_processor(q) and q.shape[-2] * k.shape[-2] <= SMALL_MAP


def _slow_when_fused(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Inference in bfloat16 on a processor: the fused kernel takes up to four times the time of plain products (`python benchmarks/layers.py`),
    but for the smallest pictures.
    """
    large = q.shape[1] * q.shape[2] * k.shape[2] >= 2**15
    return large and _bfloat16_on_processor(q) and not _trains(q, k, v)


@torch.library.custom_op(
    "videogen::attention_in_pieces", mutates_args=(), schema="(Tensor q, Tensor k, Tensor v) -> Tensor"
)
def _in_pieces(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over the last two of four axes, by plain products of so many heads, or queries of one, as `PIECE` allows; without
    gradients. Scores are rounded to the inputs' dtype, as where attention is written out. One operator, whose loops no compiled graph spells out.
    """
    n, keys, d = q.shape[-2], k.shape[-2], q.shape[-1]
    heads, queries = max(1, PIECE // (n * keys + (n + 2 * keys) * d)), max(1, PIECE // keys)
    # The softmax of bfloat16 goes number by number where a row is shorter than its 32 lanes; float32 has 16.
    wide = torch.float32 if 16 <= keys < 32 else q.dtype
    out = _beside_each_other(q)
    unused = q.new_empty(1)
    for whole in zip(q, k, v, out, strict=True):
        for some_q, some_k, some_v, some_out in zip(*(x.split(heads) for x in whole), strict=True):
            for rows, into in zip(some_q.split(queries, 1), some_out.split(queries, 1), strict=True):
                scores = torch.baddbmm(unused, rows, some_k.transpose(1, 2), beta=0, alpha=d**-0.5)
                into.copy_(torch.bmm(scores.to(wide).softmax(-1).to(v.dtype), some_v))
    return out


@_in_pieces.register_fake
def _beside_each_other(q: Tensor, *others: Tensor) -> Tensor:
    """Room for the result: heads of a token lie beside each other, so that joining them copies nothing."""
    return torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


def attend_controlled(q: Tensor, k: Tensor, v: Tensor, site: Site, p: Pass, mask: Tensor | None = None) -> Tensor:
    """`attend`, with p's control asked first what is attended and then, where it wants maps, how much.

    mask `b f|1 1 n|1 m` keeps groups of frames apart at temporal sites (True may be attended), or weighs the entries of a source.
    """
    control = p.control
    assert control is not None
    q, k, v = control.qkv(site, q, k, v, p)
    if not control.wants_maps(site, p):
        return attend(q, k, v, mask)
    probs = control.maps(site, _maps(q, k, mask), p)
    return torch.matmul(probs.to(v.dtype), v).transpose(2, 3)


def spatial(q: Tensor, k: Tensor, v: Tensor, heads: int, site: Site, p: Pass, bias: Tensor | None = None) -> Tensor:
    """Attention inside the picture. q `(b f) n c`; k, v `(b g) m c` with g = f or 1 -> `(b f) n c`.

    bias `b f 1 n|1 m` is added to the scores.
    """
    q, k, v = (x.unflatten(0, (p.b, -1)).unflatten(-1, (heads, -1)).transpose(2, 3) for x in (q, k, v))
    bias = None if bias is None else bias.to(q.dtype)  # autocast makes queries of another dtype than the activations
    out = attend(q, k, v, bias) if p.control is None else attend_controlled(q, k, v, site, p, bias)
    return out.flatten(3).flatten(0, 1)


def weighed(source: str, site: Site, h: Tensor, p: Pass) -> tuple[Tensor, Tensor] | None:
    """What the dials of a source's entries make of its attention, for queries h `(b f) n c`; None where all are plain.

    With w_e the weights and W the strongest of them, the keys of entry e get log(w_e / W) on their scores, `b f 1 n|1 m`, and min(W, 1) of the
    output is added, `(b f) n|1 1`. So 0 is an entry that is not there, 2 one that is there twice, and where there is one entry alone
    its attention fades with its weight. Raises InputError for a weight below 0.
    """
    entries = p.entries.get(source, ())
    if all(p.plain(name) for name, _ in entries):
        return None
    for name, _ in entries:
        if not p.plain(name) and p.strengths[name].negative:
            raise InputError(
                f"the dial of {name!r} is below 0, and tokens cannot be attended to less than not at all; give 0 or more"
            )
    weights = torch.broadcast_tensors(*(p.weight(name, site, h) for name, _ in entries))
    strongest = torch.stack(weights).amax(0)
    # Where all are 0 nothing is added; scores stay finite there, and so do gradients.
    shares = [torch.where(strongest == 0, 1, weight / strongest).log() for weight in weights]
    keys = [share.expand(-1, -1, length) for share, (_, length) in zip(shares, entries, strict=True)]
    return torch.cat(keys, -1).unflatten(0, (p.b, p.f))[:, :, None], strongest.clamp(max=1)


def temporal(q: Tensor, k: Tensor, v: Tensor, heads: int, site: Site, p: Pass) -> Tensor:
    """Attention along the frames, each place of the picture for itself. q, k, v and the result `(b f) n c`.

    Places and heads lie next to each other in memory, so `n heads` is one axis of a view and nothing is copied.
    """
    allowed = None
    if p.groups is not None:
        allowed = (p.groups[:, :, None] == p.groups[:, None, :])[:, None]
    if p.control is None:
        q, k, v = (
            x.unflatten(0, (p.b, p.f)).reshape(p.b, p.f, -1, x.shape[-1] // heads).transpose(1, 2) for x in (q, k, v)
        )
        out = _product(q, k, v, allowed)
        return out.transpose(1, 2).reshape(p.b * p.f, -1, heads * q.shape[-1])
    q, k, v = (x.unflatten(0, (p.b, p.f)).unflatten(-1, (heads, -1)).permute(0, 2, 3, 1, 4) for x in (q, k, v))
    mask = None if allowed is None else allowed[:, None]
    out = attend_controlled(q, k, v, site, p, mask)
    return out.permute(0, 2, 1, 3, 4).flatten(3).flatten(0, 1)
