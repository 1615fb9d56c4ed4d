"""A run: every method on its trials, a JSON line for each clip, so that it can be stopped, killed and continued.

run.json     the settings that all lines share
edits.jsonl  the lines; a later one about the same clip counts
sources/     the source clips, H.264
shown/       edits and masks of the first trials, for people
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editors.edited import Edited
from editors.evidence.judging import Verdict, judge, judge_text
from editors.evidence.methods import BOUNDS, METHODS, Method, Workshop
from editors.evidence.trials import EDITS, FROM_TEXT, RECONSTRUCTION, Trial, source_clip, trial
from videogen import video
from videogen.clip import Clip
from videogen.errors import InputError
from videogen.metrics import lines
from videogen.metrics.lines import ALL, Portion

Key = tuple[str, str, int]
"""Method, edit, number."""

SHOWN = 2  # trials of each edit that are kept for people: a plain scene and a hard one


@dataclass(frozen=True)
class Row:
    """One clip of one method.

    done, stayed, values, read   of its `Verdict`; values have `seconds` too, with those of what it shares with others (`Workshop.timed`), and
                                 `psnr` of a reconstruction against the VAE's round trip
    measured                     by the method itself
    code                         `Method.code` of what made it
    """

    method: str
    edit: str
    number: int
    kind: str
    source: str
    target: str
    seed: int
    done: bool | None
    stayed: Mapping[str, bool]
    values: Mapping[str, float]
    read: Mapping[str, Any] | None
    measured: Mapping[str, float] = field(default_factory=dict)
    code: str = ""

    @property
    def key(self) -> Key:
        """What tells it from all others of a run."""
        return self.method, self.edit, self.number

    @property
    def kept(self) -> bool:
        """Whether all that was not asked for stayed."""
        return all(self.stayed.values())


@dataclass(frozen=True)
class Plan:
    """Which clips a run has.

    methods, edits   by name; what they are held against comes by itself
    colour, others   clips of the colour edit (and of what is made from text alone) and of every other edit of a zero-shot method
    tuned            of every edit of a method that finds something for each clip
    """

    methods: tuple[str, ...]
    edits: tuple[str, ...] = (*EDITS, RECONSTRUCTION, FROM_TEXT)
    colour: int = 64
    others: int = 24
    tuned: int = 12
    seed: int = 0
    table: Mapping[str, Method] = field(default_factory=lambda: METHODS)

    def count(self, method: Method, edit: str) -> int:
        """How many clips a method has of an edit."""
        if edit not in method.edits or edit not in self.edits:
            return 0
        return self.tuned if method.tuned else self.colour if edit in ("colour", FROM_TEXT) else self.others

    def clips(self) -> list[Key]:
        """All clips, number by number, so that a run that is cut short has about as many of everything.

        Of a trial the bounds come first, then what methods are held against; edits that share what is found for a clip follow each other.
        """
        sizes: dict[tuple[str, str], int] = {}
        for name in self.methods:
            method = self.table[name]
            for edit in method.edits:
                count = self.count(method, edit)
                for other in (name, method.against, *BOUNDS):
                    if other is not None and other in self.table and edit in self.table[other].edits:
                        sizes[other, edit] = max(sizes.get((other, edit), 0), count)
        edits, names = (*EDITS, RECONSTRUCTION, FROM_TEXT), list(self.table)
        wanted = [(name, edit, n) for (name, edit), size in sizes.items() for n in range(size)]
        return sorted(wanted, key=lambda key: (key[2], edits.index(key[1]), names.index(key[0])))


class Rows:
    """The rows of a run in `folder`, which is made if need be. `settings` are plain JSON values that all rows share.

    Raises InputError where the folder holds a run with other settings. Rows that other code made or judged are left out, and so made again:
    `outdated` counts them.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], table: Mapping[str, Method] = METHODS) -> None:
        self.folder, self.table = folder, table
        self.path = folder / "edits.jsonl"
        lines.claim(folder, settings, self.path)
        (folder / "sources").mkdir(exist_ok=True)
        self.codes = {name: method.code for name, method in table.items()}
        found = {row.key: row for row in lines.read(self.path, Row)}
        self.rows = {key: row for key, row in found.items() if row.code == self.codes.get(row.method)}
        self.outdated = len(found) - len(self.rows)

    def append(self, row: Row) -> None:
        """Add a row, or put it in the place of the one about the same clip."""
        lines.append(self.path, [dataclasses.asdict(row)])
        self.rows[row.key] = row

    def shown(self, key: Key, mask: bool = False) -> Path:
        """Where a clip, or the mask that was used for it, lies for people."""
        method, edit, number = key
        return self.folder / "shown" / f"{method}-{edit}-{number:04d}{'-mask' if mask else ''}.webp"


