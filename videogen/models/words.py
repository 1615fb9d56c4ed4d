"""A prompt between string and tokens: ids in chunks, a weight for each token, and where each word went.

CLIP reads 77 tokens: BOS, 75 of content, EOS. A longer prompt is cut into chunks of 75, each read by itself (positions
restart) and laid one after the other along the token axis. A chunk that would end inside a phrase is cut behind the
comma, if there is one among its last 20 tokens.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from videogen.errors import InputError
from videogen.models.prompt import Prompt, parse

BACKTRACK = 20
MAX_CHUNKS = 64


@dataclasses.dataclass(frozen=True)
class Words:
    """One prompt as one tokenizer sees it. All rows have the same length (77 for CLIP), and row r, column i is token r
    * 77 + i of the encoding.

    text     the prompt without its notation
    ids      chunks x length
    weights  chunks x length; 1 for BOS, EOS and padding
    offsets  chunks x length pairs: the characters [start, end) of `text` a token stands for; (0, 0) for BOS, EOS and
             padding
    blank    the ids of a chunk without content
    """

    text: str
    ids: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    offsets: tuple[tuple[tuple[int, int], ...], ...]
    blank: tuple[int, ...]

    @property
    def chunks(self) -> int:
        """How many chunks the prompt takes."""
        return len(self.ids)

    @property
    def weighted(self) -> bool:
        """Whether any token has a weight other than 1."""
        return any(w != 1.0 for row in self.weights for w in row)

    def padded(self, chunks: int) -> Words:
        """The same prompt followed by empty chunks, so that there are `chunks` of them (never fewer than there are)."""
        more = max(chunks - self.chunks, 0)
        length = len(self.blank)
        return dataclasses.replace(
            self,
            ids=self.ids + (self.blank,) * more,
            weights=self.weights + ((1.0,) * length,) * more,
            offsets=self.offsets + (((0, 0),) * length,) * more,
        )

    def cut(self, chunks: int) -> Words:
        """The prompt's first chunks, at most so many; its text stays whole."""
        return dataclasses.replace(
            self, ids=self.ids[:chunks], weights=self.weights[:chunks], offsets=self.offsets[:chunks]
        )

    def where(self, phrase: str) -> tuple[int, ...]:
        """Where a word or phrase stands as whole words: positions on the token axis, ascending, all occurrences.

        Case and the width of spaces do not count. Raises InputError where the prompt does not have it.
        """
        pattern = r"\s+".join(map(re.escape, phrase.split()))
        places = (
            [m.span() for m in re.finditer(rf"(?<!\w){pattern}(?!\w)", self.text, re.IGNORECASE)] if pattern else []
        )
        if not places:
            raise InputError(f"{phrase!r} does not occur in the prompt {self.text!r}")
        length = len(self.blank)
        return tuple(
            r * length + i
            for r, row in enumerate(self.offsets)
            for i, (start, end) in enumerate(row)
            if any(start < stop and begin < end for begin, stop in places)
        )


@dataclasses.dataclass(frozen=True)
class _Token:
    id: int
    weight: float
    start: int
    end: int
    comma: bool


def tokenize(prompt: str | Prompt, tokenizer: Any, length: int = 77) -> Words:
    """Cut a prompt into tokens and chunks of `length` (BOS and EOS included) with transformers' CLIP tokenizer.

    A string is read in the prompt notation; `prompt.plain` takes one literally. Without weights and up to length - 2
    tokens the ids are those of the tokenizer's own padded call. Raises InputError for a prompt of more than 64 chunks.
    """
    prompt = parse(prompt) if isinstance(prompt, str) else prompt
    content = length - 2
    chunks: list[list[_Token]] = []
    for section in prompt.sections:
        tokens = [token for piece in section for token in _tokens(piece.text, piece.weight, piece.start, tokenizer)]
        chunks += _chunked(tokens, content)
    if len(chunks) > 1 and not prompt.sections[-1]:
        chunks.pop()  # a BREAK at the very end opens nothing
    if len(chunks) > MAX_CHUNKS:
        count = sum(map(len, chunks))
        raise InputError(
            f"the prompt has {count} tokens, {len(chunks)} chunks of {content}; at most {MAX_CHUNKS} chunks can be "
            "used: shorten it"
        )
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids, weights, offsets = [], [], []
    for chunk in chunks:
        rest = content - len(chunk)
        ids.append((bos, *(t.id for t in chunk), eos, *(pad,) * rest))
        weights.append((1.0, *(t.weight for t in chunk), 1.0, *(1.0,) * rest))
        offsets.append(((0, 0), *((t.start, t.end) for t in chunk), (0, 0), *((0, 0),) * rest))
    return Words(prompt.text, tuple(ids), tuple(weights), tuple(offsets), (bos, eos, *(pad,) * content))


def equal_chunks(words: Sequence[Words]) -> tuple[Words, ...]:
    """The same prompts, all padded to the longest one's number of chunks."""
    chunks = max(w.chunks for w in words)
    return tuple(w.padded(chunks) for w in words)


def _tokens(text: str, weight: float, start: int, tokenizer: Any) -> list[_Token]:
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    pairs = zip(found["input_ids"], found["offset_mapping"], strict=True)
    return [_Token(i, weight, start + a, start + b, comma=text[a:b] == ",") for i, (a, b) in pairs]


def _chunked(tokens: list[_Token], content: int) -> list[list[_Token]]:
    """Cut into runs of at most `content` tokens, behind a comma where one is among a run's last BACKTRACK tokens."""
    chunks: list[list[_Token]] = []
    begin = 0
    while len(tokens) - begin > content:
        end = begin + content
        if not tokens[end].comma:
            commas = (i for i in range(end - 1, end - 1 - min(BACKTRACK, content - 1), -1) if tokens[i].comma)
            end = next(commas, end - 1) + 1
        chunks.append(tokens[begin:end])
        begin = end
    return [*chunks, tokens[begin:]]
