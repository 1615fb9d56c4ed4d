"""How often measuring is right, on pictures whose truth is known.

    python -m videogen.metrics.shapes_accuracy --count 1000 --report docs/results.md

makes a table: of each attribute, in how many clips it could be asked, and the share that is right with its 95 % interval (Wilson) in clips as they
are drawn, blurred, and after the miniature's VAE (`--vae FOLDER` takes another).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from videogen.metrics import document
from videogen.metrics import text_to_video as measuring
from videogen.metrics.shares import Share
from videogen.models.folder import miniature
from videogen.shapes.agreement import agrees
from videogen.shapes.measure import BATCH, measure
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


PROGRAM = "python -m videogen.metrics.shapes_accuracy"
BEGIN, END = f"<!-- measuring: made by `{PROGRAM}` -->", "<!-- measuring: end -->"


@dataclass(frozen=True)
class Row:
    """One attribute's counts."""

    attribute: str
    asked: int
    right: int
    unknown: int

    @property
    def share(self) -> Share:
        """The share that is right."""
        return Share(self.right, self.asked, self.unknown)


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
            wrong, seen = [name for name in measuring.READ if not verdict[name]], measuring.read(measurement)
            unknown.update(name for name in wrong if measuring.unknown(seen, truth, name))
    return [Row(name, asked[name], right[name], unknown[name]) for name in ATTRIBUTES]


def section(found: Mapping[str, Sequence[Row]], count: int, seed: int, command: str) -> str:
    """The section of a report: a line for each attribute, a column for each way in which the clips were shown."""
    lines = []
    for rows in zip(*found.values(), strict=True):
        lines.append([rows[0].attribute, str(rows[0].asked), *(str(row.share) for row in rows)])
    return "\n\n".join([
        BEGIN,
        "## How often measuring is right",
        f"{count} clips of every kind (one and two objects, all backgrounds, styles and motions; seed {seed}), measured from their pixels and"
        " compared with the truth: as they are drawn, blurred by a pixel with noise and shifted colours, and after the VAE's round trip. What is"
        " unknown is wrong. Brackets hold Wilson's 95 % interval. Wanted: 0.995 as drawn, 0.99 after the VAE.",
        document.table(["attribute", "clips", *found], lines),
        f"Made by `{command}`.",
        END,
    ])  # fmt: skip


def main() -> None:
    """Print the table; `--report` writes it too."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="how often measuring is right")
    parser.add_argument("--count", type=int, default=1000, help="clips to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae", help="the folder of another VAE than the miniature's")
    parser.add_argument("--report", type=Path, help="FILE.md whose section is written, with FILE.json beside it")
    options = parser.parse_args()
    if options.report is not None:
        document.check(options.report)
    ways = {"as drawn": None, "blurred": blurred, "after the VAE": round_trip(options.vae or str(miniature() / "vae"))}
    found = {
        way: table(options.count, torch.Generator().manual_seed(options.seed), after) for way, after in ways.items()
    }
    text = section(found, options.count, options.seed, shlex.join([*PROGRAM.split(), *sys.argv[1:]]))
    print(text)
    if options.report is not None:
        values = {way: {row.attribute: row.share.to_dict() for row in rows} for way, rows in found.items()}
        document.put(options.report, "measuring", text, {"count": options.count, "seed": options.seed, "ways": values})


if __name__ == "__main__":
    main()
