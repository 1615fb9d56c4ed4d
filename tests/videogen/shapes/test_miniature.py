"""The model in the package: its size, and that diffusers makes the same clips with it."""

import videogen.foreign

import pytest
import torch
from diffusers import AnimateDiffPipeline

from videogen.models.folder import miniature
from videogen.pipeline import Pipeline

PROMPT = "a red circle moving right on a black background"


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("shapes")


def test_it_is_small() -> None:
    sizes = {path: path.stat().st_size for path in miniature().rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 30 * 2**20
    assert max(sizes.values()) <= 16 * 2**20


def test_diffusers_makes_the_same_clip(pipe: Pipeline) -> None:
    """Loaded without a dtype: transformers takes the stored one, diffusers float32."""
    theirs = AnimateDiffPipeline.from_pretrained(miniature(), local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    settings = {"num_frames": 8, "num_inference_steps": 4, "guidance_scale": 4.0, "output_type": "pt"}
    expected = theirs(PROMPT, negative_prompt="", latents=latents.transpose(1, 2), **settings).frames
    made = pipe(PROMPT, latents=latents, progress=False, **settings).frames
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


def test_its_advice_is_taken(pipe: Pipeline) -> None:
    assert (pipe.steps, pipe.guidance, pipe.advised_strength(1.0)) == (15, 3.0, 0.65)
    assert pipe.default_size == (128, 128)


def test_the_background_that_was_asked_for_is_there(pipe: Pipeline) -> None:
    """The least that a trained model must do; all figures stand in docs/results.md."""
    for name, low, high in (("black", 0.0, 0.15), ("gray", 0.35, 0.65)):
        clip = pipe(
            f"a red circle on a {name} background", num_frames=1, seed=0, output_type="pt", progress=False
        ).frames
        assert low <= float(clip.median()) <= high
