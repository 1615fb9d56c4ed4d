"""Warnings as people read them: one line on stderr that begins `warning:`, each once."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

# Python hides these from users by default; they are for those who write code.
FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


@contextlib.contextmanager
def tidy_warnings() -> Iterator[None]:
    """Inside, a Python warning is a line `warning: ...` without file, number and source; the same text comes once."""
    told: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        if text not in told and not issubclass(category, FOR_DEVELOPERS):
            told.add(text)
            print(f"warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
