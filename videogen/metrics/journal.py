"""The journal of a run: one JSON line a measured clip, so that a run can be stopped, killed and continued.

run.json     the settings that all lines share
clips.jsonl  the lines, in the order in which they were made
shown/       the first clips, for people
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from videogen.errors import InputError
from videogen.files import replacing
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
        _claim(folder, json.loads(json.dumps(settings)), self.lines.exists())
        self.records: dict[Key, Record] = {record.key: record for record in _read(self.lines)}

    def append(self, records: Iterable[Record]) -> None:
        """Add those records that are not there yet."""
        new = [record for record in records if record.key not in self.records]
        text = "".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in new)
        with self.lines.open("ab", buffering=0) as file:  # unbuffered: the lines go out in one call, or not at all
            file.write(text.encode())
        self.records |= {record.key: record for record in new}

    def shown(self, split: str, number: int) -> Path:
        """Where a clip for people lies."""
        return self.folder / "shown" / f"{split}-{number:04d}.webp"


def _claim(folder: Path, settings: Mapping[str, Any], begun: bool) -> None:
    """Write the settings of a new run, or hold them against those of the run that is there."""
    note = folder / "run.json"
    if note.exists():
        try:
            there = dict(json.loads(note.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as problem:
            raise InputError(f"{note} cannot be read: {problem}; give another --out") from problem
        for name in sorted({*there, *settings}):
            if there.get(name) != settings.get(name):
                raise InputError(
                    f"{folder} holds a run with {name} {there.get(name)}, this one has {settings.get(name)};"
                    " give another --out, or remove that folder"
                )
        return
    if begun:
        raise InputError(f"{folder} holds clips.jsonl without the run.json that says what they are; give another --out")
    try:
        (folder / "shown").mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"cannot make the folder {folder}: {problem.strerror}") from problem
    with replacing(note) as beside:
        beside.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> list[Record]:
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(Record(**json.loads(line)))
        except (ValueError, TypeError) as problem:
            raise InputError(
                f"line {number} of {path} is no measured clip; remove it, and it is made again"
            ) from problem
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return found


@lru_cache(maxsize=4096)
def _parsed(prompt: str) -> Wanted:
    return parse(prompt)
