"""What options of the command line become of a method's settings, and of a method that is made ready."""

from typing import Any

import pytest
import torch
from torch import Tensor

from editors.calls import TUNED_ON, begin, fatezero_settings
from editors.fatezero import ATTRIBUTE
from editors.tune_a_video import tune
from videogen.editing import Job, Request, chunks_of
from videogen.generation import Request as Base
from videogen.pipeline import Pipeline


def test_a_named_place_is_all_that_may_change_in_every_step() -> None:
    request = Request("clip.mp4", Base("a blue circle"), source_prompt="a red circle", blend=("circle",))
    settings = fatezero_settings(request)
    assert (settings.blend, settings.blend_latents, settings.blend_window) == (("circle",), True, (0.0, 1.0))
    assert settings.exchange == ATTRIBUTE.exchange


def tuning(settings: dict[str, Any], **base: Any) -> Request:
    asked = Base("a blue circle", steps=2, guidance=2.0, **base)
    return Request("clip.mp4", asked, source_prompt="a red circle", method="tune_a_video", settings=settings)


def test_a_model_is_tuned_with_the_first_chunk_and_clips_are_cut_for_the_tuned_one(
    still: tuple[Pipeline, Any], clip: Tensor
) -> None:
    """What is refused when all is ready, such as a mask, costs no tuning. The error on the clip is told once."""
    pipe, request, asked = still[0], tuning({"tuning_steps": 1, "learning_rate": 1e-2}), []

    def few(count: int) -> Tensor:
        asked.append(count)
        return clip

    job = begin(pipe, request, 16, few, progress=False)
    assert not asked
    assert chunks_of(request, pipe.motion, 16).length == 8
    assert chunks_of(request, job.motion, 16).length == 16
    measured = [dict(job.edit(clip, first).measured) for first in (0, 2)]
    error = tune(pipe, clip, "a red circle", steps=1, learning_rate=1e-2, progress=False)[1]
    assert measured == [error, {}]
    assert asked == [TUNED_ON]


@pytest.fixture(scope="module")
def tuned(still: tuple[Pipeline, Any]) -> Pipeline:
    clip = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    return tune(still[0], clip, "a red circle", steps=1, learning_rate=1e-2, progress=False)[0]


def ready(pipe: Pipeline, request: Request) -> Job:
    """With a tuned model, so that no frames are asked for."""
    return begin(pipe, request, 8, lambda count: torch.zeros(0), progress=False)


def test_chunks_that_begin_from_noise_have_that_of_their_frames(tuned: Pipeline, clip: Tensor) -> None:
    small = clip[..., :16, :16]
    edit = ready(tuned, tuning({"invert": False})).edit
    assert torch.equal(edit(small, 7).frames, edit(small, 7).frames)
    assert not torch.equal(edit(small, 0).frames, edit(small, 7).frames)


def test_the_strength_of_temporal_layers_reaches_a_tuned_model(tuned: Pipeline, clip: Tensor) -> None:
    small = clip[..., :16, :16]
    full, none = (ready(tuned, tuning({}, motion_scale=scale)).edit(small, 0).frames for scale in (1.0, 0.0))
    assert not torch.equal(full, none)
