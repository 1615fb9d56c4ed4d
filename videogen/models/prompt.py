"""The prompt language: weights, forced breaks, and prompts that change along a clip.

`(x)` counts 1.1 times, `[x]` 1/1.1 times, `(x:1.3)` 1.3 times; nesting multiplies; a backslash makes a bracket or
itself an ordinary character; `BREAK` starts a new chunk of tokens. This is the notation of the common web interfaces,
theirs in the odd cases too: what is still open at the end reaches to the end, and a bracket that closes nothing is an
ordinary character.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence

from videogen.errors import InputError

STRONGER = 1.1

_SYNTAX = re.compile(
    r"""\\(?P<escaped>[()\[\]\\])
      | :\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
      | (?P<bracket>[()\[\]])
      | (?P<rest>\s*\bBREAK\b\s*)""",
    re.VERBOSE,
)
_NUMBERED = re.compile(r'"?(\d+)"?\s*:\s*("?)(.*?)\2\s*,?$')


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of a prompt with one weight; `start` is where it begins in `Prompt.text`."""

    text: str
    weight: float
    start: int


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt without its notation: `text` as it is read, and its pieces, in sections that `BREAK` keeps apart."""

    text: str
    sections: tuple[tuple[Piece, ...], ...]


def plain(text: str) -> Prompt:
    """A prompt taken literally: every bracket is a character (captions of a data set, say)."""
    return Prompt(text, ((Piece(text, 1.0, 0),),) if text else ((),))


def parse(source: str) -> Prompt:
    """Read a prompt in the notation above. Never fails: what is no notation is text."""
    texts: list[str | None] = []  # None stands for BREAK
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def put(text: str | None) -> None:
        if text != "":
            texts.append(text)
            weights.append(1.0)

    def scale(since: int, factor: float) -> None:
        for i in range(since, len(weights)):
            weights[i] *= factor

    def closed(kind: str, factor: float, written: str) -> None:
        if opened[kind]:
            scale(opened[kind].pop(), factor)
        else:
            put(written)

    end = 0
    for match in _SYNTAX.finditer(source):
        put(source[end : match.start()])
        end = match.end()
        if match["escaped"]:
            put(match["escaped"])
        elif match["rest"]:
            put(None)
        elif match["weight"]:
            closed("(", float(match["weight"]), match[0])
        elif match["bracket"] in opened:
            opened[match["bracket"]].append(len(texts))
        elif match["bracket"] == ")":
            closed("(", STRONGER, ")")
        else:
            closed("[", 1 / STRONGER, "]")
    put(source[end:])
    for since in opened["("]:
        scale(since, STRONGER)
    for since in opened["["]:
        scale(since, 1 / STRONGER)
    return _assembled(texts, weights)


def _assembled(texts: list[str | None], weights: list[float]) -> Prompt:
    """Join neighbours of equal weight: tokens are cut only where the weight changes."""
    sections: list[list[Piece]] = [[]]
    text = ""
    for part, weight in zip(texts, weights, strict=True):
        weight = round(weight, 6)  # [(x)] is 1 again
        if part is None:
            sections.append([])
            text += " "
            continue
        last = sections[-1][-1] if sections[-1] else None
        if last is not None and last.weight == weight:
            sections[-1][-1] = Piece(last.text + part, weight, last.start)
        else:
            sections[-1].append(Piece(part, weight, len(text)))
        text += part
    return Prompt(text, tuple(tuple(section) for section in sections))


def read_travel(source: str | Mapping[str | int, str]) -> dict[int, str]:
    """Prompts by frame, from `{frame: text}`, the same as JSON (also under the key `prompt_map`), or lines `0: text`.

    Lines before the first number are put in front of every prompt and lines after the last behind it; in JSON these are
    `head_prompt` and `tail_prompt`. Returns `{frame: text}` in ascending order. Raises InputError where no prompt, a
    bad frame number or a frame twice is found.
    """
    pairs: Sequence[tuple[str | int, object]]
    if isinstance(source, str):
        pairs, head, tail = _from_json(source) if source.lstrip().startswith("{") else _from_lines(source)
    else:
        pairs, head, tail = list(source.items()), "", ""
    found: dict[int, str] = {}
    for key, text in pairs:
        frame = int(key) if str(key).isdecimal() else -1
        if frame < 0:
            raise InputError(f"prompts by frame need frame numbers from 0 on, not {key!r}")
        if frame in found:
            raise InputError(f"prompts by frame have frame {frame} twice")
        if not isinstance(text, str):
            raise InputError(f"the prompt of frame {frame} is not a text")
        found[frame] = ", ".join(part for part in (head, text, tail) if part)
    if not found:
        raise InputError(
            'no prompts by frame found; write lines such as "0: a red circle" or JSON {"0": "a red circle"}'
        )
    return dict(sorted(found.items()))


def _from_json(source: str) -> tuple[Sequence[tuple[str | int, object]], str, str]:
    try:
        whole = json.loads(source, object_pairs_hook=list)
    except json.JSONDecodeError as problem:
        raise InputError(f"prompts by frame are not valid JSON: {problem}") from problem
    named = dict(whole)
    pairs = named.get("prompt_map", whole)
    if not isinstance(pairs, list):
        raise InputError('"prompt_map" must be {frame: text}')
    return pairs, str(named.get("head_prompt", "")), str(named.get("tail_prompt", ""))


def _from_lines(source: str) -> tuple[Sequence[tuple[str | int, object]], str, str]:
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    numbered = {i: match for i, line in enumerate(lines) if (match := _NUMBERED.match(line))}
    if not numbered:
        return [], "", ""
    first, last = min(numbered), max(numbered)
    stray = next((lines[i] for i in range(first, last) if i not in numbered), None)
    if stray is not None:
        raise InputError(f"prompts by frame: the line {stray!r} between numbered lines has no frame number")
    return [(match[1], match[3]) for match in numbered.values()], ", ".join(lines[:first]), ", ".join(lines[last + 1 :])
