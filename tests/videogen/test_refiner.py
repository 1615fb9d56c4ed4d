"""Base and refiner share one path: what the first leaves is what the second goes on from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import folders
from videogen.errors import InputError
from videogen.pipeline import Pipeline
from videogen.refiner import refined

PROMPT = "a red circle"
OPTIONS: dict[str, Any] = {"sampler": "euler", "num_inference_steps": 5, "guidance_scale": 5.0, "progress": False}


def latents(frames: int = 1) -> torch.Tensor:
    return torch.randn(1, frames, 4, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    place = tmp_path_factory.mktemp("sdxl")
    base = folders.stable_diffusion_xl(place / "base")
    return place, base, folders.stable_diffusion_xl_refiner(place / "refiner")


@pytest.fixture(scope="module")
def base(models: tuple[Path, Any, Any]) -> Pipeline:
    return Pipeline.from_pretrained(models[0] / "base")


@pytest.fixture(scope="module")
def refiner(models: tuple[Path, Any, Any]) -> Pipeline:
    return Pipeline.from_pretrained(models[0] / "refiner")


@pytest.mark.parametrize("start", [0.3, 0.6, 0.8])
def test_the_hand_over_is_diffusers(
    models: tuple[Path, Any, Any], base: Pipeline, refiner: Pipeline, start: float
) -> None:
    """The prompt of the second encoder is the refiner's; steps, sizes and guidance are shared."""
    _, theirs, their_refiner = models
    shared = {"num_inference_steps": 5, "guidance_scale": 5.0}
    x = theirs(
        PROMPT, prompt_2="a cat", height=64, width=64, latents=latents()[:, 0], denoising_end=start, output_type="latent", **shared
    ).images  # fmt: skip
    expected = their_refiner("a cat", image=x, denoising_start=start, output_type="pt", **shared).images
    made = refined(
        base, refiner, PROMPT, start=start, prompt_2="a cat", height=64, width=64, num_frames=1, latents=latents(),
        output_type="pt", **OPTIONS,
    ).frames  # fmt: skip
    torch.testing.assert_close(made[:, 0], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_a_model_that_refines_its_own_clip_is_the_plain_call(base: Pipeline, sampler: str) -> None:
    options = {**OPTIONS, "sampler": sampler, "num_frames": 3, "seed": 4, "height": 64, "width": 64}
    steps: list[float] = []
    told = {**options, "callback_on_step_end": lambda pipe, step, t, x: steps.append(t)}
    made = refined(base, base, PROMPT, start=0.5, output_type="latent", **told)
    plain = base(PROMPT, output_type="latent", **options)
    torch.testing.assert_close(made.frames, plain.frames)
    assert tuple(steps) == plain.times


def test_a_lora_of_the_second_encoder_fits_the_refiner_which_has_no_other(refiner: Pipeline) -> None:
    weight = refiner.parts.text.encoders[0].model.text_model.encoder.layers[0].self_attn.q_proj.weight
    before, layer = weight.detach().clone(), "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"
    ones = {"down": torch.ones(1, weight.shape[1]), "up": torch.ones(weight.shape[0], 1)}
    name = refiner.loras.add({f"{layer}.lora_{factor}.weight": value for factor, value in ones.items()})
    torch.testing.assert_close(weight, before + 1)
    refiner.loras.remove(name)
    assert torch.equal(weight, before)


def test_what_cannot_be_handed_over_is_refused(base: Pipeline, refiner: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        refined(base, refiner, PROMPT, start=1.0, **OPTIONS)
    with pytest.raises(InputError, match="no step"):
        refined(base, refiner, PROMPT, start=0.9999, **OPTIONS)
    with pytest.raises(InputError, match="give latents"):
        refiner(PROMPT, denoising_start=0.5, **OPTIONS)
    folders.stable_diffusion(tmp_path / "sd")
    other = Pipeline.from_pretrained(tmp_path / "sd")
    other.parts.vae.register_to_config(scaling_factor=0.5)
    with pytest.raises(InputError, match="different scale"):
        refined(base, other, PROMPT, **OPTIONS)
    folders.animatediff(tmp_path / "animated")
    with pytest.raises(InputError, match="different noise"):
        refined(base, Pipeline.from_pretrained(tmp_path / "animated"), PROMPT, **OPTIONS)
