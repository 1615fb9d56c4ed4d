"""Clips convert to and from arrays and pictures without loss, and refuse what is no clip."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from videogen.clip import Clip, contact_sheet, from_numpy, from_pil
from videogen.errors import InputError


def test_every_byte_survives_floats_arrays_and_pictures() -> None:
    frames = np.arange(2 * 16 * 24 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 16, 24, 3)
    clip = from_numpy(frames, Fraction(30000, 1001))
    assert np.array_equal(Clip(clip.to_float()).to_numpy(), frames)
    assert np.array_equal(from_pil(clip.to_pil()).to_numpy(), frames)
    assert (len(clip), clip.height, clip.width, clip.duration) == (2, 16, 24, Fraction(2002, 30000))


def test_floats_are_rounded_and_clamped_and_nan_is_black() -> None:
    values = torch.tensor([-1.0, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 2.0, torch.nan]).view(1, 1, 1, 7)
    assert Clip(values).to_numpy()[0, 0, :, 2].tolist() == [0, 0, 0, 1, 255, 255, 0]


@pytest.mark.parametrize("shape", [(3, 8, 8), (0, 3, 8, 8), (2, 4, 8, 8), (2, 3, 0, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="f c h w"):
        Clip(torch.zeros(shape))


@pytest.mark.parametrize("fps", [0, -1, 2000, "fast", float("nan"), float("inf")])
def test_other_rates_are_refused(fps: object) -> None:
    with pytest.raises(InputError, match="frames per second"):
        Clip(torch.zeros(1, 3, 2, 2), fps)  # type: ignore[arg-type]


def test_other_dtypes_and_picture_lists_are_refused() -> None:
    with pytest.raises(InputError, match="uint8 or floats"):
        Clip(torch.zeros(1, 3, 2, 2, dtype=torch.int64))
    with pytest.raises(InputError, match="no pictures"):
        from_pil([])
    with pytest.raises(InputError, match="several sizes"):
        from_pil([Image.new("RGB", (2, 2)), Image.new("RGB", (3, 2))])


def test_a_cut_is_the_frames_asked_for() -> None:
    clip = Clip(torch.arange(5.0).view(5, 1, 1, 1) / 5)
    assert torch.equal(clip.cut(1, 3).frames, clip.frames[1:3])
    for start, stop in ((0, 6), (3, 3), (-1, 2)):
        with pytest.raises(InputError, match="cannot take frames"):
            clip.cut(start, stop)


def test_a_contact_sheet_shows_first_and_last_frame_of_every_clip() -> None:
    ramp = Clip(torch.linspace(0, 1, 11).view(11, 1, 1, 1).expand(11, 3, 20, 20))
    still = Clip(torch.full((1, 3, 10, 40), 0.2))
    sheet = np.asarray(contact_sheet([ramp, still], labels=["ramp", "still"], columns=3, width=40))
    assert sheet.shape == (6 + 18 + 40 + 6 + 18 + 10 + 6, 6 + 3 * 46, 3)
    assert [sheet[44, 6 + 20 + k * 46, 0] for k in range(3)] == [0, 128, 255]
    assert (sheet[-10, 6:46] == 51).all()
    assert (sheet[-10, 46:] == 250).all()
    assert (sheet[6:24] < 100).any()  # the label
    with pytest.raises(InputError, match="at least one clip"):
        contact_sheet([])
