"""`videogen shapes corpus FOLDER`: clips of the shapes world as a training finds them on a disk."""

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from videogen import options
from videogen.errors import InputError


class Action(str, Enum):
    """What is made."""

    corpus = "corpus"


def shapes(
    action: Annotated[Action, typer.Argument(help="corpus: captioned H.264 files in WebVid's layout.")],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder, or the same corpus, which goes on or grows.")],
    count: Annotated[int, typer.Option(min=1, help="Whole clips.")] = 4000,
    broken: Annotated[
        int, typer.Option(min=0, help="Further files, broken on purpose in four ways; broken.txt names them.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Another seed draws other clips.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the frames in pixels.")] = 128,
    seconds: Annotated[float, typer.Option(help="Length of each clip.")] = 2.0,
    style: Annotated[
        list[str] | None, typer.Option(help="flat, outlined or shaded; repeatable; all by default.")
    ] = None,
    colour: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=OTHER or NAME=RRGGBB: what captions call NAME is painted in another colour. Repeatable."
        ),
    ] = None,
    camera: Annotated[
        str, typer.Option(help="none, pans_left, pans_right, pans_up, pans_down, zooms_in or zooms_out.")
    ] = "none",
    textured: Annotated[
        bool | None, typer.Option("--textured/--plain", help="Only such backgrounds; both by default.")
    ] = None,
    untold: Annotated[
        list[str] | None, typer.Option(help="`style` or `camera`: captions do not name it. Repeatable.")
    ] = None,
    usual: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of clips near the middle, of usual size and speed; the miniature's had 0.9."
        ),
    ] = 0.0,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Threads.")] = 2,
    quiet: Annotated[bool, options.QUIET_BAR] = False,
) -> None:
    """Write clips of the shapes world into files: some with sound, at several frame rates, a seed giving the same bytes.

    It can be stopped at any time: the same command goes on where it was.
    """
    from videogen.cli.data import bar
    from videogen.corpus import files
    from videogen.corpus.films import Corpus

    corpus = Corpus(
        seed, size, seconds, tuple(style or ()), re.sub("[_-]", " ", camera), textured,
        tuple(parse_colour(entry) for entry in colour or ()), tuple(untold or ()), usual,
    )  # fmt: skip
    with bar(quiet) as tell:
        new = files.make(folder, corpus, count, broken, workers=workers, tell=tell)
    typer.echo(f"{folder}: {count} clips and {broken} broken ones, {new} files written now")
    typer.echo(f"source: {{layout: webvid, csv: {folder / files.TABLE}, videos: {folder / files.VIDEOS}}}")


def parse_colour(text: str) -> tuple[str, int, int, int]:
    """`NAME=OTHER` or `NAME=RRGGBB` -> (name, red, green, blue). Raises InputError for anything else."""
    from videogen.shapes.world import COLOURS

    name, _, value = text.partition("=")
    if value in COLOURS:
        return (name, *COLOURS[value])
    if not re.fullmatch(r"#?[0-9a-fA-F]{6}", value):
        raise InputError(f"--colour {text!r}: give NAME=OTHER or NAME=RRGGBB, such as red=blue or red=ff88aa")
    red, green, blue = bytes.fromhex(value.removeprefix("#"))
    return name, red, green, blue
