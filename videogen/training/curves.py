"""Loss curves of runs as one picture: `python -m videogen.training.curves RUN_FOLDER... -o curves.png`.

Needs matplotlib (videogen[plots]).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videogen.errors import InputError
from videogen.files import replacing


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl. Raises InputError where there is none."""
    path = folder / "log.jsonl"
    if not path.is_file():
        raise InputError(f"{folder} has no log.jsonl; give the folder of a training run")
    return [json.loads(line) for line in path.read_text().splitlines()]


LEGEND = 13  # lines that fit beside a panel, one below the other
COLOURS = 10  # of matplotlib's cycle; what comes after them has another style
STYLES = ("-", "--", ":")


def series(lines: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """name -> (minutes, values), for every loss and every judged figure."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for line in lines:
        losses = {key: value for key, value in line.items() if key.endswith(".loss")}
        for name, value in (losses | line.get("judged", {})).items():
            if value is None:  # was not finite
                continue
            minutes, values = found.setdefault(name, ([], []))
            minutes.append(line["seconds"] / 60)
            values.append(value)
    return found


def smoothed(values: Sequence[float]) -> list[float]:
    """A running mean that forgets: each value counts for a tenth, or more where there are few."""
    share = min(0.5, max(0.1, 5 / len(values))) if values else 1.0
    out: list[float] = []
    for value in values:
        out.append(value if not out else (1 - share) * out[-1] + share * value)
    return out


def draw(folders: Sequence[Path], picture: Path) -> None:
    """One row a run: its losses on the left (logarithmic), its judged figures on the right."""
    try:
        from matplotlib.figure import Figure
    except ImportError as problem:
        raise InputError("loss curves need matplotlib: pip install 'videogen[plots]'") from problem

    figure = Figure(figsize=(14, 2.6 * len(folders)), layout="constrained")
    panels = figure.subplots(len(folders), 2, squeeze=False)
    for folder, (left, right) in zip(folders, panels, strict=True):
        for name, (minutes, values) in series(read_log(folder)).items():
            if name.endswith(".loss"):
                left.plot(minutes, values, alpha=0.25, linewidth=0.6)
                left.plot(minutes, smoothed(values), label=name)
            else:
                style = STYLES[len(right.lines) // COLOURS % len(STYLES)]
                right.plot(minutes, values, marker=".", linestyle=style, label=name)
        left.set(title=folder.name, yscale="log", xlabel="minutes")
        right.set(title=f"{folder.name}, held out", xlabel="minutes")
        for panel in (left, right):
            panel.grid(alpha=0.3)
            if panel.lines:
                panel.legend(
                    fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + (len(panel.lines) - 1) // LEGEND
                )
    with replacing(picture) as beside:
        figure.savefig(beside, dpi=70)


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"))
    given = parser.parse_args()
    draw(given.folders, given.output)


if __name__ == "__main__":
    main()
