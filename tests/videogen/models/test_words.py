"""Words: the ids of the ordinary encoding, chunks that follow the stated rules, and token positions that are true."""

from collections.abc import Callable

import pytest
from transformers import CLIPTokenizer

from videogen.errors import InputError
from videogen.models.prompt import plain
from videogen.models.words import equal_chunks, tokenize

PROMPTS = ["", "a red circle", "A  Red\tcircle, zig é!", "red " * 75, "<|endoftext|> a"]


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_short_prompts_have_the_tokenizers_own_ids(
    make_tokenizer: Callable[..., CLIPTokenizer], pad: str, prompt: str
) -> None:
    tokenizer = make_tokenizer(pad)
    ordinary = tokenizer(prompt, padding="max_length", max_length=77, truncation=True).input_ids
    assert tokenize(prompt, tokenizer).ids == (tuple(ordinary),)


def content(words, row: int, tokenizer: CLIPTokenizer) -> str:
    return (
        "".join(tokenizer.convert_ids_to_tokens([i for i in words.ids[row] if i not in set(words.blank)]))
        .replace("</w>", " ")
        .strip()
    )


def test_seventy_six_tokens_are_two_chunks_and_the_first_is_unmoved(tokenizer: CLIPTokenizer) -> None:
    words = tokenize("red " * 75 + "blue", tokenizer)
    assert words.chunks == 2
    assert words.ids[0] == tokenize("red " * 75, tokenizer).ids[0]
    assert words.ids[1] == tokenize("blue", tokenizer).ids[0]


def test_a_chunk_ends_behind_a_comma_among_its_last_twenty_tokens(tokenizer: CLIPTokenizer) -> None:
    near = tokenize("red " * 60 + ", " + "blue " * 20, tokenizer)  # the comma is token 61 of 75
    assert content(near, 0, tokenizer).endswith(",")
    assert content(near, 1, tokenizer) == " ".join(["blue"] * 20)
    edge = tokenize("red " * 55 + ", " + "blue " * 30, tokenizer)  # 20 tokens from the end, itself included
    assert content(edge, 1, tokenizer) == " ".join(["blue"] * 30)
    far = tokenize("red " * 54 + ", " + "blue " * 30, tokenizer)
    assert content(far, 1, tokenizer) == " ".join(["blue"] * 10)
    fits = tokenize("red " * 60 + ", " + "blue " * 14, tokenizer)
    assert fits.chunks == 1


def test_break_and_empty_chunks(tokenizer: CLIPTokenizer) -> None:
    assert [content(tokenize("red BREAK blue", tokenizer), r, tokenizer) for r in (0, 1)] == ["red", "blue"]
    assert tokenize("red BREAK", tokenizer).ids == tokenize("red", tokenizer).ids
    assert tokenize("BREAK red", tokenizer).ids == (*tokenize("", tokenizer).ids, *tokenize("red", tokenizer).ids)
    short, long = equal_chunks([tokenize("red", tokenizer), tokenize("red " * 100, tokenizer)])
    assert short.chunks == long.chunks == 2
    assert short.ids[1] == tokenize("", tokenizer).ids[0]
    assert short.ids[0] == tokenize("red", tokenizer).ids[0]


def test_weights_sit_on_their_tokens_and_nowhere_else(tokenizer: CLIPTokenizer) -> None:
    words = tokenize("a (blue circle:1.5) and (zig:0.5)", tokenizer)
    heavy, light = words.where("blue circle"), words.where("zig")
    assert len(heavy) == 2
    assert len(light) == 3
    flat = [w for row in words.weights for w in row]
    assert all(flat[i] == 1.5 for i in heavy)
    assert all(flat[i] == 0.5 for i in light)
    assert sum(w != 1 for w in flat) == 5
    assert words.ids == tokenize("a blue circle and zig", tokenizer).ids


def test_where_is_the_position_in_the_encoding(tokenizer: CLIPTokenizer) -> None:
    words = tokenize("A red circle, blue   Circle", tokenizer)
    assert words.where("red") == (2,)
    assert words.where("blue circle") == (5, 6)
    assert words.where("circle") == (3, 6)
    assert tokenize("red " * 75 + "blue circle", tokenizer).where("blue circle") == (78, 79)
    assert tokenize(r"\(red\) (cat:2) BREAK a [blue] circle", tokenizer).where("blue circle") == (79, 80)
    for phrase in ("green", "re", "", "circle blue"):
        with pytest.raises(InputError, match="does not occur"):
            words.where(phrase)


def test_plain_text_keeps_its_brackets(tokenizer: CLIPTokenizer) -> None:
    ordinary = tokenizer("a (red:1.3) circle", padding="max_length", max_length=77).input_ids
    assert tokenize(plain("a (red:1.3) circle"), tokenizer).ids == (tuple(ordinary),)


def test_a_prompt_of_five_thousand_words_is_refused_in_one_line(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(InputError, match="5000 tokens, 67 chunks of 75; at most 64") as raised:
        tokenize("red " * 5000, tokenizer)
    assert "\n" not in str(raised.value)
    assert tokenize("red " * 4800, tokenizer).chunks == 64
