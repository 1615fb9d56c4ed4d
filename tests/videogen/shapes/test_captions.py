"""Captions and their reading agree with the scenes."""

import pytest
import torch

from videogen.errors import InputError
from videogen.shapes import parse, sample, world
from videogen.shapes.captions import captions, image_captions, plain, vocabulary
from videogen.shapes.wanted import Wanted, WantedObject, truths


def draw(count, seed=0, **kind):
    return sample(count, generator=torch.Generator().manual_seed(seed), **kind)


def agree(wanted: Wanted, truth: Wanted) -> bool:
    """Style, camera and number as the defaults read them; the rest where it is named."""
    if (wanted.style, wanted.camera, len(wanted.objects)) != (truth.style, truth.camera, len(truth.objects)):
        return False
    pairs = [(wanted.background, truth.background), (wanted.relation, truth.relation)]
    for one, other in zip(wanted.objects, truth.objects, strict=True):
        pairs += [(getattr(one, name), getattr(other, name)) for name in ("shape", "colour", "size", "motion")]
    return all(asked is None or asked == true for asked, true in pairs)


@pytest.mark.parametrize("cameras", [None, world.CAMERAS[1:]])
@pytest.mark.parametrize("write", [captions, image_captions])
def test_every_caption_is_read_back_as_true_of_its_scene(cameras, write):
    scenes = draw(1500, cameras=cameras)
    for text, truth in zip(write(scenes, torch.Generator().manual_seed(1)), truths(scenes), strict=True):
        assert agree(parse(text), truth), text


def test_the_plain_form_says_everything_but_the_size():
    scenes = draw(500)
    for text, truth in zip(plain(scenes), truths(scenes), strict=True):
        wanted = parse(text)
        assert agree(wanted, truth)
        assert wanted.background == truth.background
        assert wanted.relation == truth.relation
        assert all(None not in (item.shape, item.colour, item.motion) for item in wanted.objects)


def test_the_plain_form_is_the_issues_sentence():
    wanted = Wanted((WantedObject("circle", "red", None, "moving right"),), background="black")
    assert parse("a red circle moving right on a black background") == wanted
    scenes = draw(4000, objects=1, styles=["flat"], split="all")
    assert "a red circle moving right on a black background" in plain(scenes)


def test_phrasings_run_from_one_word_to_sentences():
    texts = draw(2000).captions(torch.Generator().manual_seed(0))
    lengths = {len(text.split()) for text in texts}
    assert {1, 2, 3} < lengths
    assert max(lengths) >= 15
    assert "circle" in texts


def test_the_vocabulary_is_exactly_the_words_of_the_captions():
    seen = set()
    for cameras in (None, world.CAMERAS[1:]):
        scenes = draw(4000, cameras=cameras)
        for text in captions(scenes, torch.Generator().manual_seed(2)) + plain(scenes):
            seen |= set(text.replace(",", " ,").split())
    assert seen == set(vocabulary())


def test_image_captions_nearly_all_name_the_motion():
    scenes = draw(1000, objects=1)
    read = [parse(text) for text in image_captions(scenes, torch.Generator().manual_seed(0))]
    assert sum(wanted.objects[0].motion is not None for wanted in read) > 900


@pytest.mark.parametrize(
    ("text", "first", "rest"),
    [
        ("circle", WantedObject("circle"), {}),
        ("red", WantedObject(colour="red"), {}),
        ("a red object that rotates", WantedObject(None, "red", None, "rotating"), {}),
        ("Big yellow star, grey background.", WantedObject("star", "yellow", "large"), {"background": "gray"}),
        ("a moving left circle", WantedObject("circle", None, None, "moving left"), {}),
        ("an outlined star grows", WantedObject("star", None, None, "growing"), {"style": "outlined"}),
    ],
)
def test_other_wordings_are_understood(text, first, rest):
    assert parse(text) == Wanted((first,), **rest)


def test_motions_go_to_the_right_object():
    wanted = parse("a rotating green star and a growing blue square on a navy background")
    assert wanted.objects == (
        WantedObject("star", "green", None, "rotating"),
        WantedObject("square", "blue", None, "growing"),
    )
    wanted = parse("a red circle moving left, left of a blue square standing still")
    assert [item.motion for item in wanted.objects] == ["moving left", "standing still"]
    assert wanted.relation == "left of"


@pytest.mark.parametrize("text", ["a dog on the beach", "", "a circle, a square and a star"])
def test_what_the_world_cannot_show_is_an_input_error(text):
    with pytest.raises(InputError):
        parse(text)
