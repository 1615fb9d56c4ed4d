"""The fusion of two attention maps, against its formula; and when it acts."""

import pytest
import torch

from editors.map_fusion import Exchange, inside
from tests import folders
from tests.nets import PLACE
from videogen.control import Site
from videogen.errors import InputError
from videogen.models.words import equal_chunks, tokenize

SOURCE, TARGET = equal_chunks([tokenize(text, folders.tokenizer()) for text in ("a red circle", "a big blue circle")])
CROSS = Site("unet", "here", "cross", "down", 0, "text")
GRID = [900.0, 700.0, 500.0, 300.0, 100.0]


def probs(seed: int, m: int = 77) -> torch.Tensor:
    return torch.randn(1, 2, 3, 6, m, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_text_maps_follow_the_formula():
    fusion = Exchange("refine", {"default_": 0.6, "circle": 0.2}, weights={"blue": 3.0, "circle": 0.5}).between(
        SOURCE, TARGET
    )
    source, target, found = probs(1), probs(2), fusion.alignment
    for t, circle in ((900.0, 1.0), (500.0, 0.0)):
        gate, factor = torch.ones(77), torch.ones(77)
        gate[list(TARGET.where("circle"))] = circle
        factor[list(TARGET.where("circle"))], factor[list(TARGET.where("blue"))] = 0.5, 3.0
        mixed = factor * (found.share * (source @ found.matrix) + (1 - found.share) * target)
        torch.testing.assert_close(fusion.at(t, GRID).fuse(CROSS, source, target), gate * mixed + (1 - gate) * target)
    assert not fusion.at(300.0, GRID).acts(CROSS)


@pytest.mark.parametrize("edit", ["replace", "refine", "reweight"])
def test_equal_prompts_take_the_sources_maps_bit_for_bit(edit):
    now = Exchange(edit, 1.0, 1.0).between(SOURCE, SOURCE).at(500.0, GRID)
    assert torch.equal(now.fuse(CROSS, probs(1), probs(2)), probs(1))
    assert torch.equal(now.fuse(PLACE, probs(1, 6), probs(2, 6)), probs(1, 6))


def test_weights_of_1_change_nothing_and_emphasis_is_for_new_words():
    plain, weighed = (
        Exchange("refine", 1.0, weights=w).between(SOURCE, TARGET).at(500.0, GRID) for w in ({}, {"blue": 1.0})
    )
    assert torch.equal(plain.fuse(CROSS, probs(1), probs(2)), weighed.fuse(CROSS, probs(1), probs(2)))
    factors = Exchange("refine", emphasis=10.0, weights={"big": 2.0}).between(SOURCE, TARGET).equalizer
    assert factors[list(TARGET.where("blue"))].unique().item() == 10
    assert factors[list(TARGET.where("big"))].unique().item() == 2
    assert (factors != 1).sum() == len("blue") + len("big")


def test_emphasis_leaves_a_word_alone_that_occurs_unchanged_too():
    words = [tokenize(text, folders.tokenizer()) for text in ("a red circle", "a red circle and a red square")]
    source, target = equal_chunks(words)
    fusion = Exchange("refine", emphasis=10.0).between(source, target)
    old, new = target.where("red")[:3], target.where("red")[3:]
    assert fusion.equalizer[list(old)].tolist() == [1.0] * 3
    assert fusion.equalizer[[*new, *target.where("square")]].tolist() == [10.0] * 9
    # One that `weights` names is meant wherever it stands.
    named = Exchange("refine", emphasis=10.0, weights={"red": 2.0}).between(source, target)
    assert named.equalizer[[*old, *new]].tolist() == [2.0] * 6


def test_self_maps_are_the_targets_inside_the_mask_and_the_sources_outside():
    now = Exchange("refine", 0.0, 0.5).between(SOURCE, TARGET).at(900.0, GRID)
    mask = torch.zeros(1, 2, 6)
    mask[0, 1, 2:4] = 1
    out = now.fuse(PLACE, probs(1, 6), probs(2, 6), mask)
    assert torch.equal(out[0, 1, :, 2:4], probs(2, 6)[0, 1, :, 2:4])
    assert torch.equal(out[0, 0], probs(1, 6)[0, 0])
    assert torch.equal(out[0, 1, :, :2], probs(1, 6)[0, 1, :, :2])


def test_only_the_sites_of_its_levels_take_part():
    now = Exchange("refine", 1.0, 1.0).between(SOURCE, TARGET, cross_level=1, self_level=2).at(900.0, GRID)
    for kind, level, acts in (
        ("cross", 0, False),
        ("cross", 1, True),
        ("self", 1, False),
        ("self", 2, True),
        ("temporal", 2, False),
    ):
        assert now.acts(Site("unet", "here", kind, "up", level, "text" if kind == "cross" else "")) is acts
    assert not now.acts(Site("unet", "here", "cross", "up", 2, "image"))
    assert not now.acts(Site("canny", "here", "self", "up", 2))


@pytest.mark.parametrize(
    ("window", "on"),
    [
        ((0.0, 0.8), [1, 1, 1, 1, 0]),
        ((0.2, 0.6), [0, 1, 1, 0, 0]),
        ((0.0, 0.5), [1, 1, 0, 0, 0]),
        ((0.0, 0.0), [0] * 5),
        ((0.0, 1.0), [1] * 5),
    ],
)
def test_a_window_is_whole_steps_of_the_grid(window, on):
    assert [inside(t, GRID, window) for t in GRID] == [bool(x) for x in on]


@pytest.mark.parametrize(
    ("exchange", "message"),
    [
        (Exchange(cross=1.5), "0 <= start <= stop <= 1"),
        (Exchange(cross={"green": 0.5}), "'green' does not occur"),
        (Exchange(weights={"red": 2.0}), "'red' does not occur"),
    ],
)
def test_what_does_not_fit_the_prompts_is_refused(exchange, message):
    with pytest.raises(InputError, match=message):
        exchange.between(SOURCE, TARGET)
