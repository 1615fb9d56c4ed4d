"""A base model makes the first steps, a refiner the last (Podell et al. 2023, section 2.5; Balaji et al. 2022): an ensemble of two experts.

The refiner goes on from the base's latents at the noise they still hold, as diffusers' `denoising_end` and `denoising_start` do.
"""

from __future__ import annotations

from typing import Any

import torch

from videogen.errors import InputError
from videogen.models import autoencoder
from videogen.pipeline import Pipeline
from videogen.result import Output, Result

# Options of a call that serve the refiner too. The others say how the base's frames are told apart, placed and moved.
SHARED = (
    "clip_skip", "sizes", "negative_sizes", "num_frames", "guidance_scale", "guidance_rescale", "guidance_batched", "sampler",
    "eta", "karras", "seed", "generator", "callback_on_step_end", "progress",
)  # fmt: skip


def refined(
    base: Pipeline, refiner: Pipeline, prompt: Any, *, start: float = 0.8, output_type: Output = "pil", **options: Any
) -> Result:
    """What `base(prompt, **options)` makes, its steps from the share `start` of the path on made by `refiner`.

    A refiner with one text encoder reads what the base's second one does. Raises InputError where the refiner's noise or latents are
    not the base's.
    """
    check(base, refiner, start)
    steps: dict[str, Any] = {"num_inference_steps": options.pop("num_inference_steps", None) or base.steps}
    x = base(prompt, denoising_end=start, output_type="latent", **steps, **options).frames
    told: dict[str, Any] = {name: options.get(name) for name in ("prompt_2", "negative_prompt", "negative_prompt_2")}
    if len(refiner.parts.text.encoders) == 1:
        prompt = told["prompt_2"] or prompt
        told = {"negative_prompt": told["negative_prompt_2"] or told["negative_prompt"]}
    factor = autoencoder.factor(base.parts.vae)
    size: dict[str, Any] = {"height": x.shape[-2] * factor, "width": x.shape[-1] * factor}
    shared = {name: options[name] for name in SHARED if name in options}
    return refiner(prompt, latents=x, denoising_start=start, output_type=output_type, **steps, **told, **size, **shared)


def check(base: Pipeline, refiner: Pipeline, start: float) -> None:
    """Raise InputError where the refiner cannot go on from what the base leaves it."""
    if not 0 < start < 1:
        raise InputError(f"the refiner starts at {start:g} of the path; give a share between 0 and 1")
    paths = base.denoiser.path, refiner.denoiser.path
    t = torch.arange(min(path.steps for path in paths))
    if paths[0].steps != paths[1].steps or not torch.allclose(paths[0].alpha(t), paths[1].alpha(t), atol=1e-6):
        raise InputError(
            "base and refiner were trained with different noise, so one cannot go on where the other stops; leave the refiner out"
        )
    scales = [pipe.parts.vae.config.scaling_factor for pipe in (base, refiner)]
    if scales[0] != scales[1]:
        raise InputError(
            f"the latents of base and refiner are of different scale ({scales[0]:g} and {scales[1]:g}): they are of different families"
        )
