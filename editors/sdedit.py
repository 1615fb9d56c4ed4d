"""SDEdit (Meng et al. 2022, algorithm 1): noise a clip part of the way and sample the rest under a new prompt.

Image to image where the clip is one frame, clip to clip where it is more, with or without a motion module.
"""

from __future__ import annotations

import torch
from torch import Tensor

from editors.edited import Edited
from editors.workpiece import begin
from videogen.conditioning import Dial
from videogen.guidance import Scale
from videogen.noise import source_of
from videogen.pipeline import Pipeline
from videogen.progress import after_step, bar
from videogen.windows import Windows


@torch.no_grad()
def sdedit(
    pipe: Pipeline,
    clip: Tensor,
    source: str,
    target: str,
    *,
    strength: float | None = None,
    steps: int | None = None,
    guidance_scale: Scale | None = None,
    negative_prompt: str | None = None,
    sampler: str = "ddim",
    seed: int | None = None,
    generator: torch.Generator | None = None,
    motion_scale: float | Dial = 1.0,
    windows: Windows | None = None,
    first: int = 0,
    progress: bool = True,
) -> Edited:
    """Edit frames `f 3 H W` in [0, 1]. The source prompt is of no account: the method looks at the clip alone.

    strength  share of the grid that is run, cut down to whole steps as in diffusers' image to image; 0 returns the
              VAE's round trip, 1 starts from the noisiest position (which still holds a trace of the clip, unless the
              model was trained to zero terminal noise); None is the model's own advice, else 0.8
    steps     of the whole grid; None is the model's own number
    seed      noise addressed by frame; `generator` draws as diffusers does instead
    first     the id of the first frame, where the frames are a piece of a longer clip: pieces that overlap share noise

    Measured: `steps` that were run, and `change`, the mean absolute difference from the source's frames.
    """
    steps = pipe.steps if steps is None else steps
    strength = pipe.advised_strength(0.8) if strength is None else strength
    work = begin(pipe, clip, steps, strength=strength, guidance_scale=guidance_scale, sampler=sampler, windows=windows)
    times, x, fresh = work.times, work.latents, source_of(seed, generator)
    if len(times):
        address = (1, range(first, first + x.shape[1]), x.shape[2:])
        x = times.path.renoise(x, -1, times.t[0], fresh(*address).to(x.device))
        (wanted,) = work.conditions(target, negative_prompt=negative_prompt, motion_scale=motion_scale)
        denoise = work.denoise(wanted, work.plan.guidance)
        with bar(len(times), progress, "editing") as tick:
            after = after_step(times, tick, None)
            x = work.sampler(denoise, x, times, noise=lambda draw: fresh(*address, draw).to(x.device), after=after)
    edited = work.edited(x)
    change = float((edited.frames - clip.cpu()).abs().mean())
    return Edited(edited.frames, measured={"steps": float(len(times)), "change": change})
