"""`videogen data check`: everything read once, before a training spends days on it.

The report holds each rejected row with its reason, the spread of lengths, rates, sizes and captions, and some clips as the model will see them.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videogen.clip import Clip as Shown
from videogen.clip import contact_sheet
from videogen.data.captions import sided
from videogen.data.clips import clip, drawn, rate_of
from videogen.data.facts import Facts, ordered
from videogen.data.listing import Listing, name_of
from videogen.data.opening import check_reader, opened
from videogen.data.plan import Item, shape_of
from videogen.data.rows import Rejected, Row
from videogen.data.settings import Data
from videogen.data.windows import span, starts
from videogen.errors import InputError, reason
from videogen.files import replacing

REPORT, REJECTED, SAMPLES = "report.json", "rejected.csv", "samples.png"
SHOWN = 12  # clips on the contact sheet
COLUMNS = 8  # frames of each


@dataclass(frozen=True)
class Spread:
    """The least, the quartiles and the greatest of some numbers."""

    least: float
    lower: float
    median: float
    upper: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.least:g} to {self.greatest:g}, half of them {self.lower:g} to {self.upper:g}, median {self.median:g}"


@dataclass(frozen=True)
class Checked:
    """What was found in one source.

    spread    of seconds, frames a second, width, height and words a caption, by name
    shapes    how many clips go into each bucket
    windows   how many windows they have in all
    hurried   clips too short for the stride, whose frames are spread over them
    repeated  clips whose rate is below the wanted one, so that frames come twice
    sided     clips whose captions say left or right, which are never mirrored
    """

    source: str
    rows: int
    usable: int
    rejected: tuple[Rejected, ...]
    left_out: int
    spread: dict[str, Spread]
    shapes: dict[str, int]
    windows: int
    hurried: int
    repeated: int
    sided: int

    @property
    def broken(self) -> float:
        """The share of rows that cannot be used."""
        return len(self.rejected) / max(self.rows, 1)


def check(
    data: Data,
    listings: Sequence[Listing],
    seed: int,
    out: Path,
    *,
    quick: bool = False,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[Checked, ...]:
    """Read every clip of every source once, by `data.workers` threads; write the report into the folder `out`.

    listings  the sources of `data`, listed (`listing.listed`)
    quick     headers and packets are read and the first frame decoded, rather than every frame
    tell      takes how many rows are done

    Raises InputError for a reader that is not installed, and where the report cannot be written; where there can be no such folder, before any
    clip is opened.
    """
    check_reader(data.reader)
    with _told(out):
        out.mkdir(parents=True, exist_ok=True)
    found, samples = [], []
    for listing in listings:
        checked, good = _checked(data, listing, quick, tell)
        found.append(checked)
        samples += _samples(data, seed, good, SHOWN // len(listings) or 1)
    _write(out, found, samples)
    return tuple(found)


def _checked(
    data: Data, listing: Listing, quick: bool, tell: Callable[[int], None]
) -> tuple[Checked, list[tuple[Row, Facts]]]:
    rejected = list(listing.rejected)
    good: list[tuple[Row, Facts]] = []
    numbers: list[tuple[float, ...]] = []
    shapes: Counter[str] = Counter()
    windows = hurried = repeated = turned = 0
    every = max(1, len(listing.rows) // SHOWN)  # of the good ones only some are kept, for the contact sheet

    def examined(row: Row) -> tuple[Row, Facts]:
        return row, examine(row, thorough=not quick)

    for done, (row, facts) in enumerate(ordered(examined, iter(listing.rows), data.workers), 1):
        tell(done)
        try:
            shape = shape_of(data, facts)
        except InputError as problem:
            rejected.append(Rejected(row.key, str(problem)))
            continue
        extent = facts.extent
        if len(good) * every <= len(numbers):
            good.append((row, facts))
        words = sum(len(caption.split()) for caption in row.captions) / len(row.captions)
        numbers.append((float(extent.count / extent.rate), float(extent.rate), *facts.size, words))
        shapes[str(shape)] += 1
        windows += len(starts(data, extent, shape.frames))
        hurried += span(data, extent, shape.frames)[-1] >= extent.count
        repeated += data.fps is not None and extent.count > 1 and extent.rate < data.fps
        turned += sided(row.captions)
    names = ("seconds", "frames a second", "width", "height", "words a caption")
    spread = {name: _spread(values) for name, values in zip(names, zip(*numbers))}
    checked = Checked(
        name_of(listing.source), listing.total, len(numbers), tuple(rejected), listing.left_out, spread,
        dict(sorted(shapes.items())), windows, hurried, repeated, turned,
    )  # fmt: skip
    return checked, good


def examine(row: Row, *, thorough: bool) -> Facts:
    """A clip's facts after reading all of it; `thorough`: after decoding all of it."""
    try:
        with opened(row.place) as source:
            source.whole(thorough)
            return Facts(source.extent, source.size())
    except InputError as problem:
        return Facts(wrong=str(problem))


