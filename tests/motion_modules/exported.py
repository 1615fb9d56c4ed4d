"""What a trained model, the same loaded again, and diffusers' say of a recipe's sample."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.training_world import sample
from videogen.pipeline import Pipeline
from videogen.training.diffusion import Diffusion


def prediction(pipe: Pipeline, recipe: Diffusion) -> Tensor:
    """What a loaded model says of the recipe's sample."""
    batch = sample(recipe)
    alpha, sigma = (
        f(batch.times).float().view(-1, 1, 1, 1, 1) for f in (pipe.denoiser.path.alpha, pipe.denoiser.path.sigma)
    )
    with torch.no_grad():
        return pipe.denoiser.given(batch.told)(alpha * batch.x0 + sigma * batch.noise, batch.times).out


def animated_unet(model: Path, adapter: Path) -> Any:
    """diffusers' UNet with motion modules."""
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    return UNetMotionModel.from_unet2d(unet, MotionAdapter.from_pretrained(adapter)).eval()


def of_diffusers(unet: Any, recipe: Diffusion) -> Tensor:
    """What it says of the recipe's sample; it takes one time a call, and text once a frame."""
    batch, path = sample(recipe), recipe.pipe.denoiser.path
    alpha, sigma = (f(batch.times).float().view(-1, 1, 1, 1, 1) for f in (path.alpha, path.sigma))
    x, text = (alpha * batch.x0 + sigma * batch.noise).transpose(1, 2), batch.told.tokens["text"]
    with torch.no_grad():
        said = [unet(x[i : i + 1], batch.times[i], text[i : i + 1].expand(4, -1, -1))[0] for i in range(len(x))]
    return torch.cat(said).transpose(1, 2)


def shaken(recipe: Diffusion) -> Diffusion:
    """With weights that do something."""
    torch.manual_seed(3)
    with torch.no_grad():
        for group in recipe.groups.values():
            for parameter in group:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return recipe


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder
