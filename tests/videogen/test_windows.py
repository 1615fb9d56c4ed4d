"""Windows over a clip: what they cover, how they are weighed, and that a fused call is the plain one where it must be."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.prediction import Prediction
from videogen.windows import Windows, windowed


def by_frame(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
    """Says of each frame its id and its x, whatever stands beside it."""
    ids = torch.tensor(range(x.shape[1]) if frames is None else list(frames), dtype=x.dtype)
    return Prediction(x, 2 * x + ids[:, None, None, None], 0.6, 0.8, "eps")


def counting_from_the_start(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
    """Says of each frame its place in the call."""
    out = torch.arange(x.shape[1], dtype=x.dtype)[:, None, None, None].expand_as(x)
    return Prediction(x, out, 0.6, 0.8, "eps")


@pytest.mark.parametrize("frames", [1, 5, 16, 17, 20, 33, 64])
@pytest.mark.parametrize("settings", [(16, 4), (8, 0), (5, 4)])
@pytest.mark.parametrize("closed", [False, True])
def test_every_frame_is_covered_and_no_window_is_longer(frames: int, settings: tuple[int, int], closed: bool) -> None:
    cut = Windows(*settings, closed=closed).cut(range(100, 100 + frames))
    assert {frame for window in cut for frame in window.frames} == set(range(100, 100 + frames))
    assert all(len(window.frames) == min(settings[0], frames) for window in cut)
    assert all(weight > 0 for window in cut for weight in window.weights)


@pytest.mark.parametrize("weights", ["pyramid", "flat", "linear"])
def test_fusing_predictions_that_depend_on_the_frame_alone_changes_nothing(weights: str) -> None:
    x = torch.randn(2, 21, 3, 2, 2, dtype=torch.float64)
    fused = windowed(by_frame, Windows(8, 3, weights))(x, 500.0)
    torch.testing.assert_close(fused.out, by_frame(x, 500.0).out)
    assert torch.equal(fused.x, x)


def test_one_window_is_the_plain_call_bit_for_bit() -> None:
    x = torch.randn(1, 8, 3, 2, 2)
    assert torch.equal(windowed(by_frame, Windows(8, 2))(x, 1.0).out, by_frame(x, 1.0).out)


def test_weighted_mean_by_hand() -> None:
    """Windows of 4 over 6 frames, weights 1 2 2 1: frame 2 stands third in the first window and first in the second."""
    x = torch.zeros(1, 6, 1, 1, 1)
    out = windowed(counting_from_the_start, Windows(4, 2))(x, 1.0).out.flatten().tolist()
    assert out == pytest.approx([0, 1, (2 * 2 + 0 * 1) / 3, (3 * 1 + 1 * 2) / 3, 2, 3])


def test_a_closed_loop_runs_on_into_the_first_frames() -> None:
    cut = Windows(4, 2, closed=True).cut(range(6))
    assert [window.frames for window in cut] == [(0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 0, 1)]


def test_an_overlap_as_long_as_the_window_is_refused() -> None:
    with pytest.raises(InputError, match="smaller than the window"):
        Windows(8, 8)


def test_weights_that_are_not_known_are_refused() -> None:
    with pytest.raises(InputError, match="choose one of pyramid, flat, linear"):
        Windows(8, 4, "even")  # type: ignore[arg-type]


def test_an_anchor_stands_in_every_window_and_counts_once() -> None:
    windows = Windows(4, 0, "flat", anchor=(0,))
    cut = windows.cut(range(8))
    assert [window.frames for window in cut] == [(0, 1, 2), (0, 3, 4, 5), (0, 5, 6, 7)]
    assert [window.weights for window in cut] == [(1.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0)]
    x = torch.zeros(1, 8, 1, 1, 1)
    out = windowed(counting_from_the_start, windows)(x, 1.0).out.flatten().tolist()
    assert out == pytest.approx([0, 1, 2, 1, 2, (3 + 1) / 2, 2, 3])


def test_anchors_that_fill_the_window_are_refused() -> None:
    with pytest.raises(InputError, match="anchors"):
        Windows(2, 0, anchor=(0, 1))
