"""Figures to files: a section of a Markdown document, a part of a JSON file, and pictures beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogen.metrics import document
from videogen.metrics.text_to_video import Row, Table

KEY = "text_to_video"
BEGIN, END = "<!-- text to video: made by `videogen evaluate` -->", "<!-- text to video: end -->"
PLOT, SHEET = f"{KEY}.png", f"{KEY}_clips.png"


@dataclass(frozen=True)
class Results:
    """All that a report says.

    sources   names of what was measured, the model first
    lines     sentences about the model and the settings
    notes     settings and versions as plain JSON values
    """

    command: str
    sources: Sequence[str]
    tables: Sequence[tuple[Table, Sequence[Row]]]
    breakdown: Mapping[str, Sequence[Row]]
    lines: Sequence[str]
    notes: Mapping[str, Any]


def write(path: Path, results: Results, pictures: Sequence[str]) -> list[Path]:
    """Write the section into `path` and the figures into the .json beside it; what else stands there is kept.

    `pictures` are names in the folder `pictures` beside it. Returns the two files.
    """
    return document.put(path, KEY, markdown(results, pictures), to_dict(results))


def to_dict(results: Results) -> dict[str, Any]:
    """Plain JSON values."""

    def line(row: Row) -> dict[str, Any]:
        shares = {source: share.to_dict() for source, share in row.shares.items()}
        return {"target": row.target, "met": met(row, results.sources[0])} | shares

    def value(row: Row) -> dict[str, Any]:
        return {source: share.to_dict() for source, share in row.shares.items()} | {"read as": dict(row.mistakes)}

    return {
        "command": results.command,
        **results.notes,
        "tables": {table.key: {row.name: line(row) for row in rows} for table, rows in results.tables},
        "breakdown": {name: {row.name: value(row) for row in rows} for name, rows in results.breakdown.items()},
    }


def met(row: Row, model: str) -> bool | None:
    """Whether the model's share reaches the target; None where there is none, or no clip."""
    share = row.shares.get(model)
    return None if row.target is None or share is None or not share.of else share.value >= row.target


def markdown(results: Results, pictures: Sequence[str]) -> str:
    """The section, with its marks."""
    model = results.sources[0]
    parts = [BEGIN, "## Text to video on the shapes world", *results.lines]
    made_by = f"Made by `{results.command}`."
    for table, rows in results.tables:
        clips = max(share.of for row in rows for share in row.shares.values())
        heads = ["what is right", "target", model, "unknown", *results.sources[1:]]
        lines = []
        for row in rows:
            first, *others = _cells(row, results.sources)
            lines.append([row.name, _target(row, model), first, _unknown(row, model), *others])
        parts += [f"### {table.title}: {clips} clips", document.table(heads, lines), made_by]
    if results.breakdown:
        parts.append("### By colour, shape, motion and background: clips of one object")
        lines = [
            [f"{name}: {row.name}", *_cells(row, results.sources), _mistakes(row)]
            for name, rows in results.breakdown.items()
            for row in rows
        ]
        parts += [document.table(["asked for", *results.sources, "wrong ones were mostly read as"], lines), made_by]
    titles = {PLOT: "Shares with 95 % intervals", SHEET: "The first clips, with their prompts and verdicts"}
    for name in pictures:
        parts += [f"![{titles[name]}](pictures/{name})", f"{titles[name]}. {made_by}"]
    return "\n\n".join([*parts, END])


def summary(results: Results) -> list[str]:
    """The model's figures that have a target, one line each, for a terminal."""
    model = results.sources[0]
    found = []
    for table, rows in results.tables:
        for row in rows:
            if row.target is not None and model in row.shares:
                found.append(f"{table.title}: {row.name} {row.shares[model]}, target {_target(row, model)}")
    return found


def _cells(row: Row, sources: Sequence[str]) -> list[str]:
    return [str(row.shares[source]) if source in row.shares else "" for source in sources]


def _target(row: Row, model: str) -> str:
    if row.target is None:
        return ""
    reached = met(row, model)
    return f"{row.target:.2f}" + ("" if reached is None else ", met" if reached else ", missed")


def _unknown(row: Row, model: str) -> str:
    share = row.shares.get(model)
    return "" if share is None or share.unknown is None or not share.of else f"{share.unknown / share.of:.3f}"


def _mistakes(row: Row) -> str:
    return ", ".join(f"{name} {count}" for name, count in row.mistakes)
