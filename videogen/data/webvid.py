"""The WebVid layout (Bain et al. 2021): a table of `videoid,name,page_dir,duration,contentUrl`, clips flat or by `page_dir`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from videogen.data import captions, tables
from videogen.data.rows import File, Rejected, Row, inside
from videogen.data.settings import WebVid
from videogen.errors import InputError

ABSENT = "there is no file"


def read(source: WebVid) -> Iterator[Row | Rejected]:
    """One row a line of the table. Raises InputError for a missing table, header, column or folder."""
    header, lines = tables.read_csv(source.csv, ("videoid",))
    names = captions.columns(header, source.caption, str(source.csv))
    if not source.videos.is_dir():
        raise InputError(f"the folder of clips {source.videos} does not exist")
    there = Folder(source.videos)
    for line in lines:
        if isinstance(line, Rejected):
            yield line
            continue
        place, fields = line
        yield _row(source, there, place, fields, names)


def _row(source: WebVid, there: Folder, place: str, fields: dict[str, str], names: tuple[str, ...]) -> Row | Rejected:
    key = fields["videoid"].strip() or place
    ways = [
        inside(f"{page}{key}.mp4") for page in (fields.get("page_dir", "").strip().rstrip("/") + "/", "") if page != "/"
    ]
    if None in ways or key == place:
        return Rejected(key, f"{place}: videoid and page_dir make no path inside the folder")
    told = captions.settled(captions.of_entry(fields, names), source.prompt)
    if not told:
        return Rejected(key, "no caption")
    found = next((path for path in filter(None, ways) if there.has(str(path))), None)
    return Row(key, File(str(source.videos / found)), told) if found else Rejected(key, ABSENT)


class Folder:
    """Which files a folder holds; each folder under it is listed once, since asking for millions of files one by one takes long."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, frozenset[str]] = {}

    def has(self, path: str) -> bool:
        """Whether the relative path is there, as a file or a folder."""
        folder, name = os.path.split(path)
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(self.root / folder))
            except OSError:
                self._listed[folder] = frozenset()
        return name in self._listed[folder]
