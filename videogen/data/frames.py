"""Folders of frames: each folder is a clip, its pictures are the frames, in the order of the numbers in their names."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from videogen.data import captions
from videogen.data.pairs import read_text
from videogen.data.rows import STILLS, Rejected, Row, Series
from videogen.data.settings import Folders
from videogen.errors import InputError
from videogen.files import natural


def read(source: Folders) -> Iterator[Row | Rejected]:
    """One row a folder. Raises InputError where `source.folder` is missing or holds no folders."""
    if not source.folder.is_dir():
        raise InputError(f"the folder {source.folder} does not exist")
    folders = sorted(path for path in source.folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InputError(f"the folder {source.folder} holds no folders of pictures")
    for folder in folders:
        texts = [path for path in (folder.with_name(f"{folder.name}.txt"), folder / "caption.txt") if path.is_file()]
        try:
            told = captions.settled(map(read_text, texts[:1]), source.prompt)
        except InputError as problem:
            yield Rejected(folder.name, str(problem))
            continue
        yield series_of(folder, folder.name, told, source.rate) if told else Rejected(folder.name, "no caption")


def series_of(folder: Path, key: str, told: tuple[str, ...], rate: Fraction) -> Row | Rejected:
    """The row of a folder of pictures; rejected where it holds none."""
    inside = [path for path in folder.iterdir() if path.suffix.lower() in STILLS and not path.name.startswith(".")]
    if not inside:
        return Rejected(key, "a folder without pictures")
    return Row(key, Series(tuple(map(str, sorted(inside, key=natural))), str(rate)), told)
