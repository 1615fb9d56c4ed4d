"""What becomes of a request where the model is one that was tuned on a clip."""

import copy
import dataclasses
from typing import Any

import pytest
import torch

from editors.calls import begin, fatezero_frames, settled
from motion_modules import fatezero_folder, tune_a_video_folder
from motion_modules.pseudo_3d import add_pseudo_3d
from videogen.editing import Request
from videogen.generation import Request as Base
from videogen.pipeline import Pipeline


def request(**changes: Any) -> Request:
    return Request("clip.mp4", Base("a blue circle"), **{"source_prompt": "a red circle", **changes})


def test_a_tuned_folders_frames_hold_unless_the_file_has_a_model_config(still: tuple[Pipeline, Any]) -> None:
    """Without one an image model reads the frames of the authors' class."""
    image = still[0]
    unet = add_pseudo_3d(copy.deepcopy(image.parts.unet), None)
    folder = fatezero_folder.pipeline(
        dataclasses.replace(image.parts, unet=unet), fatezero_folder.ModelConfig(None, ("middle",))
    )
    silent, said = ({"fusion": {}, **more} for more in ({}, {"entries": [0, "last"], "least": 0}))
    assert fatezero_frames(request(settings=silent), folder) is None
    for settings, pipe, entries in (
        (silent, image, (-1, "first")),
        (said, image, (0, "last")),
        (said, folder, (0, "last")),
    ):
        table = fatezero_frames(request(settings=settings), pipe)
        assert table is not None
        assert table.entries == entries
    assert fatezero_frames(request(), image) is None


@pytest.mark.parametrize(("target", "masked"), [("a red circle and a dot", False), ("a red square", True)])
def test_a_tuned_model_takes_edits_that_only_add_words(still: tuple[Pipeline, Any], target: str, masked: bool) -> None:
    """By itself it is edited with the settings for shapes, which free the place of the words that are swapped; added ones have none."""
    tuned = tune_a_video_folder.pipeline(tune_a_video_folder.animated(still[0].parts))
    asked = dataclasses.replace(request(), base=Base(target, steps=2, guidance=2.0))
    job = begin(tuned, asked, 2, lambda count: torch.zeros(0), progress=False)
    assert (job.request.method, job.request.preset, job.masked) == ("fatezero", "shape", masked)
    made = job.edit(torch.rand(2, 3, 16, 16), 0)
    assert made.frames.shape == (2, 3, 16, 16)
    assert (made.mask is not None) == masked


@pytest.mark.parametrize(("invert", "strength"), [(True, 0.25), (False, 1.0)])
def test_a_tuned_models_request_holds_nothing_of_a_tuning(
    still: tuple[Pipeline, Any], invert: bool, strength: float
) -> None:
    """And a clip that begins from a seed's noise goes the whole way, whatever share of it the model advises."""
    parts = dataclasses.replace(still[0].parts, advice={"strength": 0.25})
    tuned = tune_a_video_folder.pipeline(tune_a_video_folder.animated(parts))
    settings = {"tuning_steps": 500, "learning_rate": 3e-5, "tuned_on": 8, "invert": invert}
    found = settled(tuned, request(settings=settings), "tune_a_video", tuned=True)
    assert (found.settings, found.strength) == ({"invert": invert}, strength)
