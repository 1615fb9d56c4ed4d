"""Scenes keep the world's promises."""

import pytest
import torch

from videogen.errors import InputError
from videogen.shapes import sample, world
from videogen.shapes.geometry import moments, poses


def draw(count, seed=0, **kind):
    return sample(count, generator=torch.Generator().manual_seed(seed), **kind)


@pytest.mark.parametrize("cameras", [None, world.CAMERAS[1:]])
def test_objects_keep_inside_apart_and_related_in_every_frame(cameras):
    scenes = draw(600, objects=2, cameras=cameras)
    pose = poses(scenes, moments(world.FRAMES))
    edge = pose.radius[..., None]
    assert (pose.centre - edge > 0).all()
    assert (pose.centre + edge < world.SIZE).all()
    offset = pose.centre[:, :, 0] - pose.centre[:, :, 1]
    assert (offset.norm(dim=-1) > pose.radius.sum(-1)).all()
    x, y = offset.unbind(-1)
    holds = torch.stack([x < 0, x > 0, y < 0, y > 0], dim=-1)
    along = torch.stack([x.abs() >= y.abs()] * 2 + [y.abs() >= x.abs()] * 2, dim=-1)
    said = scenes.relation[:, None, None].expand(-1, world.FRAMES, 1)
    assert (holds & along).gather(2, said).all()


def test_ways_growth_and_turns_are_within_the_worlds_ranges():
    scenes = draw(800)
    pose = poses(scenes, torch.tensor([0.0, 0.5, 1.0]))
    way = (pose.centre[:, 2] - pose.centre[:, 0]) * torch.tensor([1.0, 1.0])
    for index, name in enumerate(world.MOTIONS):
        rows = scenes.motion == index
        direction = torch.tensor(world.DIRECTIONS.get(name, (0, 0)), dtype=torch.float32)
        along = (way[rows] * direction).sum(-1)
        assert torch.allclose(way[rows], along[:, None] * direction, atol=1e-4)
        ratio = (pose.radius[:, 2] / pose.radius[:, 0])[rows]
        turn = torch.rad2deg(pose.angle[:, 2] - pose.angle[:, 0])[rows].abs()
        low, high = world.TRAVEL if name in world.DIRECTIONS else (0, 0)
        assert ((along >= low - 1e-3) & (along <= high + 1e-3)).all()
        low, high = {"growing": (1.4, 2.0), "shrinking": (0.5, 1 / 1.4)}.get(name, (1, 1))
        assert ((ratio >= low - 1e-3) & (ratio <= high + 1e-3)).all()
        low, high = world.TURN if name == "rotating" else (0, 0)
        assert ((turn >= low - 1e-2) & (turn <= high + 1e-2)).all()
    for index, name in enumerate(world.SIZES):
        middle = pose.radius[:, 1][scenes.size == index]
        low, high = world.RADIUS[name]
        assert ((middle >= low - 1e-3) & (middle <= high + 1e-3)).all()


def test_a_circle_never_rotates_and_two_objects_differ_in_colour():
    scenes = draw(800, split="all")
    circles = scenes.shape == world.SHAPES.index("circle")
    assert not (circles & (scenes.motion == world.MOTIONS.index("rotating"))).any()
    assert (scenes.colour[:, 0] != scenes.colour[:, 1]).all()


def test_colours_are_the_constants_up_to_their_jitter():
    scenes = draw(400)
    nominal = torch.tensor(list(world.COLOURS.values()))[scenes.colour] / 255
    assert ((scenes.rgb - nominal).abs() <= world.JITTER / 255 + 1e-6).all()
    nominal = torch.tensor(list(world.BACKGROUNDS.values()))[scenes.background] / 255
    assert ((scenes.ground - nominal).abs() <= world.JITTER / 255 + 1e-6).all()


def test_a_tenth_of_the_combinations_is_held_out_and_every_value_is_trained():
    shape = torch.arange(len(world.SHAPES))[:, None, None]
    colour = torch.arange(len(world.COLOURS))[None, :, None]
    motion = torch.arange(len(world.MOTIONS))[None, None]
    exists = ((shape > 0) | (motion < len(world.MOTIONS) - 1)).expand(4, 8, 8)
    rare = world.held_out(shape, colour, motion) & exists
    assert round(100 * rare.sum().item() / exists.sum().item()) == 10
    for pair in range(3):  # of every pair of values, most partners are trained
        assert (rare.sum(pair) <= 1).all()


def test_splits_keep_to_their_combinations():
    def rare(scenes):
        return world.held_out(scenes.shape, scenes.colour, scenes.motion)

    for split in ("train", "test"):
        assert not rare(draw(500, split=split)).any()
    assert rare(draw(300, split="held_out"))[:, 0].all()
    assert 0.05 < rare(draw(1000, split="all"))[:, 0].float().mean() < 0.2


def test_a_seed_gives_the_same_scenes_and_another_seed_others():
    first, again, other = draw(50, 3), draw(50, 3), draw(50, 4)
    assert all(torch.equal(a, b) for a, b in zip(first.tensors(), again.tensors(), strict=True))
    assert not torch.equal(first.centre, other.centre)


def test_what_is_asked_for_is_drawn():
    scenes = draw(100, objects=1, plain=True, styles=["shaded"], motions=["moving left", "growing"])
    assert (scenes.count == 1).all()
    assert {list(world.BACKGROUNDS)[i] for i in scenes.background.tolist()} == set(world.PLAIN_BACKGROUNDS)
    assert {world.STYLES[i] for i in scenes.style.tolist()} == {"shaded"}
    assert {world.MOTIONS[i] for i in scenes.motion.flatten().tolist()} == {"moving left", "growing"}
    assert {list(world.BACKGROUNDS)[i] for i in draw(50, plain=False).background.tolist()} == {"striped", "checkered"}
    assert (draw(100, motions=["rotating"]).shape != world.SHAPES.index("circle")).all()
    assert (draw(50, cameras=world.CAMERAS[1:]).camera > 0).all()
    assert not (draw(50).camera > 0).any()


def test_scenes_are_taken_apart_and_joined():
    scenes = draw(10)
    parts = [scenes[:4], scenes[4], scenes[[5, 6]], scenes[torch.arange(10) > 6]]
    joined = world.concatenate(parts)
    assert [len(part) for part in parts] == [4, 1, 2, 3]
    assert all(torch.equal(a, b) for a, b in zip(joined.tensors(), scenes.tensors(), strict=True))
    assert torch.equal(scenes[-1].centre, scenes[9].centre)


@pytest.mark.parametrize(
    "wrong",
    [{"split": "dev"}, {"objects": 3}, {"styles": ["cubist"]}, {"motions": ["jumping"]}, {"count": 0}],
)
def test_a_wrong_wish_is_an_input_error(wrong):
    with pytest.raises(InputError):
        draw(**({"count": 4} | wrong))
