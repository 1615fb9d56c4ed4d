"""Attention in bfloat16 on the processor: PyTorch's fused kernel and plain products in pieces, in turn, without gradients.

    python benchmarks/attention.py

The shapes are those of Stable Diffusion 1.5 at 256 x 256 with 16 frames (8 with guidance): inside the picture, to the text, along the frames.
`videogen/attention.py` takes the pieces, but for the smallest pictures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measuring import header, made_by, processor_options, published, turn

from videogen import attention

# Clips or frames, heads (of all places, along the frames), queries, keys, width of a head.
SHAPES = {
    "inside the picture": [(16, 8, 1024, 1024, 40), (16, 8, 256, 256, 80), (16, 8, 64, 64, 160), (16, 8, 16, 16, 160)],
    "to the text": [(2, 8, 8192, 77, 40), (2, 8, 2048, 77, 80)],
    "along the frames": [(2, 8192, frames, frames, 40) for frames in (2, 4, 8, 12, 16, 24, 32)],
}


def main() -> None:
    """Run the pairs and print the table; `--report` writes it too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    processor_options(parser, "a Markdown file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = header(["attention", "shape", "fused ms", "pieces ms", "ratio"])
    for name, shapes in SHAPES.items():
        lines += [_row(name, shape, args) for shape in shapes]
    about = f"bfloat16, {args.threads} threads, PyTorch {torch.__version__}, median of {args.pairs} pairs"
    published("\n".join([*lines, *made_by(about)]), args.report)


@torch.no_grad()
def _row(name: str, shape: tuple[int, int, int, int, int], args: argparse.Namespace) -> str:
    batch, heads, n, keys, width = shape
    q, k, v = (_drawn(batch, heads, length, width) for length in (n, keys, keys))
    sides = {"fused": _timed(F.scaled_dot_product_attention, q, k, v), "pieces": _timed(attention._in_pieces, q, k, v)}
    runs = [turn(sides, number) for number in range(-1, args.pairs)][1:]
    fused, pieces = (statistics.median(run[side] for run in runs) for side in sides)
    ratio = statistics.median(run["pieces"] / run["fused"] for run in runs)
    return f"| {name} | {' x '.join(map(str, shape))} | {fused:.1f} | {pieces:.1f} | {ratio:.2f} |"


def _drawn(batch: int, heads: int, length: int, width: int) -> torch.Tensor:
    """Heads of one token lie beside each other, as projections leave them."""
    return torch.randn(batch, length, heads, width, dtype=torch.bfloat16).transpose(1, 2)


def _timed(call: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Callable[[], float]:
    def milliseconds() -> float:
        start = time.perf_counter()
        call(*inputs)
        return 1e3 * (time.perf_counter() - start)

    return milliseconds


if __name__ == "__main__":
    main()
