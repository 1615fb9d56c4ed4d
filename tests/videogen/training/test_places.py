"""The mean over places: a function of the noisy clip alone, the plain mean where all is noise, and the clip itself where little is."""

import torch
from torch import Tensor

from videogen.shapes import sample, world
from videogen.shapes.geometry import moments, poses
from videogen.shapes.middle import Middle
from videogen.shapes.world import Scenes
from videogen.training.places import CELL, Places, expected, places

GROUND = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
BLOB = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(2))


def clip_at(x: int, y: int) -> Tensor:
    """Three frames in which something moves right by a cell a frame, from cell (x, y)."""
    clip = GROUND.expand(3, -1, -1, -1).clone()
    for frame in range(3):
        clip[frame, :, y : y + 3, x + frame : x + frame + 3] += BLOB[frame]
    return clip[None]


def mean(noisy: Tensor, x: int, y: int, alpha: float) -> Tensor:
    """Of the clip at (x, y), whose place may be x of 1 to 9 and y of 2 to 11."""
    free = torch.tensor([[[1 - x, 9 - x], [2 - y, 11 - y]]])
    sigma = (1 - alpha**2) ** 0.5
    there = Places(free, torch.full((1, 2), 64.0), torch.full((1, 2), 20.0))
    return expected(noisy, clip_at(x, y), GROUND, there, torch.tensor([alpha]), torch.tensor([sigma]))


def test_it_does_not_depend_on_where_the_object_was() -> None:
    noisy = 0.3 * clip_at(4, 5) + torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(mean(noisy, 4, 5, 0.3), mean(noisy, 7, 10, 0.3), atol=1e-5)


def test_without_a_signal_all_places_count_alike() -> None:
    noise = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    everywhere = torch.stack([clip_at(x, y) for x in range(1, 10) for y in range(2, 12)]).mean(0)
    assert torch.allclose(mean(noise, 4, 5, 0.0), everywhere, atol=1e-5)


def test_it_is_the_posterior_mean_of_bayes_rule() -> None:
    alpha, sigma = 0.2, (1 - 0.2**2) ** 0.5
    noisy = alpha * clip_at(4, 5) + sigma * torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    clips = torch.stack([clip_at(x, y) for x in range(1, 10) for y in range(2, 12)]).double()
    log = -(noisy - alpha * clips).square().flatten(1).sum(1) / (2 * sigma**2)
    bayes = (clips * log.softmax(0).view(-1, 1, 1, 1, 1, 1)).sum(0)
    assert torch.allclose(mean(noisy, 4, 5, alpha).double(), bayes, atol=1e-5)


def test_where_places_are_not_alike_it_is_still_that_of_bayes_rule() -> None:
    """Most clips near the middle: the box of the clip at (x, y), of 5 cells by 3, may be at x of 1 to 9 and y of 2 to 11."""
    prior, alpha = Middle(0.9, 10.0), 0.1
    half = torch.tensor([20.0, 12.0])
    where = [(x, y) for x in range(1, 10) for y in range(2, 12)]
    middles = torch.tensor([[CELL * (x + 2.5), CELL * (y + 1.5)] for x, y in where])
    noisy = alpha * clip_at(4, 5) + torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(8))
    clips = torch.stack([clip_at(x, y) for x, y in where]).double()
    sigma = (1 - alpha**2) ** 0.5
    log = prior.log_density(middles, half) - (noisy - alpha * clips).square().flatten(1).sum(1) / (2 * sigma**2)
    bayes = (clips * log.softmax(0).view(-1, 1, 1, 1, 1, 1)).sum(0)
    for x, y in ((4, 5), (8, 3)):
        there = Places(
            torch.tensor([[[1 - x, 9 - x], [2 - y, 11 - y]]]), middles[where.index((x, y))][None], half[None], prior
        )
        found = expected(noisy, clip_at(x, y), GROUND, there, torch.tensor([alpha]), torch.tensor([sigma]))
        assert torch.allclose(found.double(), bayes, atol=1e-5)


def test_at_low_noise_it_is_the_clip() -> None:
    noisy = 0.7 * clip_at(4, 5) + 0.7 * torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    assert torch.equal(mean(noisy, 4, 5, 0.7), clip_at(4, 5))


def _inside(scenes: Scenes) -> Tensor:
    pose = poses(scenes, moments(world.FRAMES))
    edge = (pose.radius + world.MARGIN - 1e-3)[..., None]
    inside = ((pose.centre >= edge) & (pose.centre <= world.SIZE - edge)).all(-1).all(1)
    return inside[:, 0] & (inside[:, 1] | (scenes.count == 1))


def test_objects_stay_inside_up_to_the_last_shift_and_not_beyond() -> None:
    scenes = sample(300, generator=torch.Generator().manual_seed(6), plain=True)
    free = places(scenes).free
    assert (free[..., 0] <= 0).all()
    assert (free[..., 1] >= 0).all()
    for axis in (0, 1):
        for end, sign in ((0, -1), (1, 1)):
            for further, stays in ((0, True), (1, False)):
                shift = torch.zeros(300, 1, 2)
                shift[:, 0, axis] = CELL * (free[:, axis, end] + sign * further)
                assert bool((_inside(scenes.change(centre=scenes.centre + shift)) == stays).all())


def test_textures_and_cameras_fix_the_place() -> None:
    generator = torch.Generator().manual_seed(7)
    assert not places(sample(20, generator=generator, plain=False)).free.any()
    assert not places(sample(20, generator=generator, plain=True, cameras=world.CAMERAS[1:])).free.any()
