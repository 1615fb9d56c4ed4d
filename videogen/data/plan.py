"""The order of training: which clip is drawn at which position, as a function of the seed and of a number.

Clips of one shape form a bucket, and a batch is of one bucket. In a bucket each source has its pool, which is drawn from in proportion to the
source's weight; a pool is gone through in a new random order each time, so within it no clip comes a second time before all have come once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from videogen.data.chance import before, permuted, turns
from videogen.data.facts import Facts, surveyed
from videogen.data.fitting import nearest
from videogen.data.listing import Listing, name_of
from videogen.data.rows import Rejected
from videogen.data.settings import Data
from videogen.data.windows import frames_for, starts
from videogen.errors import InputError


@dataclass(frozen=True)
class Shape:
    """What all clips of a batch have: frames, width, height."""

    frames: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.frames} x {self.width} x {self.height}"


@dataclass(frozen=True, eq=False)
class Pool:
    """The clips of one source in one bucket: their places among the source's rows, the window of each (-1: drawn anew each time)."""

    source: int
    rows: np.ndarray
    windows: np.ndarray
    weight: float


@dataclass(frozen=True)
class Bucket:
    """Clips of one shape."""

    shape: Shape
    pools: tuple[Pool, ...]

    @property
    def weight(self) -> float:
        """In proportion to how often a step draws this bucket."""
        return sum(pool.weight for pool in self.pools)


@dataclass(frozen=True)
class Item:
    """What stands at a position: a row of a source, a window of it or -1, and the shape it is to have."""

    source: int
    row: int
    window: int
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """All buckets, and the rows that fit in none."""

    buckets: tuple[Bucket, ...]
    rejected: tuple[Rejected, ...] = ()

    @property
    def count(self) -> int:
        """Clips (windows, where each is one of its own)."""
        return sum(len(pool.rows) for bucket in self.buckets for pool in bucket.pools)

    def steps(self, seed: int, batch: int, start: int = 0) -> Iterator[list[Item]]:
        """The global batch of every step from `start` on."""
        weights = [bucket.weight for bucket in self.buckets]
        passed = before(weights, start, seed, "buckets")
        pools = [
            turns([pool.weight for pool in bucket.pools], number * batch, seed, "pools", which)
            for which, (bucket, number) in enumerate(zip(self.buckets, passed))
        ]
        for which, _ in turns(weights, start, seed, "buckets"):
            bucket = self.buckets[which]
            yield [self._item(bucket, seed, which, *drawn) for drawn in itertools.islice(pools[which], batch)]

    @staticmethod
    def _item(bucket: Bucket, seed: int, which: int, number: int, place: int) -> Item:
        pool = bucket.pools[number]
        round_, place = divmod(place, len(pool.rows))
        at = permuted(place, len(pool.rows), seed, "order", which, number, round_)
        return Item(pool.source, int(pool.rows[at]), int(pool.windows[at]), bucket.shape)


def planned(data: Data, listings: Sequence[Listing]) -> Plan:
    """The buckets of all sources. Where there can be several shapes, or each window is a clip, every file is opened once for it.

    Raises InputError where more than the share `data.broken` fits in no bucket.
    """
    if not data.surveyed:
        shape = Shape(data.frames[0], *data.size[0])
        pools = [
            Pool(i, np.arange(len(one.rows)), np.full(len(one.rows), -1), one.source.weight)
            for i, one in enumerate(listings)
        ]
        return Plan((Bucket(shape, tuple(pools)),))
    found: dict[Shape, list[Pool]] = {}
    rejected: list[Rejected] = []
    for number, listing in enumerate(listings):
        items, wrong = _sorted_in(data, listing)
        total = sum(map(len, items.values()))
        if not total or len(wrong) > data.broken * len(listing.rows):
            raise InputError(
                f"{name_of(listing.source)}: {len(wrong)} of {len(listing.rows)} clips cannot be used, more than the share broken: {data.broken}; "
                f"the first is {wrong[0].key}: {wrong[0].reason}; videogen data check lists them"
            )
        rejected += wrong
        for shape, pairs in items.items():
            rows, windows = np.array(pairs, np.int64).T
            found.setdefault(shape, []).append(Pool(number, rows, windows, listing.source.weight * len(pairs) / total))
    shapes = sorted(found, key=lambda shape: (shape.frames, shape.width, shape.height))
    return Plan(tuple(Bucket(shape, tuple(found[shape])) for shape in shapes), tuple(rejected))


def _sorted_in(data: Data, listing: Listing) -> tuple[dict[Shape, list[tuple[int, int]]], list[Rejected]]:
    items: dict[Shape, list[tuple[int, int]]] = {}
    wrong: list[Rejected] = []
    for row, facts in enumerate(surveyed(listing.rows, data.store, data.workers)):
        try:
            shape = shape_of(data, facts)
        except InputError as problem:
            wrong.append(Rejected(listing.rows[row].key, str(problem)))
            continue
        windows = range(len(starts(data, facts.extent, shape.frames))) if data.window == "all" else (-1,)
        items.setdefault(shape, []).extend((row, window) for window in windows)
    return items, wrong


def shape_of(data: Data, facts: Facts) -> Shape:
    """The bucket of a clip. Raises InputError for one that is broken or too short."""
    if facts.wrong:
        raise InputError(facts.wrong)
    return Shape(frames_for(data, facts.extent), *nearest(data.size, *facts.size))
