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
    request = generation.request_of(made)
    before = video.read(file).to_uint8()
    if tuple(before.shape) != (made.frames, 3, made.height, made.width):
        raise InputError(
            f"{file} holds {len(before)} frames of {before.shape[3]} x {before.shape[2]}, its recipe makes {made.frames} of "
            f"{made.width} x {made.height}: it was cut or scaled afterwards, or is one of several numbered pictures (then name NAME.png)"
        )
    if output is not None:
        video.check_target(output, overwrite=overwrite, frames=made.frames)
    changed = generation.changed_models(made)
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
    clip, again = generation.make(generation.load(request), request, progress=not quiet)
    with tempfile.TemporaryDirectory() as folder:
        # The same container and encoder: what is compared is what a viewer sees.
        beside = Path(folder) / file.name
        video.write(beside, clip, again)
        after = video.read(beside).to_uint8()
    if output is not None:
        video.write(output, clip, again, overwrite=overwrite)
    typer.echo(f"largest difference: {int((before.int() - after.int()).abs().max())}")
