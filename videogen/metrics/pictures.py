"""The pictures of a report: shares with their intervals, and the first clips with their verdicts."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen.clip import Clip, contact_sheet
from videogen.files import replacing
from videogen.metrics.journal import Record
from videogen.metrics.text_to_video import Row, Table

if TYPE_CHECKING:
    from PIL.Image import Image

_COLOURS = ("#5b8fd0", "#7a7a7a", "#c07f1d")
_OFFSETS = (-0.12, 0.2, 0.36)
_LIMIT = 450 * 1024  # bytes of a sheet: pictures of the repository are to stay small
_PALETTES = (256, 96, 32)  # colours; clips of the world fit the first, noise only the others


def plot(path: Path, sources: Sequence[str], tables: Sequence[tuple[Table, Sequence[Row]]]) -> bool:
    """Write a panel for each table: bars for the first source, points for the others, with 95 % intervals.

    Returns False where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # no pyplot: needs no display and leaves no state
    except ImportError:
        return False
    columns = min(2, len(tables))
    lines = -(-len(tables) // columns)
    longest = max(len(rows) for _, rows in tables)
    figure = Figure(figsize=(5.2 * columns, 0.8 + lines * (0.5 + 0.27 * longest)), dpi=110, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel, (table, rows) in zip(panels, tables):
        _panel(panel, table, rows, sources)
    for panel in panels[len(tables) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.supxlabel("share of clips that are right, with 95 % intervals", fontsize=9)
    with replacing(path) as beside:
        figure.savefig(beside, metadata={"Software": None})
    return True


def _panel(panel: Any, table: Table, rows: Sequence[Row], sources: Sequence[str]) -> None:
    for place, source in enumerate(sources):
        found = [(at, row.shares[source]) for at, row in enumerate(rows) if source in row.shares]
        found = [(at, share) for at, share in found if share.of]
        values = [share.value for _, share in found]
        # The interval holds the share; rounding must not make an error bar negative.
        low = [max(0.0, share.value - share.interval[0]) for _, share in found]
        high = [max(0.0, share.interval[1] - share.value) for _, share in found]
        heights = [at + _OFFSETS[place % len(_OFFSETS)] for at, _ in found]
        colour = _COLOURS[place % len(_COLOURS)]
        if place == 0:
            panel.barh(heights, values, 0.4, color=colour, label=source)
            panel.errorbar(values, heights, xerr=(low, high), fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
        else:
            panel.errorbar(values, heights, xerr=(low, high), fmt="o", color=colour, markersize=3, label=source)
    targets = [(at, row.target) for at, row in enumerate(rows) if row.target is not None]
    if targets:
        ends = ([at - 0.45 for at, _ in targets], [at + 0.45 for at, _ in targets])
        panel.vlines([target for _, target in targets], *ends, color="black", linewidth=2, label="target")
    panel.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    panel.tick_params(axis="x", labelsize=8)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xlim(0, 1.02)
    panel.set_title(table.title, fontsize=9, loc="left")
    panel.spines[["top", "right"]].set_visible(False)


def sheet(path: Path, clips: Sequence[Clip], labels: Sequence[str], *, columns: int = 8) -> None:
    """Write a contact sheet, a labelled row for each clip."""
    with replacing(path) as beside:
        beside.write_bytes(packed(contact_sheet(clips, labels, columns=columns, width=96)))


def packed(picture: Image) -> bytes:
    """A picture as a png of few colours, as many as its size allows.

    The palette covers the colours that are there, however few pixels have them: the usual one, which halves the most
    frequent, gives a small cyan triangle the mean of its neighbours.
    """
    from PIL.Image import Quantize

    settled = picture.width * picture.height // 8  # k-means ends where fewer pixels change; to its end it takes minutes
    for colours in _PALETTES:
        out = io.BytesIO()
        picture.quantize(colours, Quantize.MAXCOVERAGE, kmeans=settled).save(out, "PNG", optimize=True)
        if out.tell() <= _LIMIT:
            break
    return out.getvalue()


def verdict(record: Record) -> str:
    """The prompt, and `right` or what is wrong."""
    wrong = [name for name, fine in record.agrees.items() if not fine]
    told = f"wrong {', '.join(wrong)}" if wrong else "right"
    return f"{textwrap.shorten(record.prompt, 100)}: {told}"
