"""What a user did wrong, said in one line."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """A wrong argument, file or checkpoint.

    The message is one line and says what to do; the command line prints it after `error:` and exits with 2.
    """


def reason(problem: BaseException) -> str:
    """What another library's error says, in one line to be quoted: without the system's number, never empty."""
    told = getattr(problem, "strerror", None) or str(problem)
    return next((line.strip() for line in told.splitlines() if line.strip()), type(problem).__name__)


def exit_code(script: Callable[[], int | None]) -> int:
    """What a script ends with: its own code, or 2 after one line on stderr where it raises InputError."""
    try:
        return script() or 0
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
