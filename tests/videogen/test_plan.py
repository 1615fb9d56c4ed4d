"""What a call settles before it computes."""

import math
import re

import pytest
import torch

from videogen import plan
from videogen.errors import InputError
from videogen.noise import FrameNoise, source_of
from videogen.windows import Windows

ADDRESS = (1, range(6), (4, 2, 3))


@pytest.mark.parametrize("value", [-5, 0, 1, 7, 9, 11, 12, 13, 515, 10**20 + 1])
def test_the_size_that_is_named_fits_and_none_is_nearer(value: int) -> None:
    with pytest.raises(InputError, match="nearest is") as caught:
        plan.size_of(64, value, (64, 64), 8)
    near = int(re.findall(r"\d+", str(caught.value))[-1])
    assert near % 8 == 0
    assert near >= 8
    assert abs(near - value) <= 4 or near == 8


def test_a_size_that_fits_is_kept_and_none_is_the_default() -> None:
    assert plan.size_of(None, 24, (64, 32), 8) == (64, 24)
    assert plan.size_of(8, None, (64, 32), 8) == (8, 32)


@pytest.mark.parametrize("value", [64.5, math.nan, math.inf])
def test_a_size_that_is_no_whole_number_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="whole pixels"):
        plan.size_of(value, 64, (64, 64), 8)  # type: ignore[arg-type]


def test_windows_come_where_the_clip_is_longer_than_the_table() -> None:
    assert plan.windows_of(None, 32, False, longest=32, trained=16) is None
    assert plan.windows_of(None, 33, False, longest=32, trained=16) == Windows(16, 4)
    assert plan.windows_of(Windows(8, 2), 9, False, longest=32, trained=16) == Windows(8, 2)


def test_free_noise_begins_where_the_clip_is_longer_than_those_of_training() -> None:
    assert plan.windows_of(None, 16, True, longest=32, trained=16) is None
    assert plan.windows_of(None, 17, True, longest=32, trained=16) == Windows(16, 12)


def test_a_picture_has_no_windows_and_an_image_model_such_as_bound_memory() -> None:
    assert plan.windows_of(Windows(8, 2), 1, True, longest=32, trained=16) is None
    assert plan.windows_of(None, 16, False, longest=None, trained=None) is None
    assert plan.windows_of(None, 99, False, longest=None, trained=None) == Windows(16, 0, "flat")
    assert plan.windows_of(Windows(8, 2), 99, False, longest=None, trained=None) == Windows(8, 2)


def test_a_frame_choice_can_be_cut_into_windows_and_has_no_use_for_free_noise() -> None:
    asked = Windows(8, 2)
    assert plan.windows_of(asked, 99, False, longest=None, trained=None, chosen=True) == asked
    assert plan.windows_of(None, 99, False, longest=None, trained=None, chosen=True) is None
    with pytest.raises(InputError, match="none is loaded"):
        plan.windows_of(asked, 99, True, longest=None, trained=None, chosen=True)


def test_latents_win_over_noise_by_address() -> None:
    latents = torch.full((1, 6, 4, 2, 3), 3.0)
    noise = FrameNoise(1)
    assert plan.first_noise(latents, noise, ADDRESS, None) is latents
    assert plan.first_noise(None, noise, ADDRESS, None).equal(noise(*ADDRESS))


def test_shuffled_noise_is_made_of_the_first_windows() -> None:
    noise = FrameNoise(1)
    first = plan.first_noise(None, noise, ADDRESS, Windows(4, 2))
    plain = noise(*ADDRESS)
    assert first[:, :4].equal(plain[:, :4])
    assert all(any(frame.equal(source) for source in plain[0, :2]) for frame in first[0, 4:])
    with pytest.raises(InputError, match="give seed="):
        plan.first_noise(None, source_of(None, torch.Generator()), ADDRESS, Windows(4, 2))
