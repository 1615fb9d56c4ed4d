"""What a call of the command line gives, and what is promised of one that fails."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROMPT = "a red circle"


@dataclass(frozen=True)
class Done:
    """What a command line gave: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


def one_error_line(text: str) -> str:
    """The only line of `text`, which must begin with `error: `."""
    (line,) = text.splitlines()
    assert line.startswith("error: ")
    return line


def error_line(done: Done) -> str:
    """The one line on stderr of a command that refused its input."""
    assert (done.code, done.out) == (2, "")
    return one_error_line(done.err)


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every file with its bytes, every folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
