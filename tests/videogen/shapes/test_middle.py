"""Clips near the middle: how many, how near, and that all else stays."""

import pytest
import torch

from videogen.shapes import sample, world
from videogen.shapes.geometry import moments, poses
from videogen.shapes.middle import Middle, box
from videogen.shapes.twins import TWINS, twins


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_share_of_clips_is_near_the_middle_and_the_others_are_where_they_were() -> None:
    scenes = sample(2000, generator=draw(1))
    moved = Middle(0.75, 5.0).moved(scenes, generator=draw(2))
    stayed = (moved.centre == scenes.centre).flatten(1).all(1)
    assert 0.2 < float(stayed.float().mean()) < 0.3
    off = box(moved[~stayed])[0] - world.SIZE / 2
    assert float(off.mean(0).abs().max()) < 0.5
    assert off.std(0).tolist() == pytest.approx([5.0, 5.0], rel=0.1)


def test_objects_stay_inside_and_keep_their_distance() -> None:
    scenes = sample(600, generator=draw(3), objects=2)
    moved = Middle(1.0, 30.0).moved(scenes, generator=draw(4))
    pose = poses(moved, moments(world.FRAMES))
    edge = (pose.radius + world.MARGIN - 1e-2)[..., None]
    assert bool(((pose.centre >= edge) & (pose.centre <= world.SIZE - edge)).all())
    apart, before = (each.centre[:, 0] - each.centre[:, 1] for each in (moved, scenes))
    assert torch.allclose(apart, before, atol=1e-4)


def test_scenes_that_belong_together_move_together() -> None:
    moved = Middle(0.5, 20.0).moved(twins(400, "motion", generator=draw(5)), generator=draw(6), alike=TWINS)
    fours = moved.centre.unflatten(0, (-1, TWINS))
    assert torch.equal(fours, fours[:, :1].expand_as(fours))
    middle, half = box(moved)
    assert bool(((middle - half >= -1e-2) & (middle + half <= world.SIZE + 1e-2)).all())


@pytest.mark.parametrize("middle", [Middle(), Middle(0.8, 8.0), Middle(1.0, 25.0)])
def test_the_density_is_one_of_places(middle: Middle) -> None:
    """Over all middles at which a clip fits into the frame it comes to 1."""
    half = torch.tensor([30.0, 45.0])
    x, y = (torch.arange(float(h), world.SIZE - float(h), 0.25) + 0.125 for h in half)
    grid = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)
    assert float(middle.log_density(grid, half).exp().sum() * 0.25**2) == pytest.approx(1.0, abs=2e-3)


def test_the_density_is_that_of_the_draw() -> None:
    """Shares of drawn clips by their distance from the middle, beside the density's."""
    middle, scenes = Middle(0.8, 8.0), sample(1, generator=draw(7), objects=1, motions=["standing still"])
    anywhere = torch.zeros(20_000, 2, 2)
    reach = scenes.radius[0, 0] + world.MARGIN
    anywhere[:, 0] = reach + (world.SIZE - 2 * reach) * torch.rand(20_000, 2, generator=draw(8))
    many = scenes[torch.zeros(20_000, dtype=torch.long)].change(centre=anywhere)
    found, half = box(middle.moved(many, generator=draw(9)))
    ends = torch.arange(float(half[0, 0]), float(world.SIZE - half[0, 0]), 0.5) + 0.25
    grid = torch.stack(torch.meshgrid(ends, ends, indexing="ij"), -1)
    density = middle.log_density(grid, half[0]).exp() * 0.25
    for distance in (5.0, 10.0, 20.0, 35.0):
        wanted = float(density[(grid - world.SIZE / 2).norm(dim=-1) < distance].sum())
        share = float(((found - world.SIZE / 2).norm(dim=-1) < distance).float().mean())
        assert share == pytest.approx(wanted, abs=0.012)
