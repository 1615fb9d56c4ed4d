"""Text to video on the shapes world: clips are made, read back from their pixels, and held against their prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.metrics.journal import Journal, Record
from videogen.metrics.shares import Share
from videogen.metrics.trials import Address, Plan, Source, Trial
from videogen.shapes import Measurement, Wanted, agrees, measure, parse, world

EVERYTHING = "everything"  # all that the caption says, and nothing more
FIRST_TARGET = {"background": 0.9, "colour": 0.8, "direction": 0.7}
TARGET = {"background": 0.97, "colour": 0.95, "shape": 0.90, "motion": 0.90, "unchanged": 0.95}
TARGET_TWO = {"both colours": 0.80}
MOVING = frozenset(world.DIRECTIONS)
OTHER = frozenset(world.MOTIONS) - MOVING


@dataclass(frozen=True)
class Figure:
    """A share that is reported.

    attribute  what must be right: a key of `agrees`, or EVERYTHING
    motions    only clips whose first object is asked to move so; None for all
    """

    name: str
    attribute: str
    motions: frozenset[str] | None = None

    def share(self, records: Iterable[Record]) -> Share:
        """The share of right clips among those that count."""
        counted = [r for r in records if self.motions is None or r.wanted.objects[0].motion in self.motions]
        wrong = [record for record in counted if not right(record, self.attribute)]
        unread = None
        if self.attribute in READ:
            unread = sum(unknown(record.measured, record.wanted, self.attribute) for record in wrong)
        return Share(len(counted) - len(wrong), len(counted), unread)


@dataclass(frozen=True)
class Table:
    """Figures over some of the clips. `key` names it in files; `targets` are by figure."""

    key: str
    title: str
    split: str
    keep: Callable[[Record], bool]
    figures: tuple[Figure, ...]
    targets: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """A line of a table: a figure by source, and (in a breakdown) what wrong clips of the model were read as."""

    name: str
    shares: Mapping[str, Share]
    target: float | None = None
    mistakes: tuple[tuple[str, int], ...] = ()


READ = ("background", "style", "colour", "shape", "size", "motion")  # None or a missing object is "unknown"
_ONE = (
    *(Figure(name, name) for name in ("background", "colour", "shape", "motion")),
    Figure("direction", "motion", MOVING),
    Figure("other motions", "motion", OTHER),
    *(Figure(name, name) for name in ("unchanged", "count", "style", EVERYTHING)),
)
_TWO = (
    Figure("both colours", "colour"),
    Figure("both shapes", "shape"),
    Figure("both motions", "motion"),
    *(Figure(name, name) for name in ("background", "relation", "unchanged", "count", "style", EVERYTHING)),
)


def _objects(number: int) -> Callable[[Record], bool]:
    return lambda record: len(record.wanted.objects) == number


def _simple(record: Record) -> bool:
    wanted = record.wanted
    return len(wanted.objects) == 1 and wanted.style == "flat" and wanted.background in world.PLAIN_BACKGROUNDS


TABLES = (
    Table("one_object", "One object", "test", _objects(1), _ONE, TARGET),
    Table("simple", "One flat object on a plain background (the first target)", "test", _simple, _ONE, FIRST_TARGET),
    Table("two_objects", "Two objects", "test", _objects(2), _TWO, TARGET_TWO),
    Table("held_out_one", "Combinations that training never sees, one object", "held_out", _objects(1), _ONE, {}),
    Table("held_out_two", "Combinations that training never sees, two objects", "held_out", _objects(2), _TWO, {}),
)
BROKEN_DOWN: Mapping[str, Sequence[str]] = {
    "colour": tuple(world.COLOURS),
    "shape": world.SHAPES,
    "motion": world.MOTIONS,
    "background": tuple(world.BACKGROUNDS),
}


def right(record: Record, attribute: str) -> bool:
    """Whether a clip is right in an attribute, or in all of them."""
    return all(record.agrees.values()) if attribute == EVERYTHING else record.agrees[attribute]


def unknown(measured: Mapping[str, Any], wanted: Wanted, attribute: str) -> bool:
    """Whether an attribute of READ could not be read: no answer, or an object missing; `measured` as `read` gives it."""
    if attribute in ("background", "style"):
        return measured[attribute] is None
    objects = measured["objects"]
    return len(objects) < len(wanted.objects) or any(item[attribute] is None for item in objects)


def run(
    source: Source,
    name: str,
    plan: Plan,
    journal: Journal,
    *,
    blocks: Iterable[Sequence[Address]],
    after: Callable[[Record, Tensor], None],
) -> None:
    """Make, measure and record the clips of `plan` that `journal` lacks for the source called `name`.

    blocks   of trials that are made together, of `plan.blocks`

    A block is always made whole, so a run that was stopped makes the same clips as one that was not.
    `after(record, clip f 3 H W)` is called for every new clip, before its line is written.
    Raises InputError for a clip with values that are no numbers.
    """
    for block in blocks:
        missing = [(name, *address) not in journal.records for address in block]
        if not any(missing):
            continue
        trials = [plan.trial(address) for address in block]
        clips = source(trials)
        records = judged(name, trials, clips)
        for record, clip, new in zip(records, clips, missing, strict=True):
            if new:
                after(record, clip)
        journal.append(records)


def judged(name: str, trials: Sequence[Trial], clips: Tensor) -> list[Record]:
    """Measure clips `b f 3 H W`, one a trial, and hold them against the prompts."""
    finite = torch.isfinite(clips).flatten(1).all(1).tolist()
    if not all(finite):
        trial = trials[finite.index(False)]
        raise InputError(
            f"the clip of {trial.prompt!r} (seed {trial.seed}) has values that are no numbers: the weights are damaged,"
            " or the dtype is too narrow for them (try --dtype float32)"
        )
    return [
        Record(name, t.split, t.number, t.prompt, t.seed, read(found), agrees(found, parse(t.prompt)))
        for t, found in zip(trials, measure(clips), strict=True)
    ]


def read(measurement: Measurement) -> dict[str, Any]:
    """The attributes of a measurement as plain values, without what it holds of single frames."""
    names = ("shape", "colour", "size", "motion", "unchanged")
    objects = [{name: getattr(item, name) for name in names} for item in measurement.objects]
    return {name: getattr(measurement, name) for name in ("background", "style", "camera_still")} | {"objects": objects}


def figures(records: Mapping[str, Sequence[Record]]) -> list[tuple[Table, list[Row]]]:
    """All tables that have clips, from the records of each source."""
    found = []
    for table in TABLES:
        kept = {s: [r for r in rows if r.split == table.split and table.keep(r)] for s, rows in records.items()}
        if any(kept.values()):
            rows = [
                Row(figure.name, {s: figure.share(r) for s, r in kept.items()}, table.targets.get(figure.name))
                for figure in table.figures
            ]
            found.append((table, rows))
    return found


def breakdown(records: Mapping[str, Sequence[Record]], model: str) -> dict[str, list[Row]]:
    """Attribute -> a row for each of its values: the share right among clips of one object that ask for it.

    Mistakes are what the largest object (or the background) of the wrong clips of the source `model` was read as.
    """
    found: dict[str, list[Row]] = {}
    for attribute, values in BROKEN_DOWN.items():
        figure, rows = Figure(attribute, attribute), []
        for value in values:
            asked = {s: [r for r in kept if _asks(r, attribute, value)] for s, kept in records.items()}
            if any(asked.values()):
                wrong = [r for r in asked.get(model, ()) if not right(r, attribute)]
                mistakes = tuple(Counter(_read_as(r, attribute) for r in wrong).most_common(3))
                rows.append(Row(value, {s: figure.share(kept) for s, kept in asked.items()}, mistakes=mistakes))
        if rows:
            found[attribute] = rows
    return found


def _asks(record: Record, attribute: str, value: str) -> bool:
    wanted = record.wanted
    if record.split != "test" or len(wanted.objects) != 1:
        return False
    said: str | None = getattr(wanted if attribute == "background" else wanted.objects[0], attribute)
    return said == value


def _read_as(record: Record, attribute: str) -> str:
    if attribute == "background":
        return record.measured["background"] or "unknown"
    objects = record.measured["objects"]
    return (objects[0][attribute] or "unknown") if objects else "no object"
