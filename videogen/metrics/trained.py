"""What trainings brought, measured: ways to make clips, the same prompts and seeds for each, held against one another in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.metrics.long_clips import Row, Rows
from videogen.metrics.paired import Estimate, difference_of_shares, mean
from videogen.metrics.shares import Share
from videogen.metrics.trials import Trial, generated
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


def one_object(number: int, seed: int, key: str, *, plain: bool | None, camera: str = "none") -> Trial:
    """An unseen prompt of one flat object, and a scene it is true of, whose camera, which the prompt does not name, moves as `camera` says.

    A function of its arguments alone. plain: True for plain backgrounds, False for textured ones, None for both.
    """
    digest = blake2b(f"evaluate training/{key}/{seed}/{number}".encode(), digest_size=4).digest()
    drawn = int.from_bytes(digest, "little")
    lot = torch.Generator().manual_seed(drawn)
    scene = sample(1, generator=lot, split="test", objects=1, plain=plain, styles=("flat",), cameras=(camera,))
    told = scene.change(camera=torch.zeros_like(scene.camera))
    return Trial("test", number, in_words(told)[0], drawn, scene)


def run(part: Part, rows: Rows, sampling: Sampling, after: Callable[[Row, Tensor], None]) -> None:
    """Make and judge the clips that `rows` lack; `after(row, clip f 3 H W)` is called for each before it is written down.

    A block of clips is always made whole, so a run that was stopped makes the same clips as one that was not. Raises InputError for clips with
    values that are no numbers.
    """
    for way in part.ways:
        pipe: Pipeline | None = None
        for start in range(0, sampling.count, sampling.batch):
            numbers = range(start, min(start + sampling.batch, sampling.count))
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


@dataclass(frozen=True)
class Figures:
    """A way's shares and means, and their differences to the other way's (None where it has none)."""

    way: Way
    shares: Mapping[str, tuple[Share, Estimate | None]]
    means: Mapping[str, tuple[Estimate, Estimate | None]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        pairs = {**self.shares, **self.means}
        return {
            name: {"is": one.to_dict(), "difference": change and change.to_dict()}
            for name, (one, change) in pairs.items()
        }


def figures(part: Part, rows: Mapping[tuple[str, int], Row], count: int) -> list[Figures]:
    """The figures of every way over the first `count` clips. A number that could not be read on either side is left out of both."""
    found = []
    for way in part.ways:
        own = [rows[way.name, number] for number in range(count)]
        other = [rows[way.against, number] for number in range(count)] if way.against else []
        shares: dict[str, tuple[Share, Estimate | None]] = {}
        means: dict[str, tuple[Estimate, Estimate | None]] = {}
        for name in own[0].shares:
            hits, theirs = [row.shares[name] for row in own], [row.shares[name] for row in other if name in row.shares]
            shares[name] = Share(sum(hits), len(hits)), difference_of_shares(hits, theirs) if theirs else None
        for name in own[0].means:
            read = [row.means[name] for row in own if math.isfinite(row.means[name])]
            change = mean([a - b for a, b in both_read(own, other, name)]) if other else None
            means[name] = mean(read), change
        found.append(Figures(way, shares, means))
    return found


def both_read(first: Sequence[Row], second: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """Pairs of a number in two ways' clips of the same prompts, where both could be read."""
    pairs = [(a.means[name], b.means[name]) for a, b in zip(first, second, strict=True)]
    return [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
