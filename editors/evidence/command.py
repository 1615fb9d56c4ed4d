"""`videogen evaluate editing`: the figures on editing of docs/results.md, measured on the shapes world."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videogen import options
from videogen.errors import InputError

if TYPE_CHECKING:
    from editors.evidence.methods import Workshop
    from editors.evidence.runs import Plan, Rows
    from editors.evidence.section import Results
    from videogen.metrics.lines import Portion

SILENT = ("out", "minutes", "portion", "quiet", "report")  # options that change no figure


def editing(
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method; may be given several times. All by default.")
    ] = None,
    edit: Annotated[
        list[str] | None, typer.Option(help="Only this edit; may be given several times. All by default.")
    ] = None,
    colour: Annotated[int, typer.Option(min=1, help="Clips of the colour edit, for methods that need no tuning.")] = 64,
    others: Annotated[int, typer.Option(min=1, help="Clips of every other edit of these.")] = 24,
    tuned: Annotated[int, typer.Option(min=1, help="Clips of every edit of methods that tune on each clip.")] = 12,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no clip after so many; the same command goes on. 0 only reports.")
    ] = None,
    model: Annotated[str, options.MEASURED_MODEL] = "shapes",
    motion: Annotated[str | None, options.MOTION] = None,
    frames: Annotated[int, typer.Option(min=4, help="Frames of a clip; some methods take every second.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Sampling and inversion steps.")] = 20,
    reconstruction_steps: Annotated[
        int, typer.Option(min=1, help="The same where the source prompt is to give the source again.")
    ] = 50,
    strength: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the steps that edits run; the model's own advice, else all."),
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale of edits; the model's own by default.")] = None,
    tuning_steps: Annotated[int, typer.Option(min=0, help="Steps of Tune-A-Video for each clip.")] = 200,
    tuning_rate: Annotated[
        float, typer.Option(min=0, help="Its learning rate; Stable Diffusion wants the authors' 3e-5.")
    ] = 1e-3,
    inner_steps: Annotated[int, typer.Option(min=0, help="Steps of null-text inversion at each time, at most.")] = 10,
    seed: Annotated[int, typer.Option(help="Another seed draws other clips and prompts.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    device: Annotated[str, options.DEVICE] = "cpu",
    out: Annotated[Path, options.MEASURED_CLIPS] = Path("out/editing"),
    portion: Annotated[str | None, options.PORTION] = None,
    report: Annotated[Path | None, options.REPORT] = None,
    quiet: Annotated[bool, options.QUIET_BAR] = False,
) -> None:
    """Edit clips of the shapes world by every method, read the edits back from their pixels, and report what was done and what stayed.

    It can be stopped at any time: the same command goes on where it was.
    """
    chosen = dict(locals())
    from editors.evidence.methods import MEASURED
    from editors.evidence.runs import Plan, Rows
    from editors.evidence.trials import EDITS, FROM_TEXT, RECONSTRUCTION
    from videogen.metrics import document
    from videogen.metrics.lines import parse_portion
    from videogen.metrics.trials import hashes

    mine = parse_portion(portion)
    plan = Plan(
        _chosen("--method", method, MEASURED), _chosen("--edit", edit, (*EDITS, RECONSTRUCTION, FROM_TEXT)),
        colour, others, tuned, seed,
    )  # fmt: skip
    if report is not None:
        document.check(report)
    shop = open_shop(chosen)
    settings = {
        "seed": seed, "frames": frames, "steps": steps, "reconstruction_steps": reconstruction_steps,
        "strength": shop.strength, "guidance": shop.guidance, "tuning_steps": tuning_steps,
        "tuning_rate": tuning_rate, "inner_steps": inner_steps, "dtype": dtype, "device": device, **hashes(model, motion),
    }  # fmt: skip
    rows = Rows(out, settings)
    if rows.outdated:
        typer.echo(f"{rows.outdated} clips were made by earlier code of their methods and are made again", err=True)
    finished = _made(shop, plan, rows, mine, minutes, quiet)
    if not finished:
        typer.echo("the time is up; the same command goes on from here", err=True)
    if portion is not None:
        return
    publish(report if report is not None else out / "results.md", chosen, settings, plan, rows)


def open_shop(chosen: dict[str, Any]) -> "Workshop":
    """The models. Raises InputError for what is missing or broken, or for float16, in which null texts cannot be found."""
    from editors.evidence.methods import Workshop
    from editors.null_text import Descent
    from videogen import generation

    if chosen["dtype"] == "float16":
        raise InputError("null-text inversion cannot be done in float16; use --dtype float32 or bfloat16")

    def load(motion: str | None) -> Any:
        given = {"model": chosen["model"], "motion": motion, "dtype": chosen["dtype"], "device": chosen["device"]}
        return generation.load(generation.Request("", **given))

    moving = load(chosen["motion"])
    still = moving if moving.motion is None else load("none")
    guidance = moving.guidance if chosen["guidance"] is None else chosen["guidance"]
    strength = moving.advised_strength(1.0) if chosen["strength"] is None else chosen["strength"]
    return Workshop(
        moving, still, chosen["frames"], chosen["steps"], chosen["reconstruction_steps"], strength, guidance,
        tuning_steps=chosen["tuning_steps"], tuning_rate=chosen["tuning_rate"], descent=Descent(inner_steps=chosen["inner_steps"]),
    )  # fmt: skip


def publish(target: Path, chosen: dict[str, Any], settings: dict[str, Any], plan: "Plan", rows: "Rows") -> None:
    """Write the report, the figures and the sheets, and print what has a target. Raises InputError without a single clip."""
    from editors.evidence import section
    from editors.evidence.figures import all_figures, bounds, targets
    from editors.evidence.sheets import write_sheet
    from videogen import recipe
    from videogen.metrics import document

    found = all_figures(rows.rows, plan)
    if not found:
        raise InputError("no clip was made yet; give it more --minutes")
    folder = target.parent / "pictures"
    folder.mkdir(exist_ok=True)
    names = {name: f"editing_{name}.png" for name in found}
    drawn = {name: picture for name, picture in names.items() if write_sheet(folder / picture, rows, plan, name)}
    command = document.command_line(["videogen", "evaluate", "editing"], editing, chosen, SILENT)
    if chosen["report"] is not None:
        command += f" --report {chosen['report']}"
    counts = {"colour": plan.colour, "others": plan.others, "tuned": plan.tuned}
    results = section.Results(
        command, plan.table, found, targets(found, plan, settings["reconstruction_steps"]), bounds(rows.rows), told(chosen["model"], settings),
        {"settings": {**counts, **settings}, "versions": recipe.versions()}, drawn,
    )  # fmt: skip
    _print(results, target, [folder / picture for picture in drawn.values()])


def _print(results: "Results", target: Path, pictures: list[Path]) -> None:
    from editors.evidence import section
    from videogen.metrics import document

    for line in section.summary(results):
        typer.echo(line)
    written = document.put(target, section.KEY, section.markdown(results), section.to_dict(results))
    for path in [*written, *pictures]:
        typer.echo(str(path))


def told(model: str, settings: dict[str, Any]) -> list[str]:
    """What the section says before its tables."""
    from editors.evidence.figures import MARGIN
    from editors.evidence.judging import SPARED
    from editors.evidence.methods import LOCAL, SHARES, TRAVEL
    from videogen.shapes.measure import SAME_AREA

    shares = "; ".join(f"{edit} {cross:g} and {selfs:g}" for edit, (cross, selfs) in SHARES.items())
    chosen_on = "these clips, which flatters the figures" if settings["seed"] == 1 else "clips of seed 1"
    return [
        f"Model `{model}` ({settings['model']}): clips of {settings['frames']} frames, {settings['steps']} steps, strength"
        f" {settings['strength']:g} (reconstructions: {settings['reconstruction_steps']}, strength 1), guidance"
        f" {settings['guidance']:g}, {settings['dtype']} on {settings['device']}. Sources are H.264 files of rendered scenes, read back;"
        " every second one has a textured background or a second object. Tune-A-Video, FateZero on its model and Text2Video-Zero work on the"
        f" image model and every second frame; tuning takes {settings['tuning_steps']} steps.",
        "These settings are not the command line's own. Shares of the steps in which Prompt-to-Prompt and FateZero take the source's text maps and"
        f" its self-attention: {shares}. In edits of {', '.join(LOCAL)} they are given the object's noun, before and after, to blend by, in all"
        " steps: outside its place the latents are the source's. These settings, and the strength, were chosen on"
        f" {chosen_on}. FateZero reconstructs, and edits shapes on a tuned model, with its authors' settings. Text2Video-Zero is given a flow in"
        f" the direction that the prompt names, {TRAVEL:g} px of 128 over the clip, and on models with fewer than 32 latents a side its two"
        " moments, `t0` and `t1`, in the middle of the grid instead of near its noisy end.",
        "`done`: the edited frames, read by the measuring program, show what the target prompt asks for in place of the source's. `kept`: all"
        " else stayed. That is `position` (the first object's centre within 3 px of 128 of where the source has it, in every frame), its"
        f" `motion`, `size` (its area, to {SAME_AREA:.0%}), `colour` and `shape`, the clip's `style`, `background` (a textured one also where it"
        " is) and `count` of objects, and `other`, the same of the second object. Frames are read one by one: in one of"
        f" {SPARED} at most may size, colour, shape, style or background be wrong or unreadable (an outlined style is read from the whole clip,"
        " and told from a flickering one by its areas).",
        "`change elsewhere`: mean absolute difference from the source, of the range of values, 4 px of 128 and more away from the edited objects"
        " as they are and are to be (of a background's edit: inside the objects); beside it what the VAE's round trip alone makes there. A mean"
        " that some clips have no part in, for they hold no numbers or lost an object in some frame, says of how many clips it is; a moving"
        " object that was lost errs by 1 in its velocity. `seconds a clip`: of the method alone, also where an inversion, a tuning or null texts"
        " were found for another row before; plain inversion's include a third sampling, without guidance, by which it tells how well the clip"
        " comes back.",
        "`plain` is sampling the target prompt from the inverted noise, on the same model, frames and clips. Brackets hold 95 % intervals:"
        " Wilson's of shares, Newcombe's of paired differences of shares, Student's of means. `better than plain`: the interval of one of the"
        " two differences lies above 0, and the other is not worse, which is an interval that does not lie below 0 and a difference of"
        f" {-MARGIN:.2f} or more. `source: done` tells how often the source itself is taken for the edit. Verdicts with fewer clips than a"
        " target is meant for say `so far`. The plan has no figure for Text2Video-Zero's motion; it is held against the 0.90 of the colour edit.",
    ]


def _made(shop: "Workshop", plan: "Plan", rows: "Rows", portion: "Portion", minutes: float | None, quiet: bool) -> bool:
    from tqdm.auto import tqdm

    from editors.evidence.runs import run

    wanted = {key for key in plan.clips() if key[2] in portion}
    with tqdm(total=len(wanted), initial=len(wanted & rows.rows.keys()), unit="clip", disable=quiet) as bar:

        def tick(row: Any) -> None:
            bar.set_description(f"{row.method} {row.edit} {row.number}", refresh=False)
            bar.update()

        return run(shop, plan, rows, portion=portion, seconds=None if minutes is None else 60 * minutes, tick=tick)


def _chosen(option: str, names: list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names that were asked for, all where none was. Raises InputError for an unknown one."""
    for name in names or ():
        if name.replace("-", "_") not in known:
            raise InputError(f"{option} {name}: choose from {', '.join(known)}")
    return tuple(name for name in known if name in {n.replace("-", "_") for n in names or known})
