"""The journal of a run: one JSON line a measured clip, so that a run can be stopped, killed and continued.

run.json     the settings that all lines share
clips.jsonl  the lines, in the order in which they were made
shown/       the first clips, for people
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from videogen.metrics import lines
from videogen.shapes import Wanted, parse

Key = tuple[str, str, int]
"""Source, split and number."""


@dataclass(frozen=True)
class Record:
    """One measured clip.

    source    what made it: the model, the renderer, ...
    measured  what it shows, as plain values: background, style, camera_still, objects
    agrees    whether it shows what the prompt asks for, attribute by attribute
    """

    source: str
    split: str
    number: int
    prompt: str
    seed: int
    measured: Mapping[str, Any]
    agrees: Mapping[str, bool]

    @property
    def key(self) -> Key:
        """What tells it from all others of a run."""
        return self.source, self.split, self.number

    @property
    def wanted(self) -> Wanted:
        """What the prompt asks for."""
        return _parsed(self.prompt)


class Journal:
    """The records of a run in `folder`, which is made if need be. `settings` are plain JSON values.

    Raises InputError where the folder holds a run with other settings, or lines that are none of ours. A last line
    that was cut off by a kill is dropped.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.lines = folder / "clips.jsonl"
        lines.claim(folder, settings, self.lines)
        self.records: dict[Key, Record] = {record.key: record for record in lines.read(self.lines, Record)}

    def append(self, records: Iterable[Record]) -> None:
        """Add those records that are not there yet."""
        new = [record for record in records if record.key not in self.records]
        lines.append(self.lines, map(dataclasses.asdict, new))
        self.records |= {record.key: record for record in new}

    def shown(self, split: str, number: int) -> Path:
        """Where a clip for people lies."""
        return self.folder / "shown" / f"{split}-{number:04d}.webp"


@lru_cache(maxsize=4096)
def _parsed(prompt: str) -> Wanted:
    return parse(prompt)
