"""SDEdit is diffusers' image to image on a picture and its AnimateDiff video to video on a clip; strength has its two ends."""

import dataclasses
from typing import Any

import pytest
import torch

import editors
from videogen.errors import InputError
from videogen.pipeline import Pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers and numpy 2

PROMPT = "a blue square"
QUIET: dict[str, Any] = {"progress": False, "guidance_scale": 5.0}


@pytest.mark.parametrize(("sampler", "strength"), [("ddim", 0.58), ("ddim", 1.0), ("euler", 0.5)])
def test_equals_diffusers_image_to_image(
    still: tuple[Pipeline, Any], picture: torch.Tensor, sampler: str, strength: float
) -> None:
    """The same step to begin at, the same noise from the same generator. 0.58 of 50 steps are 28, not 29."""
    from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline

    pipe, theirs = still
    kind = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}[sampler]
    parts = {**theirs.components, "scheduler": kind.from_config(pipe.scheduler)}
    reference = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    reference.set_progress_bar_config(disable=True)
    steps = 50 if strength == 0.58 else 4
    latents = pipe.encode(picture[None])[:, 0].detach()
    expected = reference(
        PROMPT, image=latents, strength=strength, num_inference_steps=steps, guidance_scale=5.0,
        generator=torch.Generator().manual_seed(1), output_type="pt",
    ).images  # fmt: skip
    edited = editors.sdedit(
        pipe, picture, "", PROMPT, strength=strength, steps=steps, sampler=sampler,
        generator=torch.Generator().manual_seed(1), **QUIET,
    )  # fmt: skip
    torch.testing.assert_close(edited.frames, expected, atol=1e-3, rtol=0)
    assert edited.measured["steps"] == int(steps * strength)


def test_equals_diffusers_video_to_video(moving: tuple[Pipeline, Any], clip: torch.Tensor) -> None:
    from diffusers import AnimateDiffVideoToVideoPipeline

    pipe, theirs = moving
    reference = AnimateDiffVideoToVideoPipeline(
        **{**theirs.components, "feature_extractor": None, "image_encoder": None}
    )
    reference.set_progress_bar_config(disable=True)
    latents = pipe.encode(clip[None]).detach().transpose(1, 2)
    # It adds noise to given latents under this option alone, with steps / strength as the length of the grid.
    expected = reference(
        latents=latents, prompt=PROMPT, strength=0.5, num_inference_steps=3, enforce_inference_steps=True,
        guidance_scale=5.0, generator=torch.Generator().manual_seed(1), output_type="pt",
    ).frames  # fmt: skip
    edited = editors.sdedit(
        pipe, clip, "", PROMPT, strength=0.5, steps=6, generator=torch.Generator().manual_seed(1), **QUIET
    )
    torch.testing.assert_close(edited.frames, expected[0], atol=1e-3, rtol=0)


def test_strength_zero_is_the_round_trip_of_the_vae(moving: tuple[Pipeline, Any], clip: torch.Tensor) -> None:
    pipe = moving[0]
    edited = editors.sdedit(pipe, clip, "", PROMPT, strength=0, steps=4, seed=0, **QUIET)
    with torch.no_grad():
        around = pipe.decode(pipe.encode(clip[None]))[0]
    assert torch.equal(edited.frames, around)
    assert edited.measured == {"steps": 0, "change": pytest.approx(float((around - clip).abs().mean()))}


def test_strength_one_forgets_the_clip_where_the_last_level_is_pure_noise(
    moving: tuple[Pipeline, Any], clip: torch.Tensor
) -> None:
    """Then it is text to video with the same seed."""
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    parts = moving[0].parts
    pipe = Pipeline(dataclasses.replace(parts, scheduler={**parts.scheduler, **zero}), moving[0].motion)
    edited = editors.sdedit(pipe, clip, "", PROMPT, strength=1, steps=3, seed=7, **QUIET)
    made = pipe(
        PROMPT, num_frames=4, num_inference_steps=3, seed=7, output_type="pt", height=64, width=64, **QUIET
    ).frames
    assert torch.equal(edited.frames, made[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": 1.2}, "strength"),
        ({"clip": torch.rand(4, 3, 64, 60)}, "width 60 is not a multiple of 8"),
        ({"clip": torch.rand(3, 64, 64)}, "f 3 H W"),
        ({"clip": torch.rand(0, 3, 64, 64)}, "f 3 H W"),
        ({"clip": torch.rand(1, 3, 64, 64) * 255}, r"give \[0, 1\]"),
        ({"clip": torch.full((1, 3, 64, 64), torch.nan)}, r"give \[0, 1\]"),
        ({"steps": 0}, "steps"),
        ({"guidance_scale": float("nan")}, "guidance scale nan"),
    ],
)
def test_what_cannot_be_edited_says_so(still: tuple[Pipeline, Any], change: dict[str, Any], message: str) -> None:
    settings = {"clip": torch.rand(1, 3, 64, 64), "strength": 0.5, "steps": 2, **change}
    with pytest.raises(InputError, match=message):
        editors.sdedit(still[0], settings.pop("clip"), "", PROMPT, **{**QUIET, **settings})
