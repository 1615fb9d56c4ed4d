"""Which tokens of two prompts belong together, by their words (Hertz et al. 2022, "Prompt-to-Prompt", section 3.2).

Words are found in the text and their tokens from the tokenizer's own offsets, so punctuation, capitals and words of several tokens need no care.
What stands around the words is aligned by its role: start with start, end with end, and padding by its position, which is what its encoding
depends on most.

The published code misaligns what follows a swapped word whose token count differs (its mapper goes on along the diagonal); here every
word behind it still meets its own counterpart.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.models.words import Words

Edit = Literal["auto", "replace", "refine", "reweight"]
Spelled = tuple[str, tuple[int, ...]]
"""A word, and the positions of its tokens."""

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+")
_SPOKEN = "&@#%"  # punctuation to Unicode, words to a reader
# What carries no content of its own is not worth emphasis.
_FUNCTION_WORDS = frozenset(
    "a an the this that of in on at to by with without from into onto over under near and or is are be as its it".split()
)


@dataclass(frozen=True, eq=False)
class Alignment:
    """From maps over the source's tokens to maps over the target's.

    matrix  n n: how much of source token i's attention goes to target token j
    share   n: 1 for target tokens that take the source's attention, 0 for new ones, which keep their own
    fresh   n, bool: the tokens of the target's words without an equal in the source, function words and punctuation left out
    """

    matrix: Tensor
    share: Tensor
    fresh: Tensor


def align(source: Words, target: Words, edit: Edit = "auto") -> Alignment:
    """The alignment of an edit; `auto` finds the edit from the prompts, `reweight` is the identity between equal prompts.

    Raises InputError for an unknown edit, and where the prompts do not allow the one asked for.
    """
    if edit not in get_args(Edit):
        raise InputError(f"the edit {edit!r} is not known; choose one of {', '.join(get_args(Edit))}")
    found = kind_of(source, target)
    if edit == "reweight" and found != "reweight":
        raise InputError(
            f"reweight changes how much the words of one prompt count; {source.text!r} and {target.text!r} differ: use replace or refine"
        )
    return replace(source, target) if (found if edit == "auto" else edit) == "replace" else refine(source, target)


def kind_of(source: Words, target: Words) -> Edit:
    """`reweight` for the same words, `replace` where words were swapped and all others kept their places, else `refine`."""
    ours, theirs = spelled(source), spelled(target)
    if _names(ours) == _names(theirs):
        return "reweight"
    a, b = (_names(_apart(found)[0]) for found in (ours, theirs))
    in_place = len(a) == len(b) and all(i == j for i, j in matched(a, b))
    return "replace" if in_place else "refine"


def replace(source: Words, target: Words) -> Alignment:
    """Word k with word k, for prompts of equally many words. Every row of the matrix sums to 1, so no attention is lost.

    Words of equally many tokens go token by token; else each token of the word is spread over its counterpart's tokens. Punctuation is no
    word: what both prompts have in the same place belongs together, the source's alone falls to the word beside it, the target's alone is new.
    """
    (a, points), (b, others) = _apart(spelled(source)), _apart(spelled(target))
    if len(a) != len(b):
        raise InputError(
            f"replace needs equally many words; {source.text!r} has {len(a)} and {target.text!r} {len(b)}: use refine"
        )
    matrix, share = torch.zeros(_length(source), _length(target)), torch.ones(_length(target))
    for (bos, end, stop), (bos_t, end_t, stop_t) in zip(_frames(source), _frames(target), strict=True):
        matrix[bos, bos_t] = matrix[end, end_t] = 1.0
        for i in range(end + 1, stop):
            matrix[i, i if i > end_t else min(end_t + 1, stop_t - 1)] = 1.0
    for (_, ours), (_, theirs) in zip(a, b, strict=True):
        _link(matrix, ours, theirs)
    for k, (ours, theirs) in enumerate(zip(points, others, strict=True)):
        beside = b[max(k - 1, 0)][1] if b else (0,)  # the start, where there are no words
        _link(matrix, ours, theirs or beside)
        if not ours:
            share[list(theirs)] = 0.0
    differing = [theirs for ours, theirs in zip(a, b, strict=True) if ours[0] != theirs[0]]
    return Alignment(matrix, share, _tokens(target, differing))


def refine(source: Words, target: Words) -> Alignment:
    """Words that both prompts have, in order (Needleman and Wunsch 1970 with gap 0, match 1, mismatch -1); the others are new."""
    a, b = spelled(source), spelled(target)
    matrix, share = torch.zeros(_length(source), _length(target)), torch.ones(_length(target))
    for (bos, end, stop), (bos_t, end_t, stop_t) in zip(_frames(source), _frames(target), strict=True):
        matrix[bos, bos_t] = matrix[end, end_t] = 1.0
        for j in range(end_t + 1, stop_t):
            matrix[j if j > end else min(end + 1, stop - 1), j] = 1.0
    pairs = {j: i for i, j in matched(_names(a), _names(b))}
    for j, (_, tokens) in enumerate(b):
        if j in pairs:
            _link(matrix, a[pairs[j]][1], tokens)
        else:
            share[list(tokens)] = 0.0
    return Alignment(matrix, share, _tokens(target, [word for j, word in enumerate(b) if j not in pairs]))


def matched(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence, ascending; where several are as long, the one that ends first.

    With gap 0 and mismatch -1 two gaps are always better than a mismatch, so the global alignment is just this.
    """
    longest = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            longest[i][j] = max(longest[i][j - 1], longest[i - 1][j], longest[i - 1][j - 1] + (1 if x == y else -1))
    pairs, i, j = [], len(a), len(b)
    while i and j:
        if longest[i][j] == longest[i][j - 1]:
            j -= 1
        elif longest[i][j] == longest[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def word_count(text: str) -> int:
    """How many words `replace` finds in a text."""
    return sum(1 for m in _WORD.finditer(text) if not _points(m.group()))


def spelled(words: Words) -> list[Spelled]:
    """The words of a prompt in order, in lower case, each with the positions of its tokens; runs of punctuation are words."""
    found = list(_WORD.finditer(words.text))
    starts = [m.start() for m in found]
    tokens: list[list[int]] = [[] for _ in found]
    length = len(words.blank)
    for row, offsets in enumerate(words.offsets):
        for i, (start, end) in enumerate(offsets):
            if end > start:
                tokens[max(bisect_right(starts, start) - 1, 0)].append(row * length + i)
    return [(m.group().casefold(), tuple(where)) for m, where in zip(found, tokens, strict=True)]


def marked(words: Words, phrases: Iterable[str]) -> Tensor:
    """1 at the tokens of the phrases that the prompt has, else 0: n."""
    marks = torch.zeros(_length(words))
    for phrase in phrases:
        if occurs(words, phrase):
            marks[list(words.where(phrase))] = 1.0
    return marks


def equalizer(words: Words, weights: Mapping[str, float]) -> Tensor:
    """The factor of each token's attention: n, 1 where no phrase says otherwise. Raises InputError for a phrase the prompt lacks."""
    factors = torch.ones(_length(words))
    for phrase, weight in weights.items():
        factors[list(words.where(phrase))] = float(weight)
    return factors


def occurs(words: Words, phrase: str) -> bool:
    """Whether the prompt has the phrase, as whole words."""
    try:
        return bool(words.where(phrase))
    except InputError:
        return False


def content_words(text: str) -> set[str]:
    """The words of a text that carry content of their own, in lower case."""
    return {m.group().casefold() for m in _WORD.finditer(text) if _tells(m.group().casefold())}


def _names(found: Iterable[Spelled]) -> list[str]:
    return [name for name, _ in found]


def _apart(found: Iterable[Spelled]) -> tuple[list[Spelled], list[tuple[int, ...]]]:
    """The words without the punctuation; and the punctuation's tokens, before the first word and behind each one."""
    plain: list[Spelled] = []
    points: list[tuple[int, ...]] = [()]
    for name, tokens in found:
        if _points(name):
            points[-1] += tokens
        else:
            plain.append((name, tokens))
            points.append(())
    return plain, points


def _points(name: str) -> bool:
    return all(unicodedata.category(c).startswith("P") and c not in _SPOKEN for c in name)


def _tells(name: str) -> bool:
    return name not in _FUNCTION_WORDS and name[0].isalnum()


def _tokens(words: Words, found: Iterable[Spelled]) -> Tensor:
    """True at the tokens of those words that tell something: n."""
    marks = torch.zeros(_length(words), dtype=torch.bool)
    for name, tokens in found:
        marks[list(tokens)] = _tells(name)
    return marks


def _length(words: Words) -> int:
    return words.chunks * len(words.blank)


def _frames(words: Words) -> list[tuple[int, int, int]]:
    """For each chunk the positions of its start token, its end token, and one behind its last padding."""
    length = len(words.blank)
    ends = [max((i for i, (start, end) in enumerate(row) if end > start), default=0) + 1 for row in words.offsets]
    return [(r * length, r * length + end, (r + 1) * length) for r, end in enumerate(ends)]


def _link(matrix: Tensor, i: Sequence[int], j: Sequence[int]) -> None:
    """Let source tokens i reach target tokens j: one by one where they are equally many, else evenly spread."""
    if len(i) == len(j):
        matrix[list(i), list(j)] = 1.0
    elif j:
        matrix[torch.tensor(i, dtype=torch.long)[:, None], torch.tensor(j)] = 1.0 / len(j)
