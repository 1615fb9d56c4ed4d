"""Two prompts from one noise: the source is what the model makes of it alone, and so is a target that takes nothing."""

from typing import Any

import pytest
import torch

import editors
from editors.map_fusion import Exchange
from editors.prompt_to_prompt import Blend
from videogen.errors import InputError
from videogen.pipeline import Pipeline

SOURCE, TARGET = "a red circle", "a blue circle"
SIZE: dict[str, Any] = {"height": 32, "width": 24, "guidance_scale": 3.0, "seed": 5, "progress": False}


@pytest.mark.parametrize(("kind", "frames"), [("moving", 2), ("still", 1)])
def test_the_source_is_the_models_own_and_so_is_a_target_that_takes_nothing(
    request: pytest.FixtureRequest, kind: str, frames: int
) -> None:
    pipe: Pipeline = request.getfixturevalue(kind)[0]
    own = [
        pipe(prompt, num_frames=frames, num_inference_steps=2, output_type="pt", **SIZE).frames[0]
        for prompt in (SOURCE, TARGET)
    ]
    free = editors.prompt_pair(
        pipe, SOURCE, TARGET, exchange=Exchange("refine", 0.0, 0.0), num_frames=frames, steps=2, **SIZE
    )
    for made, expected in zip(free, own, strict=True):
        torch.testing.assert_close(made.frames, expected, rtol=0, atol=1e-4)
    source, target = editors.prompt_pair(
        pipe, SOURCE, TARGET, num_frames=frames, steps=2, blend=Blend("circle"), **SIZE
    )
    torch.testing.assert_close(source.frames, own[0], rtol=0, atol=1e-4)
    assert (target.frames - own[1]).abs().max() > 1e-3
    assert source.mask is None
    assert target.mask is not None
    assert target.mask.shape == (frames, 1, 32, 24)


def test_one_prompt_twice_is_one_clip_from_given_noise(still: tuple[Pipeline, Any]) -> None:
    latents = torch.randn(1, 1, 4, 4, 3)
    source, target = editors.prompt_pair(
        still[0], SOURCE, SOURCE, num_frames=1, steps=2, latents=latents, **{**SIZE, "seed": None}
    )
    torch.testing.assert_close(source.frames, target.frames, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"exchange": Exchange("replace")}, "equally many words"),
        ({"blend": Blend("square")}, "in neither prompt"),
        ({"latents": torch.zeros(1, 2, 4, 4, 3)}, "latents have shape"),
        ({"height": 33}, "not a multiple"),
    ],
)
def test_what_does_not_fit_is_refused(still: tuple[Pipeline, Any], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        editors.prompt_pair(still[0], SOURCE, "a big blue circle", num_frames=1, steps=2, **{**SIZE, **wrong})
