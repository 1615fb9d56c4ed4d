"""`videogen reproduce`: make a clip again from the recipe in its metadata, and report the difference."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from videogen.errors import InputError


def reproduce(
    file: Annotated[Path, typer.Argument(help="A file that `videogen generate` wrote.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Keep what is made, under this name.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Make a clip again. The last line is `largest difference: N` (of 255; 0 on the same machine and versions)."""
    import torch

    from videogen import generation, recipe, video

    made = video.read_recipe(file)
    before = video.read(file)
    if output is not None:
        video.check_target(output, overwrite=overwrite, frames=made.frames)
    changed = generation.changed_models(made)
    if changed:
        raise InputError(f"the models are not those the clip was made with: {', '.join(changed)}")
    now = recipe.versions()
    for name in sorted(set(made.versions) | set(now)):
        if made.versions.get(name) != now.get(name):
            typer.echo(
                f"{name} was {made.versions.get(name)}, is {now.get(name)}: small differences are to be expected",
                err=True,
            )
    if made.threads:
        torch.set_num_threads(made.threads)
    request = generation.request_of(made)
    clip, again = generation.make(generation.load(request), request, progress=not quiet)
    with tempfile.TemporaryDirectory() as folder:
        # The same container and encoder: what is compared is what a viewer sees.
        beside = Path(folder) / file.name
        video.write(beside, clip, again)
        after = video.read(beside)
    if output is not None:
        video.write(output, clip, again, overwrite=overwrite)
    difference = (before.to_uint8().int() - after.to_uint8().int()).abs().max()
    typer.echo(f"largest difference: {int(difference)}")