def _samples(data: Data, seed: int, good: Sequence[tuple[Row, Facts]], count: int) -> list[tuple[str, Shown]]:
    samples = []
    for at, (row, facts) in enumerate(good[:count]):
        one = drawn(data, row, Item(0, 0, -1, shape_of(data, facts)), seed, 0, at)
        try:
            read = clip(data, one, data.reader)
        except InputError:
            continue  # decord may not read what PyAV does
        told = one.caption or "(caption dropped)"
        rate = rate_of(read.numbers, read.extent)
        label = f"{told[:90]} - {row.key[-40:]}, frames {read.numbers[0]} to {read.numbers[-1]}"
        label += f", {rate:.3g} fps" * (rate > 0) + ", mirrored" * one.mirrored
        samples.append((label, Shown(read.frames)))
    return samples


def _spread(values: Sequence[float]) -> Spread:
    return Spread(*(round(float(x), 3) for x in np.percentile(np.asarray(values), [0, 25, 50, 75, 100])))


@contextlib.contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise InputError(f"the report cannot be written into {out}: {reason(problem)}") from problem


def _write(out: Path, found: Sequence[Checked], samples: Sequence[tuple[str, Shown]]) -> None:
    with _told(out):
        with replacing(out / REPORT) as beside:
            beside.write_text(
                json.dumps([dataclasses.asdict(one) for one in found], indent=2, ensure_ascii=False) + "\n"
            )
        with replacing(out / REJECTED) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            table: Any = csv.writer(file)
            table.writerow(("source", "key", "reason"))
            table.writerows((one.source, wrong.key, wrong.reason) for one in found for wrong in one.rejected)
        if samples:
            labels, clips = zip(*samples)
            # the sheet's font draws Latin letters only
            plain = [label.encode("latin-1", "replace").decode("latin-1") for label in labels]
            with replacing(out / SAMPLES) as beside:
                contact_sheet(clips, plain, columns=COLUMNS, width=128).save(beside)
    if not samples:
        (out / SAMPLES).unlink(missing_ok=True)


def lines(checked: Checked) -> list[str]:
    """What is told of a source on a screen."""
    told = [f"{checked.source}: {checked.usable} of {checked.rows} rows can be used, {checked.windows} windows"]
    told += [f"  {name}: {spread}" for name, spread in checked.spread.items()]
    told += [f"  bucket {shape}: {count}" for shape, count in checked.shapes.items()]
    notes = (
        (checked.left_out, "rows without a file are left out"),
        (
            checked.hurried,
            "clips are too short for the stride: their frames are spread over them, and motion is faster",
        ),
        (checked.repeated, "clips have fewer frames a second than are wanted: some come twice"),
        (checked.sided, "clips say left or right, and are never mirrored"),
    )
    told += [f"  {count} {what}" for count, what in notes if count]
    for why, count in Counter(_kind(wrong.reason) for wrong in checked.rejected).most_common(8):
        first = next(wrong for wrong in checked.rejected if _kind(wrong.reason) == why)
        told.append(f"  rejected {count}: {first.reason} ({first.key})")
    return told


def _kind(why: str) -> str:
    """Reasons that differ in numbers and names only are one."""
    return " ".join(word for word in why.split() if word.isalpha())[:40]
