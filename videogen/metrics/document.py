"""A document of results: sections between marks in a Markdown file, each with its part of the JSON file beside it.

Each kind of evidence writes its own section; what the others wrote, and what people wrote around them, stays.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from videogen.errors import InputError
from videogen.files import replacing

_HEAD = """# Results

Every figure here was measured, by the command that stands under its table.
"""


def check(path: Path) -> None:
    """Refuse a document that could not be written, before anything is computed. Raises InputError."""
    if path.suffix != ".md":
        raise InputError(f"the report {path} must end in .md; the JSON file and the pictures go beside it")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist; create it first")
    _values(path.with_suffix(".json"))


def put(path: Path, key: str, section: str, values: Mapping[str, Any]) -> list[Path]:
    """Put a section in the place of the one with the same marks, or at the end, and `values` under `key` of the .json.

    section  from its first mark to its last: the first and the last line of the text

    Returns the two files. Raises InputError where the JSON file is none.
    """
    beside_it = path.with_suffix(".json")
    whole = _values(beside_it) | {key: dict(values)}
    with replacing(beside_it) as beside:
        beside.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    before = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    first, *_, last = section.splitlines()
    pattern = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
    text, found = pattern.subn(lambda _: section, before, count=1)
    with replacing(path) as beside:
        beside.write_text(text if found else f"{before.rstrip()}\n\n{section}\n", encoding="utf-8")
    return [path, beside_it]


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def command_line(
    words: Sequence[str], function: Callable[..., Any], options: Mapping[str, Any], silent: Sequence[str]
) -> str:
    """The command `words` with those options of `function` that are not the defaults; `silent` ones change no figure."""
    words = list(words)
    for name, parameter in inspect.signature(function).parameters.items():
        value = options[name]
        if name in silent or value == parameter.default:
            continue
        spelt = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, (list, tuple)) else [value]:
            words += [spelt, *([] if one is True else [str(one)])]
    return shlex.join(words)


def _values(path: Path) -> dict[str, Any]:
    """What stands in the JSON file."""
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as problem:
        raise InputError(f"{path} is no JSON file of results: {problem}; move it away") from problem
