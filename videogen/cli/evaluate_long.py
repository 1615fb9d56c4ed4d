"""`videogen evaluate long`: what FreeInit, windows and FreeNoise do to clips of the shapes world."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videogen import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from videogen.metrics.long_clips import Settings
    from videogen.metrics.paired import Estimate
    from videogen.metrics.shares import Share
    from videogen.metrics.trials import Plan
    from videogen.metrics.ways import Figures, Rows
    from videogen.pipeline import Pipeline

KEY = "long_clips"
BEGIN, END = "<!-- long clips: made by `videogen evaluate long` -->", "<!-- long clips: end -->"
SHEET = f"{KEY}.png"
_EXPLAINED = """\
Model {model}, {count} unseen prompts of one flat object on a plain background, {steps} steps, guidance {guidance:g}. Own clips have {frames} frames,
long ones {times} times as many. Brackets hold the difference to the way it is held against, on the same prompts and seeds, with its 95 % interval.
Jump: the largest way of the object's centre between neighbouring frames, beyond the median one. Flicker: mean absolute difference of neighbouring
frames, which motion causes too."""
SHOWN = 2  # prompts of which all clips are on the sheet


def long(
    model: Annotated[str, options.MEASURED_MODEL] = "shapes",
    motion: Annotated[str | None, typer.Option(help="Motion module: a file or a folder.")] = None,
    count: Annotated[int, typer.Option(min=2, help="Unseen prompts and seeds of one flat object.")] = 24,
    times: Annotated[int, typer.Option(min=2, help="Long clips are so many times as long as the model's own.")] = 3,
    frames: Annotated[int, typer.Option(min=2, help="Frames of the model's own clips.")] = 16,
    steps: Annotated[int | None, options.MEASURED_STEPS] = None,
    guidance: Annotated[float | None, options.MEASURED_GUIDANCE] = None,
    seed: Annotated[int, options.OTHER_SEED] = 0,
    dtype: Annotated[str, options.DTYPE] = "float32",
    device: Annotated[str, options.DEVICE] = "cpu",
    out: Annotated[Path, options.MEASURED_CLIPS] = Path("out/evaluate-long"),
    report: Annotated[
        Path | None, typer.Option(help="FILE.md whose section is written, with FILE.json and a picture beside it.")
    ] = None,
    quiet: Annotated[bool, options.QUIET_BAR] = False,
) -> None:
    """Make clips as they come, with FreeInit, in windows and with FreeNoise, and measure how they hold together.

    It can be stopped at any time: the same command goes on where it was.
    """
    chosen = dict(locals())
    from videogen import recipe
    from videogen.cli.evaluate import load
    from videogen.metrics import document, long_clips, pictures, ways
    from videogen.metrics.trials import Plan, hashes
    from videogen.video import read

    target = report if report is not None else out / "results.md"
    if report is not None:
        document.check(report)
    pipe = load(model, motion, "ddim", dtype, device)
    settings = long_clips.Settings(frames, times, steps or pipe.steps, pipe.guidance if guidance is None else guidance)
    notes = {
        "seed": seed, "frames": frames, "times": times, "steps": settings.steps, "guidance": settings.guidance,
        "dtype": dtype, "device": device, **hashes(model, motion),
    }  # fmt: skip
    rows, plan = ways.Rows(out, notes), Plan(count, 0, seed, simple=True)
    _measure(pipe, rows, plan, settings, quiet)

    found = ways.figures(long_clips.WAYS.values(), rows.rows, count)
    command = document.command_line(["videogen", "evaluate", "long"], long, chosen, silent=("out", "quiet"))
    values = {
        "command": command, "settings": {"count": count, **notes}, "versions": recipe.versions(),
        "ways": {one.way.name: one.to_dict() for one in found},
    }  # fmt: skip
    folder = target.parent / "pictures"
    folder.mkdir(exist_ok=True)
    shown = [(name, number) for number in range(min(SHOWN, count)) for name in long_clips.WAYS]
    texts = [f"{long_clips.WAYS[name].title}: {rows.rows[name, number].prompt}" for name, number in shown]
    pictures.sheet(folder / SHEET, [read(_shown(out, *key)) for key in shown], texts)
    for path in [*document.put(target, KEY, _markdown(found, notes, count, command), values), folder / SHEET]:
        typer.echo(str(path))


def _measure(pipe: "Pipeline", rows: "Rows", plan: "Plan", settings: "Settings", quiet: bool) -> None:
    """Make and measure the clips that are not there yet."""
    from tqdm.auto import tqdm

    from videogen.clip import Clip
    from videogen.metrics import long_clips
    from videogen.video import write

    wanted = [(way, number) for number in range(plan.count) for way in long_clips.WAYS]
    with tqdm(total=len(wanted), initial=len(rows.rows.keys() & set(wanted)), unit="clip", disable=quiet) as bar:
        for name, number in wanted:
            if (name, number) in rows.rows:
                continue
            row, clip = long_clips.measured(pipe, long_clips.WAYS[name], plan.trial(("test", number)), settings)
            if number < SHOWN:
                write(_shown(rows.folder, name, number), Clip(clip), overwrite=True)
            rows.append(row)
            bar.update()


def _shown(out: Path, name: str, number: int) -> Path:
    return out / "shown" / f"{name}-{number:04d}.webp"


def _markdown(found: "Sequence[Figures]", notes: dict[str, object], count: int, command: str) -> str:
    from videogen.metrics import document
    from videogen.metrics.long_clips import MEANS, SHARES, WAYS

    heads = ["way", "against", *SHARES, "jump, px", "flicker, %"]
    table = [
        [
            one.way.title,
            WAYS[one.way.against].title if one.way.against else "",
            *(_share(*one.shares[name]) for name in SHARES),
            *(_mean(*one.means[name]) for name in MEANS),
        ]
        for one in found
    ]
    return "\n\n".join([
        BEGIN,
        "## What holds clips together",
        _EXPLAINED.format(count=count, **notes),
        document.table(heads, table),
        f"Made by `{command}`.",
        f"![All ways, the same prompts and seeds](pictures/{SHEET})",
        END,
    ])  # fmt: skip


def _share(value: "Share", change: "Estimate | None") -> str:
    return f"{value.value:.3f}{_change(change, 3)}"


def _mean(value: "Estimate", change: "Estimate | None") -> str:
    return f"{value.value:.2f}{_change(change, 2)}"


def _change(change: "Estimate | None", digits: int) -> str:
    if change is None:
        return ""
    return f" [{change.value:+.{digits}f}: {change.low:+.{digits}f}, {change.high:+.{digits}f}]"
