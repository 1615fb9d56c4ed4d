"""Pairs: clips and pictures at any depth of a folder, each beside a text of its name, `a.mp4` and `a.txt`.

A file of a suffix that is not known is a clip where there is a text of its name and no other clip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from videogen.data import captions
from videogen.data.rows import CLIPS, NOTES, File, Rejected, Row
from videogen.data.settings import Pairs
from videogen.errors import InputError


def read(source: Pairs) -> Iterator[Row | Rejected]:
    """One row a clip, in the order of names; a text without a clip is rejected too. Raises InputError for a missing folder, or one without clips."""
    if not source.folder.is_dir():
        raise InputError(f"the folder {source.folder} does not exist")
    some = False
    for at, folders, files in os.walk(source.folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for row in _folder(source, Path(at), sorted(name for name in files if not name.startswith("."))):
            some = some or isinstance(row, Row)
            yield row
    if not some:
        raise InputError(f"the folder {source.folder} holds no clip beside its caption, such as a.mp4 beside a.txt")


def _folder(source: Pairs, folder: Path, names: list[str]) -> Iterator[Row | Rejected]:
    texts = {Path(name).stem for name in names if Path(name).suffix.lower() == ".txt"}
    lone = texts - {Path(name).stem for name in names if Path(name).suffix.lower() in CLIPS}
    clips = [
        name
        for name in names
        if Path(name).suffix.lower() in CLIPS or (Path(name).stem in lone and Path(name).suffix.lower() not in NOTES)
    ]
    for name in clips:
        key = (folder / name).relative_to(source.folder).as_posix()
        try:
            found = [read_text(folder / f"{Path(name).stem}.txt")] if Path(name).stem in texts else []
        except InputError as problem:
            yield Rejected(key, str(problem))
            continue
        told = captions.settled(found, source.prompt)
        yield Row(key, File(str(folder / name)), told) if told else Rejected(key, "no caption")
    for stem in sorted(texts - {Path(name).stem for name in clips}):
        yield Rejected((folder / stem).relative_to(source.folder).as_posix() + ".txt", "a caption without a clip")


def read_text(path: Path) -> str:
    """A caption's file. Raises InputError where it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(f"{path.name} is not UTF-8") from problem
    except OSError as problem:
        raise InputError(f"{path.name}: {problem.strerror}") from problem
