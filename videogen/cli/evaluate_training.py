"""`videogen evaluate training`: what trainings brought, measured on the shapes world.

`scripts/training_evidence.py` makes the corpora and runs the trainings that it needs; docs/training_evidence.md tells the commands one by one.
"""

import dataclasses
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videogen import options
from videogen.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from videogen.corpus.films import Corpus
    from videogen.metrics.lines import Portion
    from videogen.metrics.paired import Estimate
    from videogen.metrics.trained import Part, Sampling
    from videogen.metrics.ways import Figures, Row
    from videogen.pipeline import Pipeline

OPTIONS = {"from_files": "trained", "transfer": "base", "motion_lora": "motion_lora"}


class Name(str, Enum):
    """The parts."""

    from_files = "from_files"
    transfer = "transfer"
    motion_lora = "motion_lora"


def training(
    parts: Annotated[list[Name], typer.Argument(help="What is measured.")],
    model: Annotated[str, options.MEASURED_MODEL] = "shapes",
    motion: Annotated[
        str | None, typer.Option(help="Motion module: a file or a folder; the model's own by default.")
    ] = None,
    trained: Annotated[
        str | None, typer.Option(help="from_files: the motion module that was trained from files.")
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(
            help="transfer: CORPUS=WEIGHTS, an image UNet (a folder) or a LoRA (a file), and the corpus of its look. Repeatable."
        ),
    ] = None,
    motion_lora: Annotated[
        str | None, typer.Option(help="motion_lora: CORPUS=FILE, a MotionLoRA and the corpus of its pan.")
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Prompts of unseen scenes, each with its seed.")] = 128,
    frames: Annotated[int, options.MEASURED_FRAMES] = 16,
    steps: Annotated[int | None, options.MEASURED_STEPS] = None,
    guidance: Annotated[float | None, options.MEASURED_GUIDANCE] = None,
    seed: Annotated[int, options.OTHER_SEED] = 0,
    batch: Annotated[int, options.BATCH] = 8,
    dtype: Annotated[str, options.DTYPE] = "float32",
    device: Annotated[str, options.DEVICE] = "cpu",
    out: Annotated[Path, options.MEASURED_CLIPS] = Path("out/evaluate-training"),
    portion: Annotated[str | None, options.PORTION] = None,
    report: Annotated[
        Path | None, typer.Option(help="FILE.md whose sections are written, with FILE.json and pictures beside it.")
    ] = None,
    quiet: Annotated[bool, options.QUIET_BAR] = False,
) -> None:
    """Make clips with what was trained and without it, from the same prompts and seeds, and measure the difference.

    from_files: a motion module trained from files beside the shipped one. transfer: image models tuned to another look, animated.
    motion_lora: a MotionLoRA of a camera pan. It can be stopped at any time: the same command goes on where it was.
    """
    chosen = dict(locals())
    from videogen import recipe
    from videogen.cli.evaluate import load
    from videogen.metrics import document
    from videogen.metrics.lines import parse_portion
    from videogen.metrics.trained import Sampling
    from videogen.metrics.trials import hashes

    mine = parse_portion(portion)
    if report is not None:
        document.check(report)
    given = {name: told(name.value, chosen) for name in parts}
    pipe = load(model, motion, "ddim", dtype, device)
    sampling = Sampling(count, batch, steps or pipe.steps, pipe.guidance if guidance is None else guidance)
    for name, corpora in given.items():
        part = part_of(name, lambda source=motion: load(model, source, "ddim", dtype, device), corpora, seed, frames)
        notes: dict[str, Any] = {
            "seed": seed, "frames": frames, "steps": sampling.steps, "guidance": sampling.guidance, "dtype": dtype, "device": device,
            **hashes(model, motion), "trained": {word: recipe.hash_path(path) for word, (_, path) in corpora.items()},
            "corpora": {word: dataclasses.asdict(corpus) for word, (corpus, _) in corpora.items() if corpus is not None},
        }  # fmt: skip
        silent = (
            "parts",
            "batch",
            "out",
            "portion",
            "quiet",
            *(option for key, option in OPTIONS.items() if key != part.key),
        )
        command = document.command_line(["videogen", "evaluate", "training", part.key], training, chosen, silent)
        rows = made(part, sampling, out / part.key, notes, mine, quiet)
        if portion is None:
            publish(part, rows, sampling, notes, command, out / part.key, report or out / "results.md")


def told(name: str, chosen: dict[str, Any]) -> "dict[str, tuple[Corpus | None, Path]]":
    """What the option of a part names: the corpus's name -> the corpus and the weights. Raises InputError for what is missing."""
    from videogen.corpus.files import corpus_of
    from videogen.models.folder import find

    option = OPTIONS[name]
    value = chosen[option]
    spelt = f"--{option.replace('_', '-')}"
    if not value:
        raise InputError(f"{name} needs {spelt}: see videogen evaluate training --help")
    if name == "from_files":
        return {"trained": (None, find(value))}
    found: dict[str, tuple[Corpus | None, Path]] = {}
    for entry in value if isinstance(value, list) else [value]:
        corpus, equals, weights = entry.partition("=")
        if not (corpus and equals and weights):
            raise InputError(
                f"{spelt} {entry!r}: give CORPUS=WEIGHTS, such as runs/pan=out/pan/motion_lora.safetensors"
            )
        if Path(corpus).name in found:
            raise InputError(f"{spelt}: two corpora are called {Path(corpus).name}; rename one")
        if not Path(weights).exists():
            raise InputError(f"{spelt}: {weights} does not exist")
        found[Path(corpus).name] = corpus_of(Path(corpus)), Path(weights)
    return found


def part_of(
    name: Name,
    load: "Callable[..., Pipeline]",
    given: "Mapping[str, tuple[Corpus | None, Path]]",
    seed: int,
    frames: int,
) -> "Part":
    """A part with what it was given; `load(motion)` loads the model."""
    from videogen.metrics import trained_parts

    ((corpus, weights), *_) = given.values()
    if name is Name.from_files:
        return trained_parts.from_files(load, lambda: load(str(weights)), seed, frames)
    if name is Name.transfer:
        bases = {word: (look, path) for word, (look, path) in given.items() if look is not None}
        return trained_parts.transfer(load, bases, seed, frames)
    if corpus is None:
        raise InputError("a MotionLoRA needs its corpus")
    return trained_parts.motion_lora(load, corpus, weights, seed, frames)


def made(
    part: "Part", sampling: "Sampling", out: Path, notes: dict[str, Any], portion: "Portion", quiet: bool
) -> "Mapping[tuple[str, int], Row]":
    """The rows of all clips, those that are not there yet made."""
    from tqdm.auto import tqdm

    from videogen.metrics import ways_section
    from videogen.metrics.trained import run
    from videogen.metrics.ways import Rows

    rows = Rows(out, notes)
    blocks = portion.taken(sampling.blocks())
    wanted = {(way.name, number) for way in part.ways for numbers in blocks for number in numbers}
    with tqdm(
        total=len(wanted), initial=len(wanted & rows.rows.keys()), unit="clip", desc=part.key, disable=quiet
    ) as bar:

        def after(row: "Row", clip: "Tensor") -> None:
            ways_section.keep(out, row, clip)
            bar.update()

        run(part, rows, sampling, blocks, after)
    return rows.rows


def publish(
    part: "Part", rows: "Mapping[tuple[str, int], Row]", sampling: "Sampling", notes: dict[str, Any], command: str, out: Path, target: Path
) -> None:  # fmt: skip
    """Write the part's section, its values and its sheet of clips."""
    from videogen import recipe
    from videogen.metrics import document, ways_section
    from videogen.metrics.ways import figures

    found, more = figures(part.ways, rows, sampling.count), part.lines(rows, sampling.count)
    sheet = target.parent / "pictures" / f"training_{part.key}.png"
    ways_section.sheet(sheet, out, part.ways, rows, sampling.count)
    values = {
        "command": command, "settings": {"count": sampling.count, **notes}, "versions": recipe.versions(),
        "targets": {f"{way}: {name}": value for (way, name), value in part.targets.items()},
        "ways": {one.way.name: one.to_dict() for one in found}, "more": {name: value.to_dict() for name, value in more.items()},
    }  # fmt: skip
    text = markdown(part, found, more, {"count": sampling.count, **notes}, command, sheet.name)
    for path in [*document.put(target, f"training_{part.key}", text, values), sheet]:
        typer.echo(str(path))


def markdown(
    part: "Part",
    found: "Sequence[Figures]",
    more: "Mapping[str, Estimate]",
    notes: dict[str, Any],
    command: str,
    sheet: str,
) -> str:
    """The section of a part."""
    from videogen.metrics import ways_section

    told = "{count} prompts of unseen scenes, each with its seed, {frames} frames, {steps} steps, guidance {guidance:g}, {dtype} on {device}."
    behind = [
        f"{name[0].upper()}{name[1:]}: {value.value:.2f} [{value.low:.2f}, {value.high:.2f}], {value.of} clips."
        for name, value in more.items()
    ]
    return "\n\n".join([
        f"<!-- training, {part.key}: made by `videogen evaluate training` -->",
        f"## {part.title}",
        f"{part.explained} {told.format(**notes)} Brackets hold 95 % intervals.",
        ways_section.table(found, part.targets),
        *behind,
        f"Made by `{command}`.",
        f"![All ways, the same prompts and seeds](pictures/{sheet})",
        f"<!-- training, {part.key}: end -->",
    ])  # fmt: skip
