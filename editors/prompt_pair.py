"""Prompt-to-Prompt's first use (Hertz et al. 2022, sections 3.2 and 4): two prompts sampled side by side from one noise, without a clip.

The first is what the model makes of it alone; the second keeps its layout, as `editors.prompt_to_prompt` keeps that of a clip which exists.
"""

from __future__ import annotations

import torch
from torch import Tensor

from editors.edited import Edited
from editors.map_fusion import Exchange
from editors.prompt_to_prompt import Blend, side_by_side
from editors.workpiece import Bench, tuned_with
from videogen.conditioning import Dial
from videogen.guidance import Scale
from videogen.noise import source_of
from videogen.pipeline import Pipeline
from videogen.plan import first_noise
from videogen.windows import Windows


@torch.no_grad()
def prompt_pair(
    pipe: Pipeline,
    source: str,
    target: str,
    *,
    exchange: Exchange | None = None,
    blend: Blend | None = None,
    num_frames: int = 16,
    height: int | None = None,
    width: int | None = None,
    steps: int = 50,
    guidance_scale: Scale | None = None,
    negative_prompt: str | None = None,
    motion_scale: float | Dial = 1.0,
    windows: Windows | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    latents: Tensor | None = None,
    progress: bool = True,
) -> tuple[Edited, Edited]:
    """Clips (pictures, with `num_frames=1`) of both prompts, the target's with the mask of the blend.

    exchange   what of the source's attention the target takes; None is the paper's own
    height, width   pixels, multiples of the VAE's factor; the model's own size by default
    seed       noise by frame: the source is then the clip that `pipe(source, seed=seed)` makes; `generator` draws as diffusers does instead
    latents    the noise itself, `1 f c h w`

    Raises InputError for impossible values, and where prompts, words and edit do not fit each other.
    """
    always = tuned_with(pipe)
    settled = pipe.plan(
        num_frames=num_frames, height=height, width=width, num_inference_steps=steps, guidance_scale=guidance_scale,
        windows=windows, control=always,
    )  # fmt: skip
    bench = Bench(pipe, settled, always)
    noise = first_noise(latents, source_of(seed, generator), (1, settled.frames, settled.latents), None)
    pairs = bench.conditions(source, target, negative_prompt=negative_prompt, motion_scale=motion_scale)
    x, mask = side_by_side(
        bench, noise.to(pipe.device, torch.float32), pairs, exchange or Exchange(), blend, settled.guidance, progress=progress
    )  # fmt: skip
    return bench.edited(x[:1]), bench.edited(x[1:], mask)
