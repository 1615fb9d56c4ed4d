"""What is exported is what was trained, and the card says what diffusers, and who reads tensors alone, will make of it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from motion_modules.export import MODULE
from tests.motion_modules.exported import animated_unet, made, of_diffusers, prediction, shaken
from tests.training_world import MODULES, Worlds, recipe_of, sample
from videogen.models.unet import UNet, UNetConfig
from videogen.models.weights.motion_keys import HEADER
from videogen.pipeline import Pipeline
from videogen.training.diffusion import Diffusion
from videogen.training.image import write_unet

SAME = "diffusers makes the same clips"


def card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def trained(recipe: Diffusion) -> Tensor:
    with torch.no_grad():
        return recipe.predicted(sample(recipe))


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def rewritten(file: Path, target: Path, **config: Any) -> str:
    """The same tensors under a header that says something else of how the modules are built."""
    with safe_open(file, "pt") as opened:
        told = json.loads(opened.metadata()[HEADER])
    told["config"] |= config
    save_file(load_file(file), target, {HEADER: json.dumps(told)})
    return str(target)


@pytest.mark.parametrize("scope", ["frame", "clip"])
@pytest.mark.parametrize("mid", [False, True])
def test_exported_modules_are_the_trained_ones_and_diffusers_says_what_the_card_says(
    worlds: Worlds, tmp_path: Path, scope: str, mid: bool
) -> None:
    modules = {"heads": 2, "norm_scope": scope, "mid": mid, "positions": 12}
    recipe = shaken(recipe_of("motion", worlds, tmp_path, modules=modules, scheduler={"beta_schedule": "linear"}))
    recipe.export(tmp_path)
    for part in (MODULE, "motion_adapter"):
        pipe = Pipeline.from_pretrained(worlds[0], motion=tmp_path / part)
        assert pipe.scheduler["beta_schedule"] == "linear"
        assert pipe.motion is not None
        assert (pipe.motion.longest, pipe.motion.trained) == (12, 4)
        torch.testing.assert_close(prediction(pipe, recipe), trained(recipe), atol=1e-5, rtol=0)
    theirs = off(of_diffusers(animated_unet(worlds[0], tmp_path / "motion_adapter"), recipe), trained(recipe))
    if scope == "clip":
        assert theirs < 1e-5
        assert SAME in card(tmp_path)
    else:
        assert theirs > 1e-3
        assert (
            f"so its clips differ on that schedule too: on a batch of the training data what the UNet predicts changes by {theirs:.2g} of"
            in card(tmp_path)
        )


def test_diffusers_makes_the_same_clips_once_it_has_the_schedule_that_the_card_names(
    worlds: Worlds, tmp_path: Path
) -> None:
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter

    modules = {"heads": 2, "norm_scope": "clip"}
    recipe = shaken(recipe_of("motion", worlds, tmp_path, modules=modules, scheduler={"beta_schedule": "linear"}))
    recipe.export(tmp_path)
    ours = Pipeline.from_pretrained(worlds[0], motion=tmp_path / MODULE)
    pipe = AnimateDiffPipeline.from_pretrained(
        worlds[0], motion_adapter=MotionAdapter.from_pretrained(tmp_path / "motion_adapter"), local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    asked = {
        "num_frames": 4, "height": 32, "width": 32, "num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "pt",
        "negative_prompt": "",
    }  # fmt: skip
    clip = ours("a red circle", latents=noise, progress=False, **asked).frames

    def theirs() -> Tensor:
        return torch.as_tensor(pipe("a red circle", latents=noise.transpose(1, 2).clone(), **asked).frames)

    assert off(theirs(), clip) > 1e-3
    (line,) = re.findall(r"`(pipe\.scheduler = [^`]+)`", card(tmp_path))
    assert "beta_schedule='linear'" in line
    exec(line, {"pipe": pipe, "DDIMScheduler": DDIMScheduler})
    torch.testing.assert_close(theirs(), clip, atol=1e-4, rtol=0)
    pipe.scheduler = DDIMScheduler.from_pretrained(tmp_path)
    torch.testing.assert_close(theirs(), clip, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scope", ["frame", "clip"])
def test_the_card_counts_the_norms_of_the_residual_blocks_too(worlds: Worlds, tmp_path: Path, scope: str) -> None:
    """As those of AnimateDiff v1 and of Hotshot-XL, which run over the clip."""
    shaken(recipe_of("motion", worlds, tmp_path, **MODULES)).export(made(tmp_path / "first"))
    scopes = {"norm_scope": scope, "resnet_norm_scope": "clip"}
    file = rewritten(tmp_path / "first" / MODULE, tmp_path / "v1.safetensors", **scopes)
    recipe = recipe_of("motion", worlds, tmp_path, motion=file)
    before = trained(recipe)
    recipe.export(tmp_path)
    theirs = off(of_diffusers(animated_unet(worlds[0], tmp_path / "motion_adapter"), recipe), before)
    assert theirs > 1e-3
    assert (
        f"on that schedule too: on a batch of the training data what the UNet predicts changes by {theirs:.2g} of"
        in card(tmp_path)
    )
    assert SAME not in card(tmp_path)
    assert torch.equal(trained(recipe), before)
    shaken(recipe_of("motion_lora", worlds, tmp_path, motion=file, rank=2)).export(made(tmp_path / "lora"))
    assert SAME not in card(tmp_path / "lora")


@pytest.mark.parametrize("scope", ["frame", "clip"])
def test_the_card_says_what_who_reads_tensors_alone_will_make(worlds: Worlds, tmp_path: Path, scope: str) -> None:
    """With four levels, as AnimateDiff's modules for Stable Diffusion 1.5 have, whose norms run over each frame."""
    model = shutil.copytree(worlds[0], tmp_path / "model")
    shutil.rmtree(model / "unet")
    sizes = {"channels": (8, 8, 16, 16), "depths": (1, 0, 0, 0), "heads": (2,) * 4, "context": 128}
    write_unet(UNet(UNetConfig(**sizes, layers=1, groups=4, sample_size=16)), model / "unet")
    given = {"modules": {"heads": 2, "norm_scope": scope}}
    recipe = shaken(recipe_of("motion", (model, worlds[1]), tmp_path, {"size": "64x64"}, **given))
    recipe.export(tmp_path)
    told = card(tmp_path)
    alone = rewritten(tmp_path / MODULE, tmp_path / "alone.safetensors", norm_scope="frame")
    changes = off(prediction(Pipeline.from_pretrained(model, motion=alone), recipe), trained(recipe))
    said = re.findall(
        r"Where only the tensors of `motion_module\.safetensors` are read.*differ: .* changes by (\S+) of", told
    )
    assert said == ([f"{changes:.2g}"] if scope == "clip" else [])
    assert (changes > 1e-3) == (scope == "clip")
    assert "taken to have 8 heads. They have 2" in told
