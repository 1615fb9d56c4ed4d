"""What trainings brought, measured: ways to make clips, the same prompts and seeds for each, held against one another in pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.metrics.paired import Estimate
from videogen.metrics.trials import Trial, generated
from videogen.metrics.ways import Row, Rows
from videogen.shapes import sample
from videogen.shapes.captions import plain as in_words

if TYPE_CHECKING:
    from videogen.pipeline import Pipeline

Judged = tuple[dict[str, bool], dict[str, float]]
"""What one clip shows: what is right, and numbers (nan: not to be read)."""


@dataclass(frozen=True)
class Way:
    """One way to make clips.

    against  the way it is held against, on the same prompts and seeds; None for none
    load     the pipeline, loaded when it is needed
    frames   of its clips; 1 makes pictures, without motion modules
    judge    `(trials, clips b f 3 H W) -> one answer a clip`
    """

    name: str
    title: str
    against: str | None
    load: Callable[[], Pipeline]
    frames: int
    judge: Callable[[Sequence[Trial], Tensor], list[Judged]]


@dataclass(frozen=True)
class Part:
    """One kind of evidence.

    key      names it on the command line and in files
    trial    number -> prompt and seed
    targets  (way, share) -> the least, or with a minus sign the greatest share that is aimed at
    lines    what stands below the table, from the figures
    """

    key: str
    title: str
    explained: str
    ways: tuple[Way, ...]
    trial: Callable[[int], Trial]
    targets: Mapping[tuple[str, str], float]
    lines: Callable[[Mapping[tuple[str, int], Row], int], dict[str, Estimate]]


@dataclass(frozen=True)
class Sampling:
    """How many clips of each way, how many of them together, and what the sampler is told."""

    count: int
    batch: int
    steps: int
    guidance: float

    def blocks(self) -> list[range]:
        """The numbers of clips that are made together."""
        return [range(start, min(start + self.batch, self.count)) for start in range(0, self.count, self.batch)]


def one_object(number: int, seed: int, key: str, *, plain: bool | None, camera: str = "none") -> Trial:
    """The prompt of an unseen scene of one flat object, and that scene, whose camera, which the prompt does not name, moves as `camera` says.

    A function of its arguments alone. plain: True for plain backgrounds, False for textured ones, None for both.
    """
    digest = blake2b(f"evaluate training/{key}/{seed}/{number}".encode(), digest_size=4).digest()
    drawn = int.from_bytes(digest, "little")
    lot = torch.Generator().manual_seed(drawn)
    scene = sample(1, generator=lot, split="test", objects=1, plain=plain, styles=("flat",), cameras=(camera,))
    told = scene.change(camera=torch.zeros_like(scene.camera))
    return Trial("test", number, in_words(told)[0], drawn, scene)


def run(
    part: Part, rows: Rows, sampling: Sampling, blocks: Sequence[range], after: Callable[[Row, Tensor], None]
) -> None:
    """Make and judge the clips that `rows` lack; `after(row, clip f 3 H W)` is called for each before it is written down.

    blocks   of `sampling.blocks()`, those that are to be made

    A block is always made whole, so a run that was stopped makes the same clips as one that was not. Raises InputError for clips with
    values that are no numbers.
    """
    for way in part.ways:
        pipe: Pipeline | None = None
        for numbers in blocks:
            if all((way.name, number) in rows.rows for number in numbers):
                continue
            pipe = pipe or way.load()
            trials = [part.trial(number) for number in numbers]
            clips = generated(pipe, way.frames, sampling.steps, sampling.guidance, "ddim")(trials).float().cpu()
            if not bool(torch.isfinite(clips).all()):
                raise InputError(f"{way.title}: the clips have values that are no numbers; the weights are damaged")
            for trial, clip, (shares, means) in zip(trials, clips, way.judge(trials, clips), strict=True):
                if (way.name, trial.number) not in rows.rows:
                    row = Row(way.name, trial.number, trial.prompt, trial.seed, shares, means)
                    after(row, clip)
                    rows.append(row)