def run(
    shop: Workshop,
    plan: Plan,
    rows: Rows,
    *,
    portion: Portion = ALL,
    seconds: float | None = None,
    tick: Callable[[Row], None] = lambda row: None,
) -> bool:
    """Make, measure and record the clips of `plan` that `rows` lacks. Returns whether it came to the end within `seconds`.

    portion  of the trials, by their numbers: all clips of a trial are made by one process, which finds once what they share

    A clip that is begun is finished. Ctrl-C loses the clip at hand and nothing else. Raises InputError, with the clip's name, where a method
    refuses it.
    """
    start = time.monotonic()
    for key in plan.clips():
        if key in rows.rows or key[2] not in portion:
            continue
        if seconds is not None and time.monotonic() - start >= seconds:
            return False
        row, made = measured(shop, plan.table[key[0]], trial(key[1], key[2], plan.seed), rows)
        if key[2] < SHOWN:
            _show(rows, key, made)
        rows.append(row)
        tick(row)
    return True


def measured(shop: Workshop, method: Method, asked: Trial, rows: Rows) -> tuple[Row, Edited]:
    """One clip made and judged. Random numbers drawn outside of seeds do not depend on what was made before."""
    whole = source_clip(asked, rows.folder / "sources", shop.frames, shop.moving.default_size[0])
    clip = whole[:: method.every]
    torch.manual_seed(asked.seed)
    try:
        made, seconds = shop.timed(lambda: method.run(shop, asked, clip))
    except InputError as problem:
        raise InputError(f"{method.name}, {asked.edit} {asked.number} ({asked.target!r}): {problem}") from problem
    frames = made.frames.float().cpu()
    verdict = _judged(asked, frames, clip, shop, method)
    values = {**verdict.values, "seconds": round(seconds, 1)}
    if asked.edit == RECONSTRUCTION and verdict.read is not None:
        values["psnr"] = psnr(frames, shop.round_trip(clip))
    row = Row(
        method.name, asked.edit, asked.number, asked.kind, asked.source, asked.target, asked.seed, verdict.done, verdict.stayed,
        values, verdict.read, dict(made.measured), rows.codes[method.name],
    )  # fmt: skip
    return row, made


def _judged(asked: Trial, frames: Tensor, clip: Tensor, shop: Workshop, method: Method) -> Verdict:
    if asked.edit == FROM_TEXT:
        return judge_text(asked, frames)
    return judge(asked, frames, clip, shop.frames, method.every)


def psnr(frames: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of frames in [0, 1]; 120 for equal ones."""
    error = float((frames.double() - reference.double()).square().mean())
    return -10 * torch.tensor(max(error, 1e-12), dtype=torch.float64).log10().item()


def _show(rows: Rows, key: Key, made: Edited) -> None:
    video.write(rows.shown(key), Clip(made.frames.nan_to_num(0).clamp(0, 1).cpu()), overwrite=True)
    if made.mask is not None:
        video.write(rows.shown(key, mask=True), Clip(made.mask.float().clamp(0, 1).cpu()), overwrite=True)


def of(rows: Mapping[Key, Row], plan: Plan, method: str, edit: str) -> list[Row]:
    """A method's rows of an edit that the plan asks for and that are there, by number."""
    count = plan.count(plan.table[method], edit)
    return [rows[method, edit, number] for number in range(count) if (method, edit, number) in rows]


def beside(rows: Mapping[Key, Row], some: Sequence[Row], other: str) -> Iterator[tuple[Row, Row]]:
    """Rows with those of another method about the same clips, where there are both."""
    for row in some:
        found = rows.get((other, row.edit, row.number))
        if found is not None:
            yield row, found
