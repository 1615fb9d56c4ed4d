"""Tables of captions: CSV with a header, and JSON lines. A wrong line is rejected by its number, a wrong file at once."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from videogen.data.rows import Rejected
from videogen.errors import InputError, reason

Line = tuple[str, dict[str, Any]]
"""Where it stands (`line 7`), and its fields by column."""


def read_csv(path: Path, needed: Sequence[str]) -> tuple[list[str], Iterator[Line | Rejected]]:
    """The columns of a CSV file in UTF-8, and its lines, which are read as they are pulled.

    Raises InputError where the file is missing or empty, where its first line is no header with the `needed` columns (at once), and where it
    is no UTF-8 (when that line is reached).
    """
    lines = _lines(path)
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as problem:
        raise InputError(f"{path} is no CSV: {problem} in its first line") from problem
    if not any(header):
        raise InputError(f"{path} is empty; its first line must name the columns {', '.join(needed)}")
    lost = [name for name in needed if name not in header]
    if lost:
        shown = ", ".join(repr(name[:40]) for name in header[:8])
        raise InputError(
            f"{path} has no column {lost[0]!r}: its first line must be a header that names it, and is {shown}"
        )
    if len(set(header)) < len(header):
        raise InputError(f"{path} names a column twice: {', '.join(header)}")
    return header, _rows(reader, header)


def _rows(reader: Any, header: list[str]) -> Iterator[Line | Rejected]:
    while True:
        first = reader.line_num + 1
        place = f"line {first}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            # a quote that nothing closes takes the lines that follow with it, and each of them is a row that is lost
            for number in range(first, reader.line_num + 1):
                yield Rejected(f"line {number}", f"no CSV: {problem}" + f", from {place} on" * (number > first))
            continue
        if not fields:
            continue
        if len(fields) != len(header):
            yield Rejected(place, f"{len(fields)} columns, the header has {len(header)}")
        else:
            yield place, dict(zip(header, fields))


def read_jsonl(path: Path) -> Iterator[Line | Rejected]:
    """The objects of a file with one JSON object a line, in UTF-8. Raises InputError where the file is missing or no UTF-8."""
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as problem:
            yield Rejected(f"line {number}", f"no JSON: {reason(problem)}")
            continue
        yield (f"line {number}", fields) if isinstance(fields, dict) else Rejected(f"line {number}", "no JSON object")


def _lines(path: Path) -> Iterable[str]:
    """Lines with their ends as they are, so that quoted line breaks stay."""
    if not path.is_file():
        raise InputError(f"{path} does not exist" if not path.exists() else f"{path} is no file")
    return _decoded(path)


def _decoded(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except UnicodeDecodeError as problem:
        raise InputError(f"{path} is not UTF-8 ({problem.reason}); convert it first") from problem
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}") from problem
