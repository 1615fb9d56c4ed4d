"""What is found out about each clip once: how long it is, how fast, how large. Kept beside, so that the next run need not open every file."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from videogen.data.opening import Unread, opened
from videogen.data.rows import Place, Row, identity, stamp
from videogen.data.windows import Extent
from videogen.errors import InputError
from videogen.files import replacing

T = TypeVar("T")
U = TypeVar("U")
FILE = "facts.jsonl"
NOTHING = Extent(0, Fraction(1))


@dataclass(frozen=True)
class Facts:
    """A clip's extent, and its width and height as it is shown; or what is wrong with it, and whether that will stay so."""

    extent: Extent = NOTHING
    size: tuple[int, int] = (0, 0)
    wrong: str | None = None
    lasting: bool = True


def look(place: Place) -> Facts:
    """Open a clip and decode its first frame."""
    try:
        with opened(place) as clip:
            return Facts(clip.extent, clip.size())
    except InputError as problem:
        return Facts(wrong=str(problem), lasting=not isinstance(problem, Unread))


def surveyed(rows: Sequence[Row], store: Path, workers: int) -> Iterator[Facts]:
    """The facts of every row, in their order; those that `store` lacks, or has of a file that has changed since, are found and put there.

    What was found is put there too when whoever takes them stops.
    """
    known = _known(store / FILE)
    new: dict[str, tuple[str, Facts]] = {}

    def facts(row: Row) -> tuple[str, str, Facts]:
        name = identity(row.place)
        try:
            now = stamp(row.place)
        except InputError:
            return name, "", Facts(wrong="there is no file")
        old = known.get(name)
        return name, now, old[1] if old and old[0] == now else look(row.place)

    try:
        for name, now, found in ordered(facts, rows, workers):
            if now and found.lasting and known.get(name) != (now, found):
                new[name] = now, found
            yield found
    finally:
        if new:
            _write(store, known | new)


def ordered(
    function: Callable[[T], U], items: Sequence[T] | Iterator[T], workers: int, depth: int | None = None
) -> Iterator[U]:
    """The function of each item, in their order, by threads that are at most `depth` items (four a thread) ahead of who takes them."""
    threads = ThreadPoolExecutor(workers)
    waiting: deque[Future[U]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(function, item))
            if len(waiting) >= (depth or 4 * workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def _known(path: Path) -> dict[str, tuple[str, Facts]]:
    known = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                name, now, count, rate, size, wrong = json.loads(line)
                known[name] = now, Facts(Extent(count, Fraction(rate)), tuple(size), wrong)
            except (ValueError, TypeError):
                continue  # a line that says nothing is found out anew
    return known


def _write(store: Path, known: dict[str, tuple[str, Facts]]) -> None:
    try:
        store.mkdir(parents=True, exist_ok=True)
        with replacing(store / FILE) as beside, beside.open("w", encoding="utf-8") as file:
            for name, (now, found) in known.items():
                extent = found.extent
                line = [name, now, extent.count, str(extent.rate), found.size, found.wrong]
                file.write(json.dumps(line, ensure_ascii=True) + "\n")
    except OSError as problem:
        raise InputError(f"{store} cannot be written: {problem.strerror}") from problem
