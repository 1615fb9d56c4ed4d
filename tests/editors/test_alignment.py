"""Which tokens belong together: swapped, inserted and repeated words, of one token or several, wherever they stand."""

import pytest
import torch

from editors.alignment import align, equalizer, kind_of, marked, matched, refine, replace, spelled
from tests import folders
from videogen.errors import InputError
from videogen.models.words import equal_chunks, tokenize

LETTERS = folders.tokenizer()  # every letter is a token


def pair(source: str, target: str):
    return equal_chunks([tokenize(text, LETTERS) for text in (source, target)])


def where(words, word: str) -> list[int]:
    return list(words.where(word))


def test_words_have_the_tokens_that_their_letters_became():
    (words, _) = pair("A red circle, don't!", "")
    assert [name for name, _ in spelled(words)] == ["a", "red", "circle", ",", "don't", "!"]
    assert dict(spelled(words))["circle"] == tuple(where(words, "circle")) == (5, 6, 7, 8, 9, 10)
    assert sum(len(tokens) for _, tokens in spelled(words)) == len("Aredcircle,don't!")


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("a red circle", "A  red circle", "reweight"),
        ("a red circle", "a blue circle", "replace"),
        ("red circle", "blue square", "replace"),
        ("a red circle", "a big red circle", "refine"),
        ("a red circle on black", "a circle, red on black", "refine"),
        ("red blue", "blue red", "refine"),  # as many words, but not in their places
        ("a red circle on black,", "a blue circle on black", "replace"),
        ("a red, circle", "a red big circle", "refine"),  # as many words with the comma
        ("black & white", "black and white", "replace"),
        ("", "a red circle", "refine"),
    ],
)
def test_the_edit_is_found_from_the_prompts(source, target, kind):
    assert kind_of(*pair(source, target)) == kind


@pytest.mark.parametrize(
    "target", ["a red circle left", "a blue circle left", "a purple circle left", "a tan dot left"]
)
@pytest.mark.parametrize("source", ["a red circle left", "a turquoise triangle left"])
def test_replacing_loses_no_attention_and_meets_every_later_word(source, target):
    a, b = pair(source, target)
    found = replace(a, b)
    torch.testing.assert_close(found.matrix.sum(1), torch.ones(77))
    assert found.share.min() == 1
    probs = torch.rand(3, 77).softmax(-1)
    torch.testing.assert_close((probs @ found.matrix).sum(-1), torch.ones(3))
    for i, j in (
        (where(a, "left"), where(b, "left")),
        ([0], [0]),
        ([len(source.replace(" ", "")) + 1], [len(target.replace(" ", "")) + 1]),
    ):
        assert torch.equal(found.matrix[i][:, j], torch.eye(len(i)))  # the last: the end tokens
    for old, new in zip(source.split(), target.split(), strict=True):
        block = found.matrix[where(a, old)][:, where(b, new)]
        expected = torch.eye(len(new)) if len(old) == len(new) else torch.full((len(old), len(new)), 1 / len(new))
        torch.testing.assert_close(block, expected)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("a red van parked by the sea,", "a Fiat car parked by the sea"),
        ("a red van parked by the sea", "a Fiat car parked by the sea."),
        ("red van, by the sea...", "blue car by, the sea!"),
        ('"red van" - parked', 'blue "car" parked'),
        ("red, van, parked", "old, bus, halted"),
    ],
)
def test_punctuation_is_no_word_where_words_are_swapped(source, target):
    a, b = pair(source, target)
    found = align(a, b, "replace")
    torch.testing.assert_close(found.matrix.sum(1), torch.ones(77))
    strip = ' ,.!"-'
    words = [[word for word in (w.strip(strip) for w in text.split()) if word] for text in (source, target)]
    for old, new in zip(*words, strict=True):
        block = found.matrix[where(a, old)][:, where(b, new)]
        torch.testing.assert_close(block.sum(1), torch.ones(len(old)))
    for word in set(words[0]) & set(words[1]):
        assert torch.equal(found.matrix[where(a, word)][:, where(b, word)], torch.eye(len(word)))
    # What nothing of the source reaches keeps its own attention, and is the target's alone.
    own = found.matrix[:, : len(target.replace(" ", "")) + 1].sum(0) == 0
    assert torch.equal(found.share[: len(own)] == 0, own)
    letters = target.replace(" ", "")
    assert all(letters[i - 1] in strip for i in own.nonzero().flatten().tolist())


