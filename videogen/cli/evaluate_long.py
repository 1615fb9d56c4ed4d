"""`videogen evaluate long`: what FreeInit, windows and FreeNoise do to clips of the shapes world."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videogen import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from videogen.metrics.lines import Portion
    from videogen.metrics.long_clips import Settings
    from videogen.metrics.trials import Plan
    from videogen.metrics.ways import Figures, Rows
    from videogen.pipeline import Pipeline

KEY = "long_clips"
BEGIN, END = "<!-- long clips: made by `videogen evaluate long` -->", "<!-- long clips: end -->"
SHEET = f"{KEY}.png"
_EXPLAINED = """\
Model {model}, {count} prompts of unseen scenes of one flat object on a plain background, {steps} steps, guidance {guidance:g}. Own clips have
{frames} frames, long ones {times} times as many. Brackets hold 95 % intervals; behind them stands the difference to the way it is held
against, on the same prompts and seeds. Jump: the largest way of the object's centre between neighbouring frames, beyond the median one.
Flicker: mean absolute difference of neighbouring frames, which motion causes too."""
_NOTHING_KEPT = """\
This model's path ends in nothing but noise (zero terminal SNR). There FreeInit keeps nothing of the clip that it noises again, only the low
frequencies of the noise that the clip came from, so what it is made for cannot happen here."""


def long(
    model: Annotated[str, options.MEASURED_MODEL] = "shapes",
    motion: Annotated[str | None, typer.Option(help="Motion module: a file or a folder.")] = None,
    count: Annotated[
        int, typer.Option(min=2, help="Prompts of unseen scenes of one flat object, each with its seed.")
    ] = 24,
    times: Annotated[int, typer.Option(min=2, help="Long clips are so many times as long as the model's own.")] = 3,
    frames: Annotated[int, typer.Option(min=2, help="Frames of the model's own clips.")] = 16,
    steps: Annotated[int | None, options.MEASURED_STEPS] = None,
    guidance: Annotated[float | None, options.MEASURED_GUIDANCE] = None,
    seed: Annotated[int, options.OTHER_SEED] = 0,
    dtype: Annotated[str, options.DTYPE] = "float32",
    device: Annotated[str, options.DEVICE] = "cpu",
    out: Annotated[Path, options.MEASURED_CLIPS] = Path("out/evaluate-long"),
    portion: Annotated[str | None, options.PORTION] = None,
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
    from videogen.metrics import document, long_clips, ways, ways_section
    from videogen.metrics.lines import parse_portion
    from videogen.metrics.trials import Plan, hashes

    mine = parse_portion(portion)
    target = report if report is not None else out / "results.md"
    if report is not None:
        document.check(report)
    pipe = load(model, motion, "ddim", dtype, device)
    settings = long_clips.Settings(frames, times, steps or pipe.steps, pipe.guidance if guidance is None else guidance)
    _check(pipe, settings)
    kept = float(pipe.denoiser.path.alpha(pipe.denoiser.path.steps - 1)) > 0
    notes = {
        "seed": seed, "frames": frames, "times": times, "steps": settings.steps, "guidance": settings.guidance,
        "dtype": dtype, "device": device, **hashes(model, motion),
    }  # fmt: skip
    rows, plan = ways.Rows(out, notes), Plan(count, 0, seed, simple=True)
    _measure(pipe, rows, plan, settings, mine, quiet)
    if portion is not None:
        return
    found = ways.figures(long_clips.WAYS.values(), rows.rows, count)
    command = document.command_line(["videogen", "evaluate", "long"], long, chosen, silent=("out", "portion", "quiet"))
    values = {
        "command": command, "settings": {"count": count, **notes}, "versions": recipe.versions(),
        "ways": {one.way.name: one.to_dict() for one in found},
    }  # fmt: skip
    sheet = ways_section.sheet(target.parent / "pictures" / SHEET, out, [*long_clips.WAYS.values()], rows.rows, count)
    for path in [*document.put(target, KEY, _markdown(found, notes, count, command, kept), values), sheet]:
        typer.echo(str(path))


def _check(pipe: "Pipeline", settings: "Settings") -> None:
    """Refuse what the model refuses before a folder is claimed, which would hold the corrected command to the mistake."""
    for frames, free_noise in ((settings.frames, False), (settings.frames * settings.times, True)):
        pipe.plan(
            num_frames=frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            free_noise=free_noise,
        )


def _measure(
    pipe: "Pipeline", rows: "Rows", plan: "Plan", settings: "Settings", portion: "Portion", quiet: bool
) -> None:
    """Make and measure the clips that are not there yet."""
    from tqdm.auto import tqdm

    from videogen.metrics import long_clips, ways_section

    wanted = [(way, number) for number in range(plan.count) if number in portion for way in long_clips.WAYS]
    with tqdm(total=len(wanted), initial=len(rows.rows.keys() & set(wanted)), unit="clip", disable=quiet) as bar:
        for name, number in wanted:
            if (name, number) in rows.rows:
                continue
            row, clip = long_clips.measured(pipe, long_clips.WAYS[name], plan.trial(("test", number)), settings)
            ways_section.keep(rows.folder, row, clip)
            rows.append(row)
            bar.update()


def _markdown(found: "Sequence[Figures]", notes: dict[str, object], count: int, command: str, kept: bool) -> str:
    from videogen.metrics import ways_section

    return "\n\n".join([
        BEGIN,
        "## What holds clips together",
        _EXPLAINED.format(count=count, **notes),
        *([] if kept else [_NOTHING_KEPT]),
        ways_section.table(found),
        f"Made by `{command}`.",
        f"![All ways, the same prompts and seeds](pictures/{SHEET})",
        END,
    ])  # fmt: skip
