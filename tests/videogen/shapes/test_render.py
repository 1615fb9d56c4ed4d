"""Pictures against analytic areas, their own ground truth and each other."""

import math

import pytest
import torch

from videogen.errors import InputError
from videogen.shapes import render, sample, world
from videogen.shapes.geometry import area_factor, poses


def draw(count, seed=0, **kind):
    return sample(count, generator=torch.Generator().manual_seed(seed), **kind)


def test_single_frames_equal_the_clips_frames():
    scenes = draw(12, cameras=world.CAMERAS[1:])
    clips = render(scenes).frames
    assert clips.shape == (12, 16, 3, 128, 128)
    assert torch.equal(render(scenes, only=[0, 7, 15]).frames, clips[:, [0, 7, 15]])
    each = torch.randint(16, (12, 1), generator=torch.Generator().manual_seed(0))
    own = clips[torch.arange(12), each[:, 0]]
    assert torch.equal(render(scenes, only=each).frames[:, 0], own)
    assert torch.equal(render(scenes, frames=1).frames[:, 0], clips[:, 0])


def test_a_scene_looks_the_same_alone_and_in_a_batch():
    scenes = draw(9)
    clips = render(scenes, only=[0, 9]).frames
    for index in range(9):
        assert torch.allclose(render(scenes[index], only=[0, 9]).frames[0], clips[index], atol=1e-6)


def test_scenes_are_drawn_on_their_own_device_whatever_the_default():
    """Nothing of a picture or its truth is made where the process happens to make tensors, here on a device without memory."""
    scenes = draw(12, cameras=world.CAMERAS)
    truths = ("frames", "masks", "boxes", "depth", "sketch", "edges", "flow", "palette")
    here = render(scenes, frames=3)
    with torch.device("meta"):
        elsewhere = render(scenes, frames=3)
        found = {name: getattr(elsewhere, name) for name in truths}
    for name in truths:
        assert torch.equal(found[name], getattr(here, name)), name


@pytest.mark.parametrize("size", [64, 128, 192])
def test_masks_have_the_shapes_areas_at_every_size(size):
    scenes = draw(40)
    rendered = render(scenes, size=size, only=[0, 8, 15])
    radius = poses(scenes, rendered.times).radius * (size / 128)
    factors = torch.tensor([area_factor(name) for name in world.SHAPES])[scenes.shape]
    there = torch.arange(2) < scenes.count[:, None]
    expected = factors[:, None] * radius**2 * there[:, None]
    area = rendered.masks.sum((-1, -2))
    perimeter = 2 * math.pi * radius
    assert ((area - expected).abs() <= 0.1 * perimeter).all()
    assert (area[~there[:, None].expand_as(area)] == 0).all()


def test_a_flat_clip_is_its_palette_laid_over_the_background_by_its_masks():
    scenes = draw(30, styles=["flat"], plain=True)
    rendered = render(scenes, only=[0, 10])
    masks, palette = rendered.masks, rendered.palette
    rest = 1 - masks.sum(2, keepdim=True)
    weights = torch.cat([masks, rest], dim=2)
    expected = torch.einsum("bfnhw,bnc->bfchw", weights, palette[:, :3])
    assert torch.allclose(rendered.frames, expected, atol=1e-5)


def test_textured_backgrounds_have_both_their_tones_in_equal_shares():
    scenes = draw(40, plain=False, objects=1, motions=["standing still"])
    rendered = render(scenes, only=[0])
    free = rendered.masks.sum(2)[:, 0] == 0
    for frame, tones, mask in zip(rendered.frames[:, 0], scenes.ground, free, strict=True):
        pixels = frame[:, mask]
        near = [((pixels - tone[:, None]).abs().amax(0) < 1e-5).float().mean() for tone in tones]
        assert sum(near) > 0.7
        assert abs(near[0] - near[1]) < 0.15


def test_styles_differ_inside_the_same_outline_only():
    scenes = draw(24, styles=["flat"])
    flat = render(scenes, only=[0])
    inside = flat.masks.sum(2, keepdim=True) > 0
    for index in (1, 2):
        other = render(scenes.change(style=torch.full_like(scenes.style, index)), only=[0])
        changed = (other.frames - flat.frames).abs()
        assert torch.equal(other.masks, flat.masks)
        assert (changed * ~inside).max() == 0
        assert (changed.amax(2) * inside[:, :, 0]).flatten(1).amax(1).min() > 0.1


def test_a_camera_that_pans_right_moves_everything_left():
    scenes = draw(30, cameras=world.CAMERAS[1:], motions=["standing still"])
    scenes = scenes[scenes.camera == world.CAMERAS.index("pans right")]
    start, end = poses(scenes, torch.tensor([0.0, 1.0])).centre.unbind(1)
    assert torch.allclose(end - start, -scenes.pan[:, None].expand(-1, 2, -1), atol=1e-4)
    assert (scenes.pan[:, 0] > 0).all()


def test_frames_that_do_not_exist_are_an_input_error():
    with pytest.raises(InputError, match="0 to 15"):
        render(draw(1), only=[16])
    with pytest.raises(InputError):
        render(draw(1), size=0)
