"""`videogen data check|cache CONFIG`: look at what a training will be fed with, and encode it once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videogen import options
from videogen.errors import InputError

if TYPE_CHECKING:
    from videogen.data.cache import Filled
    from videogen.data.check import Checked
    from videogen.data.encoders import PartEncoders
    from videogen.data.listing import Listing
    from videogen.data.settings import Data, Whole
    from videogen.training import Recipe


class Action(str, Enum):
    """What is done."""

    check = "check"
    cache = "cache"


def data(
    action: Annotated[Action, typer.Argument(help="check: read every clip and report. cache: encode every clip.")],
    config: Annotated[str, typer.Argument(help="A training's YAML file, or one with `data` (and `model`) alone.")],
    overrides: Annotated[list[str] | None, options.OVERRIDES] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="check: the folder of the report.")] = Path("out/data"),
    quick: Annotated[bool, typer.Option("--quick", help="check: decode only the first frame of each clip.")] = False,
    device: Annotated[str, typer.Option(help="cache: cpu, cuda, mps, ...")] = "cpu",
    prune: Annotated[
        bool, typer.Option("--prune", help="cache: delete what this configuration does not need.")
    ] = False,
    quiet: Annotated[bool, options.QUIET_BAR] = False,
) -> None:
    """Look at the data of a training before it begins, or encode them once for all epochs."""
    from videogen.cli.folders import config_file
    from videogen.training import configured

    values = configured(config_file(config), overrides or ())
    whole = settings(values)
    if action is Action.check:
        _check(whole, out, quick, quiet)
    else:
        _cache(values, whole, device, prune, quiet)


def settings(values: dict[str, Any]) -> Whole:
    """The data, the model's name and the seed of a configuration; in a training's they stand under `settings`.

    Raises InputError for a wrong key or value, and where there is no section `data`.
    """
    from videogen.data.settings import Whole
    from videogen.training.config import validate

    inner = values.get("settings")
    if "data" not in values and isinstance(inner, dict) and "data" in inner:
        values = {"seed": values.get("seed", 0)} | {k: inner[k] for k in ("data", "stills", "model") if k in inner}
    if "data" not in values:
        raise InputError("configuration: it has no section data, which names the sources of clips")
    whole: Whole = validate(Whole, values)
    return whole


def _check(whole: Whole, out: Path, quick: bool, quiet: bool) -> None:
    """Write and tell what was found in every section. Raises InputError where one has a source with too large a share of broken rows."""
    from videogen.data import check
    from videogen.data.listing import listed

    listings = {name: [listed(source) for source in section.sources] for name, section in whole.sections.items()}
    wrong = []
    for name, section in whole.sections.items():
        if len(whole.sections) > 1:
            typer.echo(f"{name}:")
        folder = out if name == "data" else out / name
        worst = _checked(section, listings[name], whole.seed, folder, quick, quiet)
        if worst.broken > section.broken:
            wrong.append(
                f"{len(worst.rejected)} of {worst.rows} rows of {worst.source} cannot be used, more than the share broken: "
                f"{section.broken}; {folder / check.REJECTED} lists them"
            )
    if wrong:
        raise InputError(wrong[0])


def _checked(section: Data, listings: Sequence[Listing], seed: int, out: Path, quick: bool, quiet: bool) -> Checked:
    """Write and tell what was found; the source with the largest share of broken rows."""
    from videogen.data import check

    with bar(quiet) as tell:
        found = check.check(section, listings, seed, out, quick=quick, tell=lambda done: tell(done, None))
    for one in found:
        typer.echo("\n".join(check.lines(one)))
    typer.echo(f"report: {out / check.REPORT}, {out / check.REJECTED}, {out / check.SAMPLES}")
    return max(found, key=lambda one: one.broken)


def _cache(values: dict[str, Any], whole: Whole, device: str, prune: bool, quiet: bool) -> None:
    from videogen.data.cache import cache_of, fill
    from videogen.data.clips import Clips
    from videogen.training import built

    sections = whole.cached or (whole.data,)
    folders = [cache_of(section).folder for section in sections]
    if whole.model is None:
        raise InputError(
            "the configuration names no model whose VAE and text encoder are to be used; give model: FOLDER"
        )
    recipe = built(values)[1] if "recipe" in values else None  # what is wrong in it is told before clips are listed
    clips = [Clips(section, whole.seed) for section in sections]
    encoders = _encoders(recipe, whole.model, device)
    for folder, some in zip(folders, clips, strict=True):
        others = [other for other in clips if other is not some]
        with bar(quiet) as tell:
            done = fill(some, encoders, tell, prune=prune, beside=others)
        _tell_filled(folder, done)


def _encoders(recipe: Recipe | None, model: str, device: str) -> PartEncoders:
    """Those that a training has, with the LoRA files merged that its recipe merges; without one those of a model."""
    from videogen.data.encoders import ModelEncoders, PartEncoders
    from videogen.training.diffusion import Diffusion

    if not isinstance(recipe, Diffusion):
        return ModelEncoders(model, device)
    parts = recipe.model().parts
    return PartEncoders(parts.vae.to(device), parts.text.to(device))


def _tell_filled(folder: Path, done: Filled) -> None:
    typer.echo(
        f"{folder}: {done.clips} clips, {done.new_clips} encoded now; {done.captions} captions, {done.new_captions} encoded now"
    )
    if done.broken:
        typer.echo(f"  {done.broken} clips are broken; videogen data check lists them")
    if done.unread:
        first = done.unread[0]
        typer.echo(
            f"  {len(done.unread)} clips could not be read, and are not in it; the first is {first.key}: {first.reason}; "
            "the same command tries them again"
        )
    if done.stale:
        what = "were deleted" if done.pruned else "lie there; --prune deletes them"
        typer.echo(f"  {done.stale} files that this configuration does not need {what}")


@contextlib.contextmanager
def bar(quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr; what is yielded is told how many clips are done, and of how many where that is known."""
    from tqdm.auto import tqdm

    with tqdm(unit=" clips", disable=quiet) as drawn:

        def tell(done: int, total: int | None) -> None:
            drawn.total = total or drawn.total
            drawn.update(done - drawn.n)

        yield tell
