"""Scenes in fours: alike but for one word, all of them scenes of the training split that keep the world's promises."""

import pytest
import torch

from videogen.errors import InputError
from videogen.shapes import world
from videogen.shapes.captions import plain
from videogen.shapes.geometry import moments, poses
from videogen.shapes.sampling import promises
from videogen.shapes.twins import Word, twins
from videogen.shapes.world import Scenes


def drawn(word: Word) -> Scenes:
    return twins(800, word, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("word", ["shape", "motion"])
def test_training_may_see_every_one_of_them(word: Word) -> None:
    scenes = drawn(word)
    assert not world.held_out(scenes.shape, scenes.colour, scenes.motion)[:, 0].any()
    turning = (scenes.shape == world.SHAPES.index("circle")) & (scenes.motion == world.MOTIONS.index("rotating"))
    assert not turning[:, 0].any()


@pytest.mark.parametrize("word", ["shape", "motion"])
def test_the_first_object_stays_inside_the_frame(word: Word) -> None:
    pose = poses(drawn(word), moments(world.FRAMES))
    low = (pose.centre - pose.radius[..., None])[:, :, 0]
    high = (pose.centre + pose.radius[..., None])[:, :, 0]
    assert low.min() >= world.MARGIN - 1e-3
    assert high.max() <= world.SIZE - world.MARGIN + 1e-3


@pytest.mark.parametrize(("word", "names"), [("shape", world.SHAPES), ("motion", world.MOTIONS)])
def test_the_captions_of_four_differ_in_this_word_only(word: Word, names: tuple[str, ...]) -> None:
    captions = plain(drawn(word))
    for first in range(0, len(captions), 4):
        four = captions[first : first + 4]
        for name in names:
            four = [caption.replace(name, "...") for caption in four]
        assert len(set(four)) == 1


def test_pairs_exchange_colours_shapes_and_both() -> None:
    scenes = drawn("pair")
    assert set(scenes.count.tolist()) == {2}
    assert not world.held_out(scenes.shape, scenes.colour, scenes.motion).any()
    turning = (scenes.shape == world.SHAPES.index("circle")) & (scenes.motion == world.MOTIONS.index("rotating"))
    assert not turning.any()
    assert promises(scenes).all()
    full = 0
    for first in range(0, len(scenes), 4):
        four = scenes[first : first + 4]
        told = [
            tuple(zip(*(getattr(four, name)[i].tolist() for name in ("shape", "colour")), strict=True))
            for i in range(4)
        ]
        (a, b), (c, d) = told[0]
        wanted = [told[0], ((a, d), (c, b)), ((c, b), (a, d)), ((c, d), (a, b))]
        assert all(one in (right, told[0]) for one, right in zip(told, wanted, strict=True))
        full += told == wanted
    assert full > 50
    colours = torch.tensor(list(world.COLOURS.values()), dtype=torch.float32)[scenes.colour] / 255
    assert (scenes.rgb - colours).abs().max() <= (world.JITTER + 0.1) / 255


def test_motions_have_the_numbers_they_need_and_no_others() -> None:
    scenes = drawn("motion")
    motion = scenes.motion[:, 0]

    def have(field: torch.Tensor, rest: float) -> set[str]:
        return {world.MOTIONS[number] for number in motion[field[:, 0] != rest].tolist()}

    assert have(scenes.travel, 0.0) == set(world.DIRECTIONS)
    assert have(scenes.growth, 1.0) == {"growing", "shrinking"}
    assert have(scenes.turn, 0.0) == {"rotating"}
    assert float(scenes.growth[motion == world.MOTIONS.index("growing"), 0].min()) >= world.GROWTH[0]
    assert float(scenes.growth[motion == world.MOTIONS.index("shrinking"), 0].max()) <= 1 / world.GROWTH[0]


def test_a_count_that_is_no_multiple_of_four_is_said() -> None:
    with pytest.raises(InputError, match="no multiple of 4"):
        twins(6, "shape", generator=torch.Generator())
