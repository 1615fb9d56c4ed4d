"""Strength, in every method that edits a clip: how much of the way to noise is gone, and what that leaves of the clip."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import editors
from editors.edited import Edited
from editors.fatezero import SHAPE
from editors.prompt_to_prompt import Blend
from editors.tune_a_video import tune
from editors.workpiece import begin
from videogen.errors import InputError
from videogen.models.unet import UNet
from videogen.pipeline import Pipeline

SOURCE, TARGET = "a red circle", "a blue circle"
Call = Callable[..., Edited]
METHODS: dict[str, Call] = {
    "sdedit": partial(editors.sdedit, seed=0),
    "ddim_inversion": editors.ddim_inversion,
    "null_text": editors.null_text,
    "prompt_to_prompt": partial(editors.prompt_to_prompt, blend=Blend("circle")),
    "fatezero": partial(editors.fatezero, settings=SHAPE),
    "tune_a_video": editors.tune_a_video,
}


def ready(name: str, pipe: Pipeline, clip: torch.Tensor) -> Pipeline:
    """The model that a method takes: Tune-A-Video's is one that has been tuned already."""
    return tune(pipe, clip, SOURCE, steps=0)[0] if name == "tune_a_video" else pipe


@pytest.mark.parametrize("name", METHODS)
def test_at_0_the_clip_comes_back_as_the_vae_gives_it(
    name: str, moving: tuple[Pipeline, Any], clip: torch.Tensor
) -> None:
    pipe = ready(name, moving[0], clip)
    edited = METHODS[name](pipe, clip, SOURCE, TARGET, steps=4, strength=0, progress=False)
    with torch.no_grad():
        torch.testing.assert_close(edited.frames, pipe.decode(pipe.encode(clip[None]))[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_network_is_asked_on_the_clean_end_of_the_grid_alone(
    name: str, moving: tuple[Pipeline, Any], clip: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strength of 0.5 goes up to the middle of four steps, whole steps being counted: 0.7 goes no further."""
    pipe, asked, forward = ready(name, moving[0], clip), set(), UNet.forward

    def listening(unet: UNet, x: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        asked.update(labels.tolist())
        return forward(unet, x, labels, *rest)

    monkeypatch.setattr(UNet, "forward", listening)
    late = begin(pipe, clip, 4, strength=0.5).times.t.tolist()
    assert late == begin(pipe, clip, 4, strength=1).times.t.tolist()[2:]
    METHODS[name](pipe, clip, SOURCE, TARGET, steps=4, strength=0.7, progress=False)
    assert asked == set(late)


def test_it_is_the_models_own_where_nothing_is_said(moving: tuple[Pipeline, Any], clip: torch.Tensor) -> None:
    pipe = moving[0]
    assert len(begin(pipe, clip, 10).times) == 10
    advised = Pipeline(dataclasses.replace(pipe.parts, advice={"strength": 0.7}), pipe.motion)
    assert len(begin(advised, clip, 10).times) == 7
    assert len(begin(advised, clip, 10, strength=1).times) == 10
    for model, steps in ((pipe, 8), (advised, 7)):
        edited = editors.sdedit(model, clip, "", TARGET, steps=10, seed=0, progress=False)
        assert edited.measured["steps"] == steps


@pytest.mark.parametrize("strength", [-0.1, 1.2, float("nan")])
def test_what_is_no_share_is_refused(strength: float, moving: tuple[Pipeline, Any], clip: torch.Tensor) -> None:
    with pytest.raises(InputError, match="strength"):
        begin(moving[0], clip, 4, strength=strength)
