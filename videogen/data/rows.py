"""Rows: where a clip is and what is said of it; millions of them in a few hundred bytes each."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from typing import overload

from videogen.errors import InputError

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".ogv", ".3gp")
MOVING = (".gif", ".webp")
STILLS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
CLIPS = (*VIDEOS, *MOVING, *STILLS)
NOTES = (".txt", ".json", ".csv", ".srt", ".vtt", ".npy", ".npz")  # what lies beside clips and is none


@dataclass(frozen=True)
class File:
    """A file of its own."""

    path: str


@dataclass(frozen=True)
class Member:
    """Bytes [offset, offset + size) of a tar file, and the name they have there."""

    shard: str
    offset: int
    size: int
    name: str


@dataclass(frozen=True)
class Series:
    """Pictures one after the other, at `rate` a second (a fraction as text)."""

    paths: tuple[str, ...]
    rate: str


Place = File | Member | Series
PLACES: tuple[type[Place], ...] = (File, Member, Series)


@dataclass(frozen=True)
class Row:
    """One clip: a key that people can find it by, where it is, its captions (at least one, which may be empty)."""

    key: str
    place: Place
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Rejected:
    """What is not trained on, and why, in one line."""

    key: str
    reason: str


class Rows(Sequence[Row]):
    """Rows in one piece of memory, taken apart when they are asked for."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._text = bytearray()
        self._ends = array("Q", [0])
        for row in rows:
            fields = list(vars(row.place).values())
            kind = PLACES.index(type(row.place))
            self._text += json.dumps([row.key, kind, fields, row.captions], ensure_ascii=False).encode(
                "utf-8", "surrogatepass"
            )
            self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def digest(self) -> str:
        """Of all rows in their order: keys, places and captions, but not of what lies there."""
        return hashlib.blake2b(self._text, digest_size=6).hexdigest()

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        text = self._text[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")
        key, kind, fields, captions = json.loads(text)
        place = PLACES[kind](*(tuple(field) if isinstance(field, list) else field for field in fields))
        return Row(key, place, tuple(captions))

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))


def inside(name: str) -> PurePosixPath | None:
    """A relative path that stays in its folder; None for one that could leave it, or is none."""
    windows = PureWindowsPath(name)
    plain = PurePosixPath(windows.as_posix())
    if not name.strip() or windows.drive or windows.root or plain.is_absolute() or ".." in plain.parts or "\0" in name:
        return None
    return plain


def identity(place: Place) -> str:
    """What tells a place from others."""
    if isinstance(place, File):
        return os.path.abspath(place.path)
    if isinstance(place, Member):
        return f"{os.path.abspath(place.shard)}:{place.offset}+{place.size}"
    return f"{os.path.abspath(place.paths[0])} and {len(place.paths) - 1} more at {Fraction(place.rate)}"


def stamp(place: Place) -> str:
    """Sizes and times of the files a place lies in; as long as it stays, the content is taken to be the same.

    Raises InputError where they are not there.
    """
    paths = {File: lambda p: [p.path], Member: lambda p: [p.shard], Series: lambda p: p.paths}[type(place)](place)
    try:
        found = [(status.st_size, status.st_mtime_ns) for status in map(os.stat, paths)]
    except OSError as problem:
        raise InputError(f"{problem.filename}: {problem.strerror}") from problem
    if len(found) == 1:
        return "{}-{}".format(*found[0])
    return hashlib.blake2b(json.dumps(found).encode(), digest_size=8).hexdigest()


def content(place: Place) -> str:
    """A digest of the bytes of a clip, wherever they lie; read in pieces. Raises InputError where they are not there."""
    digest = hashlib.blake2b(digest_size=16)
    paths = place.paths if isinstance(place, Series) else (place.shard if isinstance(place, Member) else place.path,)
    try:
        for path in paths:
            with open(path, "rb") as file:
                left = os.fstat(file.fileno()).st_size
                if isinstance(place, Member):
                    file.seek(place.offset)
                    left = place.size
                digest.update(f"{left};".encode())
                while left > 0 and (piece := file.read(min(left, 1 << 20))):
                    digest.update(piece)
                    left -= len(piece)
    except OSError as problem:
        raise InputError(f"{problem.filename}: {problem.strerror}") from problem
    if isinstance(place, Series):
        digest.update(place.rate.encode())
    return digest.hexdigest()
