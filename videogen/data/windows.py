"""Which frames of a clip: windows of n frames, as frame numbers on the clip's own even grid (number i stands for the instant i / rate).

A clip too short for the stride gives its frames spread evenly over it, as AnimateDiff's training reads WebVid (Guo et al. 2023); or is rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from videogen.data.settings import Data
from videogen.errors import InputError

STRIDE = 4  # AnimateDiff's


@dataclass(frozen=True)
class Extent:
    """How many frames a clip has on its even grid, and how many of them a second; 1 and 0 for a picture."""

    count: int
    rate: Fraction


def frames_for(data: Data, extent: Extent) -> int:
    """The largest of the wanted numbers of frames that a clip is long enough for, without being spread where that can be.

    Raises InputError where it is too short for the smallest.
    """
    whole = [n for n in data.frames if span(data, extent, n)[-1] < extent.count]
    if whole:
        return max(whole)
    spread = [n for n in data.frames if n <= extent.count]
    if data.short == "spread" and spread and extent.count > 1:
        return max(spread)
    least = min(data.frames)
    needed = max(span(data, extent, least)[-1] + 1, least) if data.short == "reject" else least
    raise InputError(
        f"it has {extent.count} frame{'s' * (extent.count != 1)}, {needed} are needed for a window of {least}"
    )


def check_frames(data: Data, extent: Extent, count: int) -> None:
    """Raise InputError where a clip is not of those that windows of `count` frames are drawn from, too short for one."""
    if frames_for(data, extent) != count:
        raise InputError(f"it has changed since it was put among clips of {count} frames")


def span(data: Data, extent: Extent, count: int) -> list[int]:
    """The frame numbers of a window that begins at frame 0."""
    if data.window == "uniform":
        return list(range(count))
    if data.fps is None:
        return [k * (data.stride or STRIDE) for k in range(count)]
    return [int(k * extent.rate / data.fps) for k in range(count)]


def spread(count: int, total: int) -> list[int]:
    """`count` numbers evenly from the first to the last of `total` frames; the middle one where it is one."""
    if count == 1:
        return [(total - 1) // 2]
    return [k * (total - 1) // (count - 1) for k in range(count)]


def starts(data: Data, extent: Extent, count: int) -> range | list[int]:
    """Where windows of `count` frames may begin; one place where the frames are spread over the clip."""
    first = span(data, extent, count)
    room = extent.count - first[-1]  # so many places
    if data.window in ("head", "uniform") or room <= 0:
        return [0]
    if data.window == "all":
        return range(0, room, first[-1] + 1)
    if data.starts is None or data.starts >= room:
        return range(room)
    return spread(data.starts, room)


def window(data: Data, extent: Extent, count: int, which: int) -> list[int]:
    """The frame numbers of the window at the `which`-th of `starts`."""
    first = span(data, extent, count)
    if data.window == "uniform" or first[-1] >= extent.count:
        return spread(count, extent.count)
    begin = starts(data, extent, count)[which]
    return [begin + number for number in first]


def possible(data: Data, extent: Extent, count: int) -> list[int]:
    """Every frame number that any window of the clip may ask for."""
    every = range(len(starts(data, extent, count)))
    return sorted({number for which in every for number in window(data, extent, count, which)})
