"""`videogen train`: run the training that a configuration describes."""

from typing import Annotated

import typer

from videogen import options


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of one under configs/, e.g. miniature/vae.")],
    overrides: Annotated[list[str] | None, options.OVERRIDES] = None,
    resume: Annotated[str | None, typer.Option(help="`latest`, or a checkpoint-N folder of this run.")] = None,
) -> None:
    """Train until the budget is spent. Ctrl-C ends the run after the step in hand, with a checkpoint to resume from."""
    import os

    from videogen.cli.folders import config_file
    from videogen.training import train as run

    last = run(config_file(config), overrides or (), resume)
    if os.environ.get("RANK", "0") == "0":  # one line, however many processes a launcher has started
        typer.echo(str(last))
