"""`videogen COMMAND ...`: which commands there are, and one line for every mistake.

A command is one file of this folder with one typed function; it is imported when it is called, so that
`videogen --version` and `videogen generate --help` do not wait for the libraries of the others.
"""

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from videogen import __version__
from videogen.cli.warned import tidy_warnings
from videogen.errors import InputError

Command = Callable[..., None]


def _imported(name: str) -> Command:
    command: Command = getattr(import_module(f"videogen.cli.{name}"), name)
    return command


NAMES = ("generate", "edit", "reproduce", "train", "data", "shapes", "inspect", "evaluate", "doctor")
# name -> the import of its function; a new command is one file, one function of the same name and that name here
COMMANDS: dict[str, Callable[[], Command]] = {name: partial(_imported, name) for name in NAMES}


def announced() -> dict[str, EntryPoint]:
    """Commands of packages above the core, as they are typed: `evaluate editing` is `evaluate.editing` of the group `videogen.commands`."""
    return {entry.name.replace(".", " "): entry for entry in entry_points(group="videogen.commands")}


class Commands(TyperGroup):
    """The group `videogen`, whose commands are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table, then those that other packages announce."""
        return [*COMMANDS, *announced()]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Name, command and the words behind it; an announced command has a name of two words."""
        two = " ".join(args[:2])
        if two in announced():
            return two, self.get_command(ctx, two), args[2:]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None where there is none."""
        load = COMMANDS.get(cmd_name)
        if load is None:
            further = announced().get(cmd_name)
            if further is None:
                return None
            load = further.load
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name)(load())
        command = typer.main.get_command(single)
        self.commands[cmd_name] = command
        return command


app = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode=None)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"videogen {__version__}")
        raise typer.Exit


@app.callback(epilog="A mistake gives one line and exit code 2. With --debug, anywhere, the traceback comes too.")
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Generate and edit video with latent diffusion."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's) and return its exit code.

    0: done. 1: a fault of the program. 2: a wrong argument, input or file. 130: interrupted. Every code but 0 comes
    with one line on stderr that begins `error:`; warnings are lines that begin `warning:`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a prompt or a name may have letters that a terminal lacks
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    end_of_options = words.index("--") if "--" in words else len(words)
    debug = "--debug" in words[:end_of_options]
    words = [word for i, word in enumerate(words) if word != "--debug" or i > end_of_options]
    try:
        command = typer.main.get_command(app)
        with tidy_warnings(), command.make_context("videogen", words) as context:
            command.invoke(context)
        sys.stdout.flush()
    except BaseException as problem:
        code, line = _verdict(problem)
        if debug and line:
            traceback.print_exc()
        if line:
            print(f"error: {line}", file=sys.stderr)
        return code
    return 0


def _verdict(problem: BaseException) -> tuple[int, str]:
    """Exit code and message of what ended a command; an empty message where there is nothing to say."""
    if isinstance(problem, typer.Exit):
        return problem.exit_code, ""
    if isinstance(problem, SystemExit):
        return (problem.code, "") if isinstance(problem.code, int) else (1, _one_line(problem))
    if isinstance(problem, KeyboardInterrupt | typer.Abort):
        return 130, "interrupted"
    if isinstance(problem, typer.TyperException):  # unknown option or command, missing argument, number out of range
        context = getattr(problem, "ctx", None)
        hint = f" (see: {context.command_path} --help)" if context else ""
        return 2, _one_line(problem.format_message().rstrip(".") + hint)
    if isinstance(problem, InputError):
        return 2, _one_line(problem)
    if isinstance(problem, BrokenPipeError):  # the reader of our output went away: `videogen doctor | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1, ""
    if isinstance(problem, OSError):
        where = f": {problem.filename}" if problem.filename else ""
        return 2, _one_line(f"{problem.strerror or problem}{where}")
    # torch has an error of its own for a device, and a plain one that names its allocator for the processor
    if (
        isinstance(problem, MemoryError)
        or type(problem).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(problem)
    ):
        return 2, "out of memory; ask for fewer frames or a smaller size"
    return 1, _one_line(f"{type(problem).__name__}: {problem} (a fault of videogen; --debug shows where)")


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
