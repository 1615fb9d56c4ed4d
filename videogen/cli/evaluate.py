"""`videogen evaluate`: the figures of docs/results.md, measured on the shapes world."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videogen import options
from videogen.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from videogen.metrics.journal import Journal, Record
    from videogen.metrics.lines import Portion
    from videogen.metrics.report import Results
    from videogen.metrics.trials import Plan, Source
    from videogen.pipeline import Pipeline

MODEL, RENDERS, ROUND_TRIP = "model", "true renders", "after the VAE"
SHOWN = 8  # clips on the contact sheet


def evaluate(
    model: Annotated[str, options.MEASURED_MODEL] = "shapes",
    motion: Annotated[str | None, options.MOTION] = None,
    count: Annotated[int, typer.Option(min=1, help="Prompts of unseen scenes; every third has two objects.")] = 512,
    held_out: Annotated[
        int, typer.Option(min=0, help="Prompts with combinations that training never sees, reported apart.")
    ] = 128,
    simple: Annotated[
        bool, typer.Option("--simple", help="Only one flat object on a plain background, the first target.")
    ] = False,
    frames: Annotated[int, options.MEASURED_FRAMES] = 16,
    steps: Annotated[int | None, options.MEASURED_STEPS] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale, 1 is none; the model's own by default.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="As for `videogen generate`.")] = "ddim",
    seed: Annotated[int, options.OTHER_SEED] = 0,
    batch: Annotated[int, options.BATCH] = 8,
    compile: Annotated[bool, options.COMPILE] = False,
    dtype: Annotated[str, options.DTYPE] = "float32",
    device: Annotated[str, options.DEVICE] = "cpu",
    out: Annotated[Path, options.MEASURED_CLIPS] = Path("out/evaluate"),
    portion: Annotated[str | None, options.PORTION] = None,
    report: Annotated[Path | None, options.REPORT] = None,
    quiet: Annotated[bool, options.QUIET_BAR] = False,
) -> None:
    """Make clips from prompts of unseen scenes, read them back from their pixels, and report what is right.

    It can be stopped at any time: the same command goes on where it was. The same is measured on true renders, and on
    true renders after the model's VAE.
    """
    chosen = dict(locals())
    from videogen import recipe
    from videogen.metrics import document
    from videogen.metrics import report as reports
    from videogen.metrics import text_to_video as measuring
    from videogen.metrics.journal import Journal
    from videogen.metrics.lines import parse_portion
    from videogen.metrics.trials import Plan, hashes

    mine = parse_portion(portion)
    if report is not None:
        document.check(report)
    pipe = load(model, motion, sampler, dtype, device, compile)
    steps, guidance = steps or pipe.steps, pipe.guidance if guidance is None else guidance
    # What the model refuses shall leave no folder behind, which would then hold the corrected command to the mistake.
    pipe.plan(num_frames=frames, num_inference_steps=steps, guidance_scale=guidance, sampler=sampler)
    settings = {
        "seed": seed, "simple": simple, "frames": frames, "steps": steps, "guidance": guidance, "sampler": sampler,
        "compile": compile, "dtype": dtype, "device": device, **hashes(model, motion),
    }  # fmt: skip
    sources = sources_of(pipe, frames, steps, guidance, sampler)
    plan = Plan(count, held_out, seed, simple)
    journal = Journal(out, settings)
    measure_all(sources, plan, journal, batch, mine, quiet)
    if portion is not None:
        return
    records = {name: [journal.records[(name, *address)] for address in plan.addresses()] for name in sources}
    results = reports.Results(
        command=command_line(chosen),
        sources=list(sources),
        tables=measuring.figures(records),
        breakdown=measuring.breakdown(records, MODEL),
        lines=_lines(plan, model, motion, settings),
        notes={"settings": {"count": count, "held_out": held_out, **settings}, "versions": recipe.versions()},
    )
    publish(report if report is not None else out / "results.md", results, records[MODEL], journal)


def command_line(chosen: dict[str, Any]) -> str:
    """The command with these options: those that decide on the figures, as far as they are not the defaults."""
    from videogen.metrics.document import command_line as spelt

    return spelt(["videogen", "evaluate"], evaluate, chosen, silent=("batch", "out", "portion", "quiet"))


def load(model: str, motion: str | None, sampler: str, dtype: str, device: str, compile: bool = False) -> "Pipeline":
    """The pipeline. Raises InputError for what is missing, broken, or no sampler, dtype or device."""
    from videogen import generation
    from videogen.sampling import SAMPLERS

    if sampler not in SAMPLERS:
        raise InputError(f"the sampler {sampler!r} is not known; choose one of {', '.join(SAMPLERS)}")
    return generation.load(
        generation.Request("", model=model, motion=motion, compile=compile, dtype=dtype, device=device)
    )


def sources_of(pipe: "Pipeline", frames: int, steps: int, guidance: float, sampler: str) -> "dict[str, Source]":
    """What is measured, by name: the model, and what bounds it from above."""
    from videogen.metrics import trials

    return {
        MODEL: trials.generated(pipe, frames, steps, guidance, sampler),
        RENDERS: trials.true_renders(frames, pipe.default_size[0]),
        ROUND_TRIP: trials.round_trip(pipe, frames),
    }


def measure_all(
    sources: "dict[str, Source]", plan: "Plan", journal: "Journal", batch: int, portion: "Portion", quiet: bool
) -> None:
    """Fill the journal, the bounds first: they are quick, and show early if the measuring program is at fault."""
    from tqdm.auto import tqdm

    from videogen import video
    from videogen.clip import Clip
    from videogen.metrics import text_to_video as measuring

    blocks = portion.taken(plan.blocks(batch))
    wanted = {(name, *address) for name in sources for block in blocks for address in block}
    with tqdm(total=len(wanted), initial=len(wanted & journal.records.keys()), unit="clip", disable=quiet) as bar:

        def after(record: "Record", clip: "Tensor") -> None:
            if record.source == MODEL and record.split == "test" and record.number < SHOWN:
                video.write(journal.shown(record.split, record.number), Clip(clip), overwrite=True)
            bar.update()

        for name in reversed(sources):
            bar.set_description(name)
            measuring.run(sources[name], name, plan, journal, blocks=blocks, after=after)


def publish(target: Path, results: "Results", records: "Sequence[Record]", journal: "Journal") -> None:
    """Write the report, the figures and the pictures, and print what has a target; `records` are the model's."""
    from videogen import video
    from videogen.metrics import pictures
    from videogen.metrics import report as reports

    folder = target.parent / "pictures"
    folder.mkdir(exist_ok=True)
    made = []
    if pictures.plot(folder / reports.PLOT, results.sources, results.tables):
        made.append(reports.PLOT)
    else:
        typer.echo("no plot: matplotlib is not installed (pip install 'videogen[plots]')", err=True)
    first = [r for r in records if r.split == "test" and r.number < SHOWN]
    there = [r for r in first if journal.shown(r.split, r.number).exists()]
    if there:
        shown = [video.read(journal.shown(r.split, r.number)) for r in there]
        pictures.sheet(folder / reports.SHEET, shown, [pictures.verdict(r) for r in there])
        made.append(reports.SHEET)
    for line in reports.summary(results):
        typer.echo(line)
    for path in [*reports.write(target, results, made), *(folder / name for name in made)]:
        typer.echo(str(path))


