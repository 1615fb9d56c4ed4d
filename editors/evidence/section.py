"""The section of the report on editing: tables in Markdown, and the same figures as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from editors.evidence.figures import Figures, Target
from editors.evidence.methods import Method
from editors.evidence.runs import Row
from editors.evidence.trials import FROM_TEXT, RECONSTRUCTION
from videogen.metrics import document
from videogen.metrics.paired import Estimate
from videogen.metrics.shares import Share

KEY = "editing"
BEGIN, END = "<!-- editing: made by `videogen evaluate editing` -->", "<!-- editing: end -->"
_STAYED = ("position", "motion", "size", "colour", "shape", "style", "background", "count", "other")


@dataclass(frozen=True)
class Results:
    """All that the section says.

    figures  by method
    bounds   by edit: rows of the source and of the true edit, both after the VAE
    lines    sentences about models and settings
    notes    settings and versions as plain JSON values
    pictures by method: names in the folder `pictures` beside the report
    """

    command: str
    table: Mapping[str, Method]
    figures: Mapping[str, Sequence[Figures]]
    targets: Sequence[Target]
    bounds: Mapping[str, tuple[Sequence[Row], Sequence[Row]]]
    lines: Sequence[str]
    notes: Mapping[str, Any]
    pictures: Mapping[str, str]


def to_dict(results: Results) -> dict[str, Any]:
    """Plain JSON values."""
    return {
        "command": results.command,
        **results.notes,
        "targets": [target.to_dict() for target in results.targets],
        "methods": {name: {one.edit: one.to_dict() for one in some} for name, some in results.figures.items()},
        "bounds": {edit: _bound_values(*rows) for edit, rows in results.bounds.items()},
    }


def markdown(results: Results) -> str:
    """The section, with its marks."""
    made_by = f"Made by `{results.command}`."
    parts = [BEGIN, "## Editing on the shapes world", *results.lines]
    if results.targets:
        parts += ["### Editing: targets", document.table(["method", "what", "figure", "target", "clips", "verdict"], [
            [results.table[t.method].title, t.what, shown(t.figure), t.wanted, _clips(t.of, t.needed), t.verdict] for t in results.targets
        ]), made_by]  # fmt: skip
    for name, some in results.figures.items():
        edits = [one for one in some if one.edit not in (RECONSTRUCTION, FROM_TEXT)]
        parts += [f"### {results.table[name].title}"] if edits or name in results.pictures else []
        if edits:
            parts += [_beside(edits), made_by, _what_stayed(edits), made_by]
        if name in results.pictures:
            parts += [
                f"![{results.table[name].title}: source, edit, plain, mask](pictures/{results.pictures[name]})",
                made_by,
            ]
    faithful = {name: one for name, some in results.figures.items() for one in some if one.edit == RECONSTRUCTION}
    if faithful:
        parts += ["### Reconstruction: the source prompt at guidance 7.5", _reconstruction(results, faithful), made_by]
    told = {name: one for name, some in results.figures.items() for one in some if one.edit == FROM_TEXT}
    if told:
        parts += ["### Clips from text", _from_text(results, told), made_by]
    if results.bounds:
        parts += ["### Editing: what the measuring program and the VAE allow", _bounds(results), made_by]
    return "\n\n".join([*parts, END])


def summary(results: Results) -> list[str]:
    """The targets, one line each, for a terminal."""
    return [
        f"{results.table[t.method].title}: {t.what} {shown(t.figure)}, target {t.wanted}, {t.verdict}" for t in results.targets
    ]  # fmt: skip


def shown(figure: Share | Estimate | tuple[Estimate, Estimate] | None, places: int = 3) -> str:
    """A figure with its interval in brackets; empty for none."""
    if figure is None:
        return ""
    if isinstance(figure, tuple):
        return "; ".join(shown(one, places) for one in figure)
    if not figure.of:
        return "no clips"
    low, high = figure.interval if isinstance(figure, Share) else (figure.low, figure.high)
    return f"{figure.value:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


def _of(mean: Estimate, clips: int, places: int) -> str:
    """A mean, and over how many of the clips where some have no value; empty where none has."""
    if not mean.of:
        return ""
    return shown(mean, places) + ("" if mean.of >= clips else f" of {mean.of}")


def _beside(edits: Sequence[Figures]) -> str:
    heads = [
        "edit",
        "clips",
        "done",
        "kept",
        "plain: done",
        "plain: kept",
        "done, more",
        "kept, more",
        "better than plain",
    ]
    return document.table(heads, [
        [one.edit, _clips(one.of, one.asked), shown(one.done), shown(one.kept), shown(one.plain_done), shown(one.plain_kept),
         shown(one.done_more), shown(one.kept_more), {True: "yes", False: "no", None: ""}[one.better]]
        for one in edits
    ])  # fmt: skip


def _what_stayed(edits: Sequence[Figures]) -> str:
    heads = ["edit", *_STAYED, "change elsewhere", "of the VAE alone", "centre off by, px", "seconds a clip"]
    return document.table(heads, [
        [one.edit, *(f"{one.stayed[name].value:.3f}" if name in one.stayed else "" for name in _STAYED),
         _of(one.change, one.of, 4), _of(one.change_of_vae, one.of, 4), _of(one.distance, one.of, 2), f"{one.seconds.value:.0f}"]
        for one in edits
    ])  # fmt: skip


def _reconstruction(results: Results, found: Mapping[str, Figures]) -> str:
    return document.table(["method", "clips", "PSNR, dB", "plain inversion", "gain", "kept"], [
        [results.table[name].title, _clips(one.of, one.asked), _of(one.psnr, one.of, 2), _of(one.plain_psnr, one.of, 2),
         _of(one.gain, one.of, 2), shown(one.kept)]
        for name, one in found.items()
    ])  # fmt: skip


def _from_text(results: Results, found: Mapping[str, Figures]) -> str:
    heads = [
        "method",
        "clips",
        "motion as asked",
        "one colour in all frames",
        "colour as asked",
        "frame by frame: motion",
        "more",
    ]
    return document.table(heads, [
        [results.table[name].title, _clips(one.of, one.asked), shown(one.done), shown(one.stayed["one colour"]), shown(one.stayed["colour"]),
         shown(one.plain_done), shown(one.done_more)]
        for name, one in found.items()
    ])  # fmt: skip


def _bounds(results: Results) -> str:
    lines = []
    for edit, (source, truth) in results.bounds.items():
        done, kept = [_done(rows) for rows in (source, truth)], [_kept(rows) for rows in (source, truth)]
        lines.append([edit, str(len(truth)), shown(done[0]), shown(kept[0]), shown(done[1]), shown(kept[1])])
    return document.table(
        ["edit", "clips", "source: done", "source: kept", "true edit: done", "true edit: kept"], lines
    )


def _done(rows: Sequence[Row]) -> Share | None:
    """None without rows, and where nothing was asked for."""
    return Share(sum(bool(r.done) for r in rows), len(rows)) if rows and rows[0].done is not None else None


def _kept(rows: Sequence[Row]) -> Share | None:
    return Share(sum(r.kept for r in rows), len(rows)) if rows else None


def _bound_values(source: Sequence[Row], truth: Sequence[Row]) -> dict[str, Any]:
    return {
        "source done": Share(sum(bool(r.done) for r in source), len(source)).to_dict(),
        "source kept": Share(sum(r.kept for r in source), len(source)).to_dict(),
        "truth done": Share(sum(bool(r.done) for r in truth), len(truth)).to_dict(),
        "truth kept": Share(sum(r.kept for r in truth), len(truth)).to_dict(),
    }


def _clips(number: int, asked: int) -> str:
    return str(number) if number >= asked else f"{number} of {asked}"
