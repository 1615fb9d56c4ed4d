"""A CLIP tokenizer for a small world: byte pairs (Sennrich et al. 2016) learnt until every given word is one token.

The files are those of transformers' CLIPTokenizer, `vocab.json` and `merges.txt`. Words that were not given fall back to smaller pieces,
down to single bytes, so any text has tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

END = "</w>"
START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"

# Everyday words of prompts that the world's captions do not use, so that they cost one token each.
COMMON = (
    "and are as at be but by clip from frame has image in into it its like moves near no not object of off one or out photo picture "
    "quickly scene shape show slowly some still that the then these this to two up very video view was with without dark light bright"
).split()


def byte_alphabet() -> list[str]:
    """The 256 printable signs that stand for bytes 0 to 255 in GPT-2's and CLIP's vocabularies: a byte's own sign where that is visible."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]


def learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first (ties: alphabetical), until each of `words` (ASCII, lower case) is one symbol."""
    pieces = {word: [*word[:-1], word[-1] + END] for word in sorted(set(words))}
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for parts in pieces.values() for pair in zip(parts, parts[1:], strict=False))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {word: _merged(parts, best) for word, parts in pieces.items()}


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(parts):
        if tuple(parts[i : i + 2]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


def write_tokenizer(folder: Path, words: Sequence[str], length: int = 77) -> None:
    """Write a CLIPTokenizer's files into `folder` (created), with `length` positions and each of `words` as one token."""
    folder.mkdir(parents=True, exist_ok=True)
    split = [word for word in words if word.isalpha() and word.isascii()]
    merges = learn_merges([word.lower() for word in split])
    alphabet = byte_alphabet()
    symbols = [*alphabet, *(sign + END for sign in alphabet), *(a + b for a, b in merges), START_TOKEN, END_TOKEN]
    vocabulary = {symbol: number for number, symbol in enumerate(dict.fromkeys(symbols))}
    special = {"bos_token": START_TOKEN, "eos_token": END_TOKEN, "unk_token": END_TOKEN, "pad_token": END_TOKEN}
    settings = special | {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": length,
        "do_lower_case": True,
        "errors": "replace",
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
