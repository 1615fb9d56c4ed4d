"""`videogen reproduce`: make a clip again from the recipe in its metadata, and report the difference."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videogen import options
from videogen.errors import InputError

if TYPE_CHECKING:
    from videogen.recipe import Recipe
    from videogen.video import Source

Make = Callable[[tuple[Path, ...], bool], None]
"""(files that may be overwritten, whether progress is shown): makes the clip again, in every one of the files."""


def reproduce(
    file: Annotated[Path, typer.Argument(help="A file that `videogen generate` or `videogen edit` wrote.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Keep what is made, under this name.")] = None,
    overwrite: Annotated[bool, options.OVERWRITE] = False,
    quiet: Annotated[bool, options.QUIET] = False,
) -> None:
    """Make a clip again. The last line is `largest difference: N` (of 255; 0 on the same machine and versions)."""
    import torch

    from videogen import generation, recipe, video
    from videogen.chunked import Targets

    made = recipe.checked(video.read_recipe(file))
    if made.command not in COMMANDS:
        raise InputError(f"this file was made by `videogen {made.command}`, which cannot be reproduced from its recipe")
    make, changed = COMMANDS[made.command](made)
    before = video.open_source(file)
    if (before.count, *before.size) != (made.frames, made.height, made.width):
        raise InputError(
            f"{file} holds {before.count} frames of {before.size[1]} x {before.size[0]}, its recipe makes {made.frames} of "
            f"{made.width} x {made.height}: it was cut or scaled afterwards, or is one of several numbered pictures (then name NAME.png)"
        )
    if output is not None:
        Targets((output,), overwrite=overwrite).check(before)
    changed += generation.changed_models(made)
    if changed:
        raise InputError(f"{file} cannot be made again: {'; '.join(changed)} since; use the files it was made with")
    now = recipe.versions()
    for name in sorted(set(made.versions) | set(now)):
        if made.versions.get(name) != now.get(name):
            typer.echo(
                f"{name} was {made.versions.get(name)}, is {now.get(name)}: small differences are to be expected",
                err=True,
            )
    if made.threads:
        torch.set_num_threads(made.threads)
    with tempfile.TemporaryDirectory() as folder:
        # The same container and encoder: what is compared is what a viewer sees.
        beside = Path(folder) / ("frames.png" if file.is_dir() else file.name)
        video.check_target(beside, frames=before.count, fps=before.fps)
        make((beside,) if output is None else (beside, output), not quiet)
        difference = largest_difference(before, video.open_source(beside))
    typer.echo(f"largest difference: {difference}")


def largest_difference(before: "Source", after: "Source") -> int:
    """Of any value of any pixel, 0 to 255; frame by frame, so that clips of any length can be compared."""
    pairs = zip(before.frames(), after.frames(), strict=True)
    return max(int(abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs)


def _generate(made: "Recipe") -> tuple[Make, list[str]]:
    """What makes a generated clip again, and what else than a model has changed."""
    from videogen import generation, video

    request = generation.request_of(made)

    def make(targets: tuple[Path, ...], progress: bool) -> None:
        clip, again = generation.make(generation.load(request), request, progress=progress)
        for target in targets:
            video.write(target, clip, again, overwrite=True)

    return make, []


def _edit(made: "Recipe") -> tuple[Make, list[str]]:
    """The same for an edited clip, whose source must be what it was."""
    from videogen import chunked, editing

    request = editing.request_of(made)

    def make(targets: tuple[Path, ...], progress: bool) -> None:
        chunked.edit_file(request, chunked.Targets(targets, overwrite=True), progress=progress)

    return make, editing.changed_source(made)


COMMANDS: dict[str, Callable[["Recipe"], tuple[Make, list[str]]]] = {"generate": _generate, "edit": _edit}
