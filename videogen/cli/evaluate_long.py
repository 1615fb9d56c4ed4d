"""`videogen evaluate long`: what FreeInit, windows and FreeNoise do to clips of the shapes world."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from videogen.metrics.paired import Estimate
    from videogen.metrics.shares import Share
    from videogen.metrics.ways import Figures

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
    model: Annotated[
        str, typer.Option(help="`shapes` (the miniature), a model folder, a hub id or a file.")
    ] = "shapes",
    motion: Annotated[str | None, typer.Option(help="Motion module: a file or a folder.")] = None,
    count: Annotated[int, typer.Option(min=2, help="Unseen prompts and seeds of one flat object.")] = 24,
    times: Annotated[int, typer.Option(min=2, help="Long clips are so many times as long as the model's own.")] = 3,
    frames: Annotated[int, typer.Option(min=2, help="Frames of the model's own clips.")] = 16,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps; the model's own advice by default.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; the model's own by default.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other prompts.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of the measured clips; the same command continues there.")] = Path(
        "out/evaluate-long"
    ),
    report: Annotated[
        Path | None, typer.Option(help="FILE.md whose section is written, with FILE.json and a picture beside it.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Make clips as they come, with FreeInit, in windows and with FreeNoise, and measure how they hold together.

    It can be stopped at any time: the same command goes on where it was.
    """
    options = dict(locals())
    from tqdm.auto import tqdm

    from videogen import recipe
    from videogen.cli.evaluate import load
    from videogen.clip import Clip
    from videogen.metrics import document, long_clips, pictures, ways
    from videogen.metrics.trials import Plan, hashes
    from videogen.video import read, write

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
    wanted = [(way, number) for number in range(count) for way in long_clips.WAYS]
    with tqdm(total=len(wanted), initial=len(rows.rows.keys() & set(wanted)), unit="clip", disable=quiet) as bar:
        for name, number in wanted:
            if (name, number) in rows.rows:
                continue
            row, clip = long_clips.measured(pipe, long_clips.WAYS[name], plan.trial(("test", number)), settings)
            if number < SHOWN:
                write(_shown(out, name, number), Clip(clip), overwrite=True)
            rows.append(row)
            bar.update()

    found = ways.figures(long_clips.WAYS.values(), rows.rows, count)
    command = document.command_line(["videogen", "evaluate", "long"], long, options, silent=("out", "quiet"))
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
