"""How often measuring is right, on pictures whose truth is known.

    python -m videogen.metrics.shapes_accuracy --count 2000
    python -m videogen.metrics.shapes_accuracy --count 2000 --after blur
    python -m videogen.metrics.shapes_accuracy --count 500 --after FOLDER_OF_A_VAE

prints a table: each attribute, in how many clips it could be asked, the share that is right with its 95 % interval (Wilson), and the
share that is unknown, which counts as wrong.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from videogen.metrics.shares import wilson
from videogen.shapes.agreement import agrees
from videogen.shapes.measure import BATCH, Measurement, measure
from videogen.shapes.render import render
from videogen.shapes.sampling import sample
from videogen.shapes.wanted import truths

ATTRIBUTES = (
    "background",
    "count",
    "style",
    "colour",
    "shape",
    "size",
    "motion",
    "relation",
    "camera",
    "unchanged",
)


@dataclass(frozen=True)
class Row:
    """One attribute's counts."""

    attribute: str
    asked: int
    right: int
    unknown: int

    def __str__(self) -> str:
        low, high = wilson(self.right, self.asked)
        share, unknown = self.right / max(self.asked, 1), self.unknown / max(self.asked, 1)
        return f"{self.attribute:<11} {self.asked:>6} {share:>8.4f}  [{low:.4f}, {high:.4f}] {unknown:>8.4f}"


def blurred(frames: Tensor, generator: Generator) -> Tensor:
    """Stands in for a VAE: blur of 1 pixel, noise of 0.02, a shift of each clip's colours by up to 0.02; `b f 3 H W`."""
    line = (-(torch.arange(-3, 4) ** 2) / 2).exp()
    kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 7, 7)
    soft = F.conv2d(F.pad(frames.flatten(0, 1), (3, 3, 3, 3), mode="replicate"), kernel, groups=3).view(frames.shape)
    shift = (torch.rand(len(frames), 1, 3, 1, 1, generator=generator) - 0.5) * 0.04
    return (soft + shift + 0.02 * torch.randn(frames.shape, generator=generator)).clamp(0, 1)


def round_trip(folder: str) -> Callable[[Tensor, Generator], Tensor]:
    """Encoding and decoding by the AutoencoderKL in a folder of diffusers' layout, at the mode of the latents."""
    from videogen.models.autoencoder import decode, encode
    from videogen.models.folder import load_vae

    vae = load_vae(Path(folder), torch.float32)

    @torch.no_grad()
    def apply(frames: Tensor, generator: Generator) -> Tensor:
        return ((decode(vae, encode(vae, frames * 2 - 1)) + 1) / 2).clamp(0, 1)

    return apply


def table(count: int, generator: Generator, after: Callable[[Tensor, Generator], Tensor] | None = None) -> list[Row]:
    """Measure `count` clips of every kind (one and two objects, all backgrounds, styles, motions) and compare with the truth.

    Args:
        after: what to do to the frames `b f 3 H W` first.
    """
    asked, right, unknown = Counter[str](), Counter[str](), Counter[str]()
    scenes = sample(count, generator=generator, split="all")
    for start in range(0, count, BATCH):
        part = scenes[start : start + BATCH]
        frames = render(part).frames
        found = measure(after(frames, generator) if after else frames)
        for measurement, truth in zip(found, truths(part), strict=True):
            verdict = agrees(measurement, truth)
            asked.update(verdict.keys())
            right.update(name for name, agreed in verdict.items() if agreed)
            unknown.update(_unknown(measurement))
    return [Row(name, asked[name], right[name], unknown[name]) for name in ATTRIBUTES]


def _unknown(measurement: Measurement) -> list[str]:
    """Attributes that the measuring gave up on."""
    names = [name for name in ("background", "style") if getattr(measurement, name) is None]
    return names + [name for name in ("colour", "shape") if any(getattr(o, name) is None for o in measurement.objects)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m videogen.metrics.shapes_accuracy", description="how often measuring is right"
    )
    parser.add_argument("--count", type=int, default=2000, help="clips to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--after", default="", help="'blur', or the folder of a VAE whose round trip comes first")
    options = parser.parse_args()
    after = None if not options.after else blurred if options.after == "blur" else round_trip(options.after)
    print(f"{'attribute':<11} {'clips':>6} {'right':>8}  {'95 % interval':<16} {'unknown':>8}")
    for row in table(options.count, torch.Generator().manual_seed(options.seed), after):
        print(row)


if __name__ == "__main__":
    main()
