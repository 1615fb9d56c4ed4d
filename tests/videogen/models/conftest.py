"""A CLIP tokenizer without files: single characters, and merges for a handful of words."""

from collections.abc import Callable

import pytest
from transformers import CLIPTokenizer

WORDS = ("red", "blue", "green", "circle", "square", "cat", "a", ",")


def build_tokenizer(pad: str = "<|endoftext|>", length: int = 77) -> CLIPTokenizer:
    """Byte-level BPE whose merges spell WORDS from left to right; every other word falls into characters."""
    letters = [chr(c) for c in range(33, 127)] + ["Ã", "©", "¨", "±"]
    vocab = {token: i for i, token in enumerate([*letters, *(letter + "</w>" for letter in letters)])}
    merges = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
            parts = ["".join(pair), *parts[2:]]
            vocab.setdefault(parts[0], len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=length)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., CLIPTokenizer]:
    return build_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()
