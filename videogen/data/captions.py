"""Captions as they are trained on: one line each; and whether they tell left from right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from videogen.errors import InputError

USUAL = ("text", "caption", "prompt")
SIDED = re.compile(r"\b(?:left|right|(?:anti|counter)?-?clockwise)", re.IGNORECASE)


def tidy(text: str) -> str:
    """One line without spaces at its ends; unpaired surrogates, which no tokenizer takes, are replaced."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def sided(captions: Iterable[str]) -> bool:
    """Whether a mirrored clip would make a caption wrong."""
    return any(SIDED.search(caption) for caption in captions)


def settled(found: Iterable[str], prompt: str | None) -> tuple[str, ...]:
    """The captions that say something, else `prompt`, else none."""
    told = tuple(dict.fromkeys(filter(None, map(tidy, found))))
    return told or (() if prompt is None else (tidy(prompt),))


def columns(known: Sequence[str], wanted: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Which of the columns `known` are captions: those wanted, else the usual one. Raises InputError where one is not there."""
    chosen = tuple(wanted) if wanted else tuple(name for name in USUAL if name in known)[:1]
    lost = [name for name in chosen if name not in known]
    if lost or not chosen:
        asked = f"no column {lost[0]!r}" if lost else f"no column of captions ({', '.join(USUAL)})"
        raise InputError(
            f"{where} has {asked}; its columns are {', '.join(map(repr, known)) or 'none'}; name one with caption: COLUMN"
        )
    return chosen


def of_entry(entry: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The texts under these names; a list counts as several captions."""
    found: list[str] = []
    for name in names:
        value = entry.get(name)
        found += [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
    return found


def from_json(text: str, wanted: Sequence[str] | None) -> list[str]:
    """The captions of a JSON object, or string, or list of strings. Raises ValueError for anything else."""
    value = json.loads(text)
    if isinstance(value, dict):
        return of_entry(value, wanted or [name for name in USUAL if name in value][:1])
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return [value] if isinstance(value, str) else value
    raise ValueError("neither an object nor texts")
