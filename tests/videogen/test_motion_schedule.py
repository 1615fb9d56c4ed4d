"""Whose noise schedule a call has: the module's for clips, the image model's for pictures, the folder's own where it holds both."""

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import AnimateDiffPipeline

from tests import folders
from videogen.conditioning import Conditioning, Dial
from videogen.errors import InputError
from videogen.models import folder
from videogen.models.weights import files
from videogen.pipeline import Pipeline

OTHER = {"beta_schedule": "scaled_linear", "set_alpha_to_one": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "animatediff"
    folders.animatediff(place)
    return place


@pytest.fixture(scope="module")
def pipe(model: Path) -> Pipeline:
    return Pipeline.from_pretrained(model)


def latents(pipe: Pipeline, frames: int, **options: object) -> torch.Tensor:
    made = pipe(
        "a red circle",
        num_frames=frames,
        num_inference_steps=3,
        seed=0,
        output_type="latent",
        progress=False,
        **options,
    )  # type: ignore[arg-type]
    return made.frames


def test_a_picture_is_the_image_models_where_the_module_has_another_schedule(model: Path, pipe: Pipeline) -> None:
    assert pipe.motion is not None
    other = Pipeline(pipe.parts, dataclasses.replace(pipe.motion, scheduler=OTHER))
    still = Pipeline.from_pretrained(model, motion="none")
    assert torch.equal(latents(other, 1), latents(still, 1))
    assert float((latents(other, 2) - latents(pipe, 2)).abs().max()) > 0.1


def test_a_folder_that_brings_both_is_taken_at_its_word(model: Path, pipe: Pipeline, tmp_path: Path) -> None:
    """The same modules given beside a model bring their schedule."""
    assert pipe.motion is not None
    said = dataclasses.replace(pipe.motion, scheduler=OTHER).header
    whole = tmp_path / "whole"
    pipe.save_pretrained(whole)
    weights = files.read(whole / "motion_adapter")
    folder.write_part(whole / "motion_adapter", pipe.motion.config, weights, said)
    assert Pipeline.from_pretrained(whole).scheduler["beta_schedule"] == "linear"
    given = Pipeline.from_pretrained(model, motion=whole / "motion_adapter")
    assert given.scheduler["beta_schedule"] == "scaled_linear"


def test_both_schedules_are_saved_and_the_frames_of_training(pipe: Pipeline, tmp_path: Path) -> None:
    """diffusers reads the modules' schedule, and we the pictures' beside it."""
    assert pipe.motion is not None
    other = Pipeline(pipe.parts, dataclasses.replace(pipe.motion, scheduler=OTHER, trained=3))
    other.save_pretrained(tmp_path / "one")
    Pipeline.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "again")
    for place in (tmp_path / "one", tmp_path / "again"):
        assert AnimateDiffPipeline.from_pretrained(place).scheduler.config.beta_schedule == "scaled_linear"
        back = Pipeline.from_pretrained(place)
        assert back.motion is not None
        assert (back.motion.trained, back.motion.scheduler) == (3, OTHER)
        for frames in (1, 2):
            assert torch.equal(latents(back, frames), latents(other, frames))
        still = Pipeline.from_pretrained(place, motion="none")
        assert still.scheduler["beta_schedule"] == "linear"
        assert torch.equal(latents(still, 1), latents(other, 1))


def test_a_condition_may_turn_the_modules_and_then_motion_scale_may_not(pipe: Pipeline) -> None:
    turned = (Conditioning(dials={"motion": Dial(0.0)}),) * 2
    assert torch.equal(latents(pipe, 2, conditions=[turned]), latents(pipe, 2, motion_scale=0.0))
    assert not torch.equal(latents(pipe, 2, conditions=[turned]), latents(pipe, 2))
    with pytest.raises(InputError, match="leave one of them out"):
        latents(pipe, 2, conditions=[turned], motion_scale=0.5)
