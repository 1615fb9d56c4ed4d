"""Sources read into rows: what can be trained on, and what was rejected and why."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from videogen.data import frames, metadata, pairs, shards, webvid
from videogen.data.rows import Rejected, Row, Rows
from videogen.data.settings import AnySource, Data, Folders, Metadata, Pairs, Shards, WebVid
from videogen.data.webvid import ABSENT
from videogen.errors import InputError


@dataclass(frozen=True)
class Listing:
    """One source: its rows, what was rejected of it, how many rows without a file were left out as it was asked for."""

    source: AnySource
    rows: Rows
    rejected: tuple[Rejected, ...]
    left_out: int = 0

    @property
    def total(self) -> int:
        """Rows and rejected ones."""
        return len(self.rows) + len(self.rejected)


def read(source: AnySource) -> Iterator[Row | Rejected]:
    """The rows of a source, whatever its layout."""
    if isinstance(source, WebVid):
        return webvid.read(source)
    if isinstance(source, Metadata):
        return metadata.read(source)
    if isinstance(source, Pairs):
        return pairs.read(source)
    return shards.read(source) if isinstance(source, Shards) else frames.read(source)


def name_of(source: AnySource) -> str:
    """What a source is called in reports."""
    if isinstance(source, WebVid):
        return f"webvid {source.csv}"
    if isinstance(source, Shards):
        return f"shards {' '.join(source.shards)}"
    assert isinstance(source, Metadata | Pairs | Folders)
    return f"{source.layout} {source.folder}"


def listed(source: AnySource) -> Listing:
    """Read a source's layout; no clip is opened. Raises InputError where it is missing, of another layout, or has no row that can be used."""
    rejected: list[Rejected] = []
    absent = 0
    seen: set[bytes] = set()

    def kept() -> Iterator[Row]:
        nonlocal absent
        for row in read(source):
            if isinstance(row, Row):
                digest = hashlib.blake2b(row.key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield row
                    continue
                row = Rejected(row.key, "a second row of this name")
            if row.reason == ABSENT and source.missing == "leave_out":
                absent += 1
            else:
                rejected.append(row)

    rows = Rows(kept())
    if not rows:
        why = f"; of {rejected[0].key}: {rejected[0].reason}" if rejected else ""
        told = f"{len(rejected) + absent} rows, none that can be used{why}" if rejected or absent else "no rows"
        raise InputError(f"{name_of(source)} has {told}")
    return Listing(source, rows, tuple(rejected), absent)


def all_listed(data: Data) -> tuple[Listing, ...]:
    """Every source. Raises InputError where a larger share than `data.broken` was rejected, beside what `listed` raises."""
    listings = tuple(map(listed, data.sources))
    for listing in listings:
        if len(listing.rejected) > data.broken * listing.total:
            first = listing.rejected[0]
            raise InputError(
                f"{name_of(listing.source)}: {len(listing.rejected)} of {listing.total} rows cannot be used, more than the share broken: "
                f"{data.broken}; the first is {first.key}: {first.reason}; videogen data check lists them"
            )
    return listings
