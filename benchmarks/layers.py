"""Layers on the processor as a whole and in pieces, in turn, without gradients: attention in bfloat16 and feed-forward layers in both dtypes.

    python benchmarks/layers.py

The shapes are those of Stable Diffusion 1.5 at 256 x 256 with 16 frames (8 with guidance): inside the picture, to the text, along the frames; the
tokens of all frames. `videogen/attention.py` takes the pieces, but for the smallest pictures, where the whole is PyTorch's fused kernel;
`videogen/models/layers.py` takes them where a layer's inner values would leave the caches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from measuring import header, made_by, processor_options, published, turn

from videogen import attention
from videogen.models import layers

# Clips or frames, heads (of all places, along the frames), queries, keys, width of a head.
ATTENTION = {
    "inside the picture": [(16, 8, 1024, 1024, 40), (16, 8, 256, 256, 80), (16, 8, 64, 64, 160), (16, 8, 16, 16, 160)],
    "to the text": [(2, 8, 8192, 77, 40), (2, 8, 2048, 77, 80)],
    "along the frames": [(2, 8192, frames, frames, 40) for frames in (2, 4, 8, 12, 16, 24, 32)],
}
# Frames, tokens of a frame, width.
FEED_FORWARD = [(16, 1024, 320), (16, 256, 640), (16, 64, 1280)]

Sides = Mapping[str, Callable[[], float]]


def main() -> None:
    """Run the pairs and print the table; `--report` writes it too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    processor_options(parser, "a Markdown file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = header(["layer", "shape", "dtype", "whole ms", "pieces ms", "ratio"])
    with torch.no_grad():
        for name, shapes in ATTENTION.items():
            lines += [
                _row(f"attention {name}", shape, torch.bfloat16, _attention(*shape), args.pairs) for shape in shapes
            ]
        for dtype in (torch.bfloat16, torch.float32):
            lines += [_row("feed-forward", s, dtype, _feed_forward(*s, dtype), args.pairs) for s in FEED_FORWARD]
    about = f"{args.threads} threads, PyTorch {torch.__version__}, median of {args.pairs} pairs"
    published("\n".join([*lines, *made_by(about)]), args.report)


def _row(name: str, shape: tuple[int, ...], dtype: torch.dtype, sides: Sides, pairs: int) -> str:
    runs = [turn(sides, number) for number in range(-1, pairs)][1:]
    whole, pieces = (statistics.median(run[side] for run in runs) for side in sides)
    ratio = statistics.median(run["pieces"] / run["whole"] for run in runs)
    told = f"{' x '.join(map(str, shape))} | {str(dtype).removeprefix('torch.')}"
    return f"| {name} | {told} | {whole:.1f} | {pieces:.1f} | {ratio:.2f} |"


def _attention(batch: int, heads: int, n: int, keys: int, width: int) -> Sides:
    q, k, v = (_drawn(batch, heads, length, width) for length in (n, keys, keys))
    return {
        "whole": _timed(lambda: F.scaled_dot_product_attention(q, k, v)),
        "pieces": _timed(lambda: attention._in_pieces(q, k, v)),
    }


def _drawn(batch: int, heads: int, length: int, width: int) -> torch.Tensor:
    """Heads of one token lie beside each other, as projections leave them."""
    return torch.randn(batch, length, heads, width, dtype=torch.bfloat16).transpose(1, 2)


def _feed_forward(frames: int, tokens: int, width: int, dtype: torch.dtype) -> Sides:
    layer = layers.FeedForward(width).to(dtype)
    inner: Any = layer.net[0].proj
    outer: Any = layer.net[2]
    h = torch.randn(frames, tokens, width, dtype=dtype)

    def whole() -> torch.Tensor:
        value, gate = layers.linear(h, inner.weight, inner.bias).chunk(2, -1)
        return layers.linear(value * F.gelu(gate), outer.weight, outer.bias)

    pieces = (h, inner.weight, inner.bias, outer.weight, outer.bias)
    return {"whole": _timed(whole), "pieces": _timed(lambda: layers._in_pieces(*pieces))}


def _timed(call: Callable[[], torch.Tensor]) -> Callable[[], float]:
    def milliseconds() -> float:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    return milliseconds


if __name__ == "__main__":
    main()
