"""Usual scenes: how many, how near the middle of the ranges, and that the world's promises hold."""

import pytest
import torch

from videogen.shapes import sample, world
from videogen.shapes.geometry import moments, poses
from videogen.shapes.sampling import promises
from videogen.shapes.twins import TWINS, Word, twins
from videogen.shapes.usual import LOOSE, PAIR, Usual
from videogen.shapes.world import Scenes


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inside(scenes: Scenes) -> bool:
    pose = poses(scenes, moments(world.FRAMES))
    edge = (pose.radius + world.MARGIN - 1e-2)[..., None]
    kept = ((pose.centre >= edge) & (pose.centre <= world.SIZE - edge)).all(-1).all(1)
    return bool((kept | (torch.arange(2) >= scenes.count[:, None])).all())


def test_a_share_of_clips_keeps_a_part_of_each_range() -> None:
    scenes = sample(4000, generator=draw(1), objects=1)
    changed = Usual(0.75, 0.2, 0.0).drawn(scenes, generator=draw(2))
    usual = (changed.radius != scenes.radius).any(1)
    assert 0.72 < float(usual.float().mean()) < 0.78
    assert torch.equal(changed.size, scenes.size)
    assert torch.equal(changed.motion, scenes.motion)
    kept = changed[usual]
    for number, name in enumerate(world.SIZES):
        low, high = world.RADIUS[name]
        radius = kept.radius[kept.size == number]
        assert float((radius - (low + high) / 2).abs().max()) <= 0.1 * (high - low) + 1e-4
        assert float(radius.std()) > 0.04 * (high - low)
    grown = kept.growth[kept.growth != 1]
    for values, low, high in (
        (kept.travel[kept.travel > 0], 38.4, 45.6),
        (torch.maximum(grown, 1 / grown), 1.64, 1.76),
        (kept.turn[kept.turn != 0].rad2deg(), 108.0, 132.0),
    ):
        assert values.aminmax() == pytest.approx((low, high), rel=1e-2)
        assert bool(((values > low - 1e-3) & (values < high + 1e-3)).all())


def test_motions_stay_what_they_are() -> None:
    """What is at rest stays at rest, what grows grows."""
    scenes = sample(1000, generator=draw(3))
    changed = Usual(1.0).drawn(scenes, generator=draw(4))
    for name, rest in (("travel", 0.0), ("turn", 0.0), ("growth", 1.0)):
        assert torch.equal(getattr(changed, name) == rest, getattr(scenes, name) == rest)
    assert torch.equal(changed.growth > 1, scenes.growth > 1)


def test_small_ones_become_large_and_all_stay_inside() -> None:
    scenes = sample(2000, generator=draw(5), objects=1)
    changed = Usual(1.0, 0.25, 0.6).drawn(scenes, generator=draw(6))
    assert float((changed.size[:, 0] == world.SIZES.index("large")).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert inside(scenes)
    assert inside(changed)


def test_two_objects_keep_the_promises_and_stand_in_a_row_or_a_column() -> None:
    scenes = sample(500, generator=draw(7), objects=2)
    changed = Usual(1.0).drawn(scenes, generator=draw(8))
    usual = (changed.radius != scenes.radius).any(1)
    assert float(usual.float().mean()) > 0.95
    assert bool(promises(changed).all())
    assert torch.equal(changed.relation, scenes.relation)
    kept = changed[usual]
    offset = kept.centre[:, 0] - kept.centre[:, 1]
    axis = world.table(world.RELATION_AXES, world.RELATIONS)[kept.relation]
    along, across = (offset * axis).sum(1), (offset * axis.flip(1)).sum(1).abs()
    assert float(along.min()) >= PAIR[0] - LOOSE - 1e-3
    assert float(along.max()) <= PAIR[-1] + LOOSE + 1e-3
    assert float(across.max()) <= LOOSE + 1e-3
    near = (along - torch.tensor([PAIR]).T).abs().amin(0)
    assert float(near.max()) <= LOOSE + 1e-3
    stayed = changed[~usual]
    assert all(torch.equal(one, two) for one, two in zip(stayed.tensors(), scenes[~usual].tensors(), strict=True))


@pytest.mark.parametrize("word", ["shape", "motion"])
def test_scenes_that_belong_together_stay_together(word: Word) -> None:
    scenes = twins(800, word, generator=draw(9))
    changed = Usual(0.5).drawn(scenes, generator=draw(10), alike=TWINS)
    for field in (changed.radius, changed.size, changed.centre):
        fours = field.unflatten(0, (-1, TWINS))
        assert torch.equal(fours, fours[:, :1].expand_as(fours))
