"""Ways to make clips, held against one another in pairs: the same prompts and seeds, a JSON line for each clip, differences with their intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from videogen.metrics import lines
from videogen.metrics.paired import Estimate, difference_of_shares, mean
from videogen.metrics.shares import Share


class Way(Protocol):
    """What is told of a way: its name, its title, and the name of the way it is held against (None for none)."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def against(self) -> str | None: ...


@dataclass(frozen=True)
class Row:
    """One measured clip: `shares` are true or false, `means` are numbers, nan where an object is missing."""

    way: str
    number: int
    prompt: str
    seed: int
    shares: Mapping[str, bool]
    means: Mapping[str, float]


class Rows:
    """The rows of a run in `folder`, which is made if need be. Raises InputError where it holds a run with other settings."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / "clips.jsonl"
        self.folder = folder
        lines.claim(folder, settings, self.path)
        self.rows = {(row.way, row.number): row for row in lines.read(self.path, Row)}

    def append(self, row: Row) -> None:
        """Add a row."""
        lines.append(self.path, [dataclasses.asdict(row)])
        self.rows[row.way, row.number] = row


@dataclass(frozen=True)
class Figures:
    """A way's shares and means, and their differences to the other way's (None where it has none)."""

    way: Way
    shares: Mapping[str, tuple[Share, Estimate | None]]
    means: Mapping[str, tuple[Estimate, Estimate | None]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain: dict[str, Any] = {}
        for name, (share, change) in self.shares.items():
            plain[name] = {"is": share.to_dict(), "difference": change and change.to_dict()}
        for name, (value, change) in self.means.items():
            plain[name] = {"is": value.to_dict(), "difference": change and change.to_dict()}
        return plain


def figures(ways: Iterable[Way], rows: Mapping[tuple[str, int], Row], count: int) -> list[Figures]:
    """The figures of every way over the first `count` clips. A number that could not be read on either side is left out of both."""
    found = []
    for way in ways:
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
