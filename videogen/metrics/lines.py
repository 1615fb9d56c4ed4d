"""JSON lines of a run in a folder, so that it can be stopped, killed and continued.

run.json  the settings that all lines share
*.jsonl   the lines, in the order in which they were made
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from videogen.errors import InputError
from videogen.files import replacing

T = TypeVar("T")


@dataclass(frozen=True)
class Portion:
    """What one of several processes that fill a folder makes: of all pieces, by number, every `of`-th from `first` on.

    They need know nothing of each other. Who reads the lines when all are done finds every piece once.
    """

    first: int = 0
    of: int = 1

    def __contains__(self, number: int) -> bool:
        return number % self.of == self.first

    def taken(self, pieces: Iterable[T]) -> list[T]:
        """This portion's of all pieces."""
        return [piece for number, piece in enumerate(pieces) if number in self]


ALL = Portion()


def parse_portion(text: str | None) -> Portion:
    """`1/2` is the first of two, None all. Raises InputError for anything else."""
    if text is None:
        return ALL
    first, slash, of = text.partition("/")
    if not (slash and first.isdecimal() and of.isdecimal() and 1 <= int(first) <= int(of)):
        raise InputError(f"--portion {text}: give K/N, such as 1/2 and 2/2 to two processes")
    return Portion(int(first) - 1, int(of))


def claim(folder: Path, settings: Mapping[str, Any], lines: Path) -> None:
    """Write the settings of a new run, or hold them against those of the run that is there; `lines` are its lines.

    Raises InputError where the folder holds a run with other settings, or lines without settings.
    """
    settings = json.loads(json.dumps(settings))
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
    if lines.exists():
        raise InputError(
            f"{folder} holds {lines.name} without the run.json that says what they are; give another --out"
        )
    try:
        (folder / "shown").mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"cannot make the folder {folder}: {problem.strerror}") from problem
    with replacing(note) as beside:
        beside.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def read(path: Path, make: Callable[..., T]) -> list[T]:
    """`make(**line)` of every line; what a kill left of the last one is dropped. Raises InputError for a foreign line."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(make(**json.loads(line)))
        except (ValueError, TypeError) as problem:
            raise InputError(
                f"line {number} of {path} is no measured clip; remove it, and it is made again"
            ) from problem
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return found


def append(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines. Raises OSError where not all of them can be written, on a full disk say."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with path.open("ab", buffering=0) as file:  # unbuffered: one call writes them all, between other processes' lines
        rest = memoryview(text.encode())
        while rest:  # a disk that is nearly full takes a part without an error, which comes with the next call
            rest = rest[file.write(rest) :]
