"""The camera read from pixels, held against scenes whose camera is known."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.metrics.shapes_accuracy import blurred
from videogen.shapes import Scenes, measure, render, sample, world
from videogen.shapes.camera import Camera, cameras, own_motion
from videogen.shapes.wanted import truths

PIXELS, RATIO = 1.0, 0.03  # a small error: of 12 to 28 pixels, of 1.2 to 1.5 times


def scenes(count: int, seed: int, **kind) -> Scenes:
    return sample(
        count, generator=torch.Generator().manual_seed(seed), **{"plain": False, "cameras": world.CAMERAS, **kind}
    )


def right(drawn: Scenes, frames: Tensor) -> list[bool]:
    """Whether the camera of each clip is read with its name, its way and its zoom, and the objects' own motions with it."""
    found = measure(frames)
    answers = []
    for i, (camera, seen, truth) in enumerate(zip(cameras(frames, found), found, truths(drawn))):
        if camera is None or camera.name != truth.camera:
            answers.append(False)
            continue
        wrong = max(abs(a - b) for a, b in zip(camera.pan, drawn.pan[i].tolist()))
        motions = sorted(own_motion(item, camera) for item in seen.objects)
        wanted = sorted(str(item.motion) for item in truth.objects)
        answers.append(wrong < PIXELS and abs(camera.zoom - float(drawn.zoom[i])) < RATIO and motions == wanted)
    return answers


def test_every_camera_is_read_on_both_textures():
    """Each camera once on each texture, from colours with their jitter."""
    drawn = scenes(140, 1)
    pairs = itertools.product(range(len(world.CAMERAS)), map(list(world.BACKGROUNDS).index, ("striped", "checkered")))
    first = [((drawn.camera == camera) & (drawn.background == ground)).nonzero()[0, 0] for camera, ground in pairs]
    drawn = drawn[torch.stack(first)]
    assert all(right(drawn, render(drawn).frames))


@pytest.mark.slow
@pytest.mark.parametrize("after", [None, blurred])
def test_hundreds_of_clips_are_read_right(after):
    drawn = scenes(200, 2)
    answers: list[bool] = []
    for start in range(0, len(drawn), 10):
        part = drawn[list(range(start, start + 10))]
        frames = render(part).frames
        answers += right(part, frames if after is None else after(frames, torch.Generator().manual_seed(start)))
    assert sum(answers) >= 0.99 * len(answers)


def test_nothing_tells_on_plain_backgrounds_on_a_still_and_where_the_background_jumps():
    drawn = scenes(2, 3, plain=True)
    frames = render(drawn).frames
    assert cameras(frames, measure(frames)) == [None, None]
    frames = render(scenes(1, 4)).frames
    assert cameras(frames[:, :1], measure(frames[:, :1])) == [None]
    moving = scenes(16, 5, cameras=["none"], objects=1)[[0]]
    phases = torch.rand(16, 2, generator=torch.Generator().manual_seed(6))
    frames = torch.cat([render(moving.change(phase=phase[None]), only=[i]).frames for i, phase in enumerate(phases)], 1)
    assert cameras(frames, measure(frames)) == [None]


def test_a_pan_over_stripes_without_an_object_is_unknown_and_over_checkers_it_is_not():
    drawn = scenes(24, 7, cameras=["pans up"])
    away = drawn.change(centre=torch.full_like(drawn.centre, -1000.0))
    one_each = [
        (away.background == list(world.BACKGROUNDS).index(name)).nonzero()[0, 0] for name in ("striped", "checkered")
    ]
    frames = render(away[torch.stack(one_each)]).frames
    stripes, checkers = cameras(frames, measure(frames))
    assert stripes is None
    assert checkers is not None
    assert checkers.name == "pans up"


def test_other_sizes_and_lengths_are_told_in_pixels_of_the_world():
    drawn = scenes(4, 8, cameras=["pans right"])
    frames = render(drawn, frames=24, size=96).frames
    for i, camera in enumerate(cameras(frames, measure(frames))):
        assert camera is not None
        assert camera.along("pans right") == pytest.approx(float(drawn.pan[i, 0]), abs=PIXELS)
        assert camera.along("pans left") == -camera.along("pans right")


def test_only_pans_have_a_way():
    with pytest.raises(InputError, match="zooms in"):
        Camera("none", (0.0, 0.0), math.e).along("zooms in")