def _lines(plan: "Plan", model: str, motion: str | None, settings: dict[str, Any]) -> list[str]:
    """What the report says before its tables."""
    from videogen.metrics.text_to_video import EVERYTHING

    compiled = ", compiled" if settings["compile"] else ""
    module = "" if motion is None else f", motion `{motion}` ({settings['motion']})"
    return [
        f"Model `{model}` ({settings['model']}){module}: {settings['frames']} frames, sampler {settings['sampler']},"
        f" steps {settings['steps']}, guidance {settings['guidance']:g}, {settings['dtype']} on {settings['device']}{compiled}."
        f" {plan.count} prompts of unseen scenes, each with its seed"
        + (f", and {plan.held_out} apart" if plan.held_out else "")
        + ". "
        "A clip is read back from its pixels alone; what cannot be read counts as wrong; its share is `unknown`.",
        "Brackets hold Wilson's 95 % interval. The same scenes, drawn by the renderer (`true renders`) and sent through"
        " the model's VAE and back (`after the VAE`), show what the measuring program and the VAE allow."
        " `unchanged`: every object has the same colour and shape in all frames, and the same area to a quarter where it"
        " neither grows nor shrinks, and no frame has an object more. A motion is unknown where an object leaves its straight"
        f" course by as much as counts for a motion. `{EVERYTHING}`: all that the prompt says and its silences (one flat object,"
        " a camera that stands still) are right at once.",
    ]
