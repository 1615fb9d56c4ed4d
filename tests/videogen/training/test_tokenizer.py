"""Every word of the world is one token, any other text falls back to pieces and comes back, and transformers reads the files."""

import pytest

from videogen.shapes.captions import vocabulary
from videogen.training.tokenizer import COMMON, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    write_tokenizer(folder, [*vocabulary(), *COMMON])
    return CLIPTokenizer.from_pretrained(folder)


def test_each_word_is_one_token(tokenizer) -> None:  # type: ignore[no-untyped-def]
    counts = {word: len(tokenizer.tokenize(word)) for word in [*vocabulary(), *COMMON]}
    assert {word: n for word, n in counts.items() if n != 1} == {}


def test_other_text_comes_back_from_its_pieces(tokenizer) -> None:  # type: ignore[no-untyped-def]
    text = "zebra crossing 42 über ☃"
    ids = tokenizer(text).input_ids[1:-1]
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
    assert tokenizer.eos_token_id not in ids


def test_sizes(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert len(tokenizer) <= 2000
    assert tokenizer.model_max_length == 77
    assert tokenizer("").input_ids == [tokenizer.bos_token_id, tokenizer.eos_token_id]
