"""The prompt language: weights and forced breaks.

`(x)` counts 1.1 times, `[x]` 1/1.1 times, `(x:1.3)` 1.3 times; nesting multiplies; a backslash makes a bracket or
itself an ordinary character; `BREAK` starts a new chunk of tokens. This is the notation of the common web interfaces,
theirs in the odd cases too: what is still open at the end reaches to the end, and a bracket that closes nothing is an
ordinary character.
"""

from __future__ import annotations

import dataclasses
import re

STRONGER = 1.1

_SYNTAX = re.compile(
    r"""\\(?P<escaped>[()\[\]\\])
      | :\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
      | (?P<bracket>[()\[\]])
      | (?P<rest>\s*\bBREAK\b\s*)""",
    re.VERBOSE,
)


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
