"""What a report says of some ways to make clips: a table of their figures, and a sheet of the first prompts' clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from videogen import video
from videogen.clip import Clip
from videogen.metrics import document, pictures
from videogen.metrics.paired import Estimate
from videogen.metrics.shares import Share
from videogen.metrics.ways import Figures, Row, Way

SHOWN = 2  # prompts of which all clips are on the sheet
Targets = Mapping[tuple[str, str], float]
"""(way, share) -> the least, or with a minus sign the greatest share that is aimed at."""


def keep(folder: Path, row: Row, clip: Tensor) -> None:
    """Write a clip `f 3 H W` into the folder of a run if the sheet will show it."""
    if row.number < SHOWN:
        video.write(_place(folder, row.way, row.number), Clip(clip), overwrite=True)


def sheet(path: Path, folder: Path, ways: Sequence[Way], rows: Mapping[tuple[str, int], Row], count: int) -> Path:
    """Draw the sheet of the clips that were kept in the folder of a run, whose folder is made if need be; returns `path`."""
    path.parent.mkdir(exist_ok=True)
    shown = [(way, number) for number in range(min(SHOWN, count)) for way in ways]
    labels = [f"{way.title}: {rows[way.name, number].prompt}" for way, number in shown]
    pictures.sheet(path, [video.read(_place(folder, way.name, number)) for way, number in shown], labels)
    return path


def table(found: Sequence[Figures], targets: Targets | None = None) -> str:
    """A line for each way: shares and means with their intervals, and the differences to the way it is held against."""
    titles = {one.way.name: one.way.title for one in found}
    shares = list(dict.fromkeys(name for one in found for name in one.shares))
    means = list(dict.fromkeys(name for one in found for name in one.means))
    lines = [
        [
            one.way.title,
            titles[one.way.against] if one.way.against else "",
            *(
                _share(*one.shares[name], (targets or {}).get((one.way.name, name))) if name in one.shares else ""
                for name in shares
            ),
            *(_mean(*one.means[name]) if name in one.means else "" for name in means),
        ]
        for one in found
    ]
    return document.table(["way", "against", *shares, *means], lines)


def _place(folder: Path, way: str, number: int) -> Path:
    return folder / "shown" / f"{way.replace('/', '-')}-{number:04d}.webp"


def _share(value: Share, change: Estimate | None, target: float | None) -> str:
    low, high = value.interval
    text = f"{value.value:.3f} [{low:.3f}, {high:.3f}]{_change(change, 3)}"
    if target is None:
        return text
    met = value.value >= target if target > 0 else value.value < -target
    return f"{text}; {'at least' if target > 0 else 'under'} {abs(target):.2f}: {'met' if met else 'missed'}"


def _mean(value: Estimate, change: Estimate | None) -> str:
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]{_change(change, 2)}"


def _change(change: Estimate | None, digits: int) -> str:
    if change is None:
        return ""
    return f"; {change.value:+.{digits}f} [{change.low:+.{digits}f}, {change.high:+.{digits}f}]"
