"""A folder with `metadata.csv` or `metadata.jsonl`, as Hugging Face's image and video folders have it: `file_name` and captions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from videogen.data import captions, tables
from videogen.data.frames import series_of
from videogen.data.rows import File, Rejected, Row, inside
from videogen.data.settings import Metadata
from videogen.data.webvid import ABSENT, Folder
from videogen.errors import InputError

RATE = Fraction(8)  # frames a second, where `file_name` is a folder of pictures


def read(source: Metadata) -> Iterator[Row | Rejected]:
    """One row a line; `file_name` is a clip, a picture or a folder of pictures, relative to the folder.

    Raises InputError for a missing folder, table, header or column.
    """
    names, lines = _table(source)
    there = Folder(source.folder)
    for line in lines:
        if isinstance(line, Rejected):
            yield line
            continue
        place, fields = line
        name = fields.get("file_name")
        path = inside(name) if isinstance(name, str) else None
        if path is None:
            yield Rejected(place, f"file_name is no path inside the folder: {str(name)[:80]!r}")
            continue
        told = captions.settled(captions.of_entry(fields, names), source.prompt)
        if not told:
            yield Rejected(str(path), "no caption")
        elif not there.has(str(path)):
            yield Rejected(str(path), ABSENT)
        elif (source.folder / path).is_dir():
            yield series_of(source.folder / path, str(path), told, RATE)
        else:
            yield Row(str(path), File(str(source.folder / path)), told)


def _table(source: Metadata) -> tuple[tuple[str, ...], Iterable[tables.Line | Rejected]]:
    """The columns that are captions, and the lines."""
    if not source.folder.is_dir():
        raise InputError(f"the folder {source.folder} does not exist")
    found = [path for suffix in ("csv", "jsonl") if (path := source.folder / f"metadata.{suffix}").is_file()]
    if len(found) != 1:
        wrong = (
            "no metadata.csv and no metadata.jsonl" if not found else "a metadata.csv and a metadata.jsonl; keep one"
        )
        raise InputError(f"{source.folder} has {wrong}")
    if found[0].suffix == ".csv":
        header, lines = tables.read_csv(found[0], ("file_name",))
        return captions.columns(header, source.caption, str(found[0])), lines
    first = next((line for line in tables.read_jsonl(found[0]) if not isinstance(line, Rejected)), None)
    if first is None:
        raise InputError(f"{found[0]} holds no JSON object; each line is one, with file_name and a caption")
    if "file_name" not in first[1]:
        raise InputError(
            f"{found[0]} has no 'file_name' in its first object; its entries are {', '.join(map(repr, first[1]))}"
        )
    return captions.columns(list(first[1]), source.caption, str(found[0])), tables.read_jsonl(found[0])