def test_punctuation_meets_its_like_or_falls_to_the_word_beside_it():
    a, b = pair("a van, red.", "a bus, old")
    found = replace(a, b)
    assert found.matrix[5].nonzero().flatten().tolist() == [5]  # comma to comma
    assert torch.equal(found.matrix[9, where(b, "old")], torch.full((3,), 1 / 3))
    assert found.share.min() == 1
    own = replace(*pair("a van", "a bus!"))
    assert (own.share == 0).nonzero().flatten().tolist() == [5]
    assert not own.fresh[5]
    nothing = replace(*pair("?!", ""))
    torch.testing.assert_close(nothing.matrix.sum(1), torch.ones(77))


@pytest.mark.parametrize(
    ("target", "new"),
    [
        ("big a red circle", ["big"]),
        ("a red round circle", ["round"]),
        ("a red circle left", ["left"]),
        ("a big red dot", ["big", "dot"]),
    ],
)
def test_refining_maps_every_shared_token_to_itself_and_new_ones_to_nothing(target, new):
    a, b = pair("a red circle", target)
    found = refine(a, b)
    fresh = sorted(i for word in new for i in where(b, word))
    assert found.fresh.nonzero().flatten().tolist() == fresh
    assert (found.share == 0).nonzero().flatten().tolist() == fresh
    for word in set(target.split()) - set(new):
        assert torch.equal(found.matrix[where(a, word)][:, where(b, word)], torch.eye(len(word)))
    taken = found.matrix[:, [i for i in range(77) if i not in fresh]]
    assert torch.equal(taken.sum(0), torch.ones_like(taken[0]))


def test_of_a_repeated_word_the_new_one_alone_is_fresh():
    """And of new words those that tell something."""
    a, b = pair("a red circle", "a red circle, and a red square")
    assert refine(a, b).fresh.nonzero().flatten().tolist() == [*where(b, "red")[3:], *where(b, "square")]
    a, b = pair("a red and a blue dot", "a red or a red dot")
    assert replace(a, b).fresh.nonzero().flatten().tolist() == where(b, "red")[3:]


def test_equal_prompts_are_the_identity():
    for edit in ("auto", "replace", "refine", "reweight"):
        found = align(*pair("a red circle, moving", "a red circle, moving"), edit)
        assert torch.equal(found.matrix, torch.eye(77))
        assert found.share.min() == 1


def test_a_shorter_prompt_gives_its_padding_to_padding():
    a, b = pair("a red circle", "a circle")
    probs = torch.zeros(77)
    probs[12:] = 1 / 65  # all of the source's attention on its padding
    assert float((probs @ refine(a, b).matrix)[: len("acircle") + 2].sum()) == 0
    assert float((probs @ replace(*pair("a red", "a reddish")).matrix)[1:9].sum()) == 0


def test_long_prompts_are_aligned_across_their_chunks():
    head = "word " * 18  # 72 letters: the next word falls into the second chunk
    a, b = pair(head + "red circle", "big " + head + "red circle")
    assert a.chunks == b.chunks == 2
    found = refine(a, b)
    assert torch.equal(found.matrix[where(a, "circle")][:, where(b, "circle")], torch.eye(6))
    torch.testing.assert_close(replace(*pair(head + "red", head + "turquoise")).matrix.sum(1), torch.ones(154))


def test_repeated_words_meet_in_order_the_earliest_first():
    assert matched(list("abab"), list("ab")) == [(0, 0), (1, 1)]
    assert matched(list("ab"), list("abab")) == [(0, 0), (1, 1)]
    assert matched(list("abc"), list("acb")) == [(0, 0), (2, 1)]


def test_words_are_marked_and_weighed():
    (words, _) = pair("a red circle and a red dot", "")
    marks = marked(words, ["red", "square"])
    assert marks.nonzero().flatten().tolist() == where(words, "red")
    assert marks.sum() == 6
    factors = equalizer(words, {"dot": -2.0})
    assert torch.equal(factors[where(words, "dot")], torch.full((3,), -2.0))
    assert (factors != 1).sum() == 3


@pytest.mark.parametrize(
    ("source", "target", "edit", "message"),
    [
        ("a red circle", "a big red circle", "replace", "equally many words"),
        ("a red circle", "a blue circle", "reweight", "use replace or refine"),
        ("a red circle", "a blue circle", "swap", "choose one of auto, replace"),
    ],
)
def test_an_edit_that_the_prompts_do_not_allow_is_refused(source, target, edit, message):
    with pytest.raises(InputError, match=message):
        align(*pair(source, target), edit)
