"""Tune-A-Video (Wu et al. 2023): tune an image model on one clip, invert the clip, sample with the edited prompt.

The network is the image UNet with a temporal attention in every transformer block (`motion_modules.tune_a_video`), self-attention over the
first and the previous frame (`frame_choice.SPARSE_CAUSAL`) in tuning, inversion and sampling alike; a folder
that was tuned with another table is sampled with its own. One tuning serves many prompts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from editors.ddim_inversion import Inversion, invert_clip, inverted
from editors.edited import Edited
from editors.workpiece import begin, tuned_with
from motion_modules.tune_a_video import temporal_parameters
from motion_modules.tune_a_video_folder import animated, pipeline
from videogen.conditioning import Dial
from videogen.errors import InputError
from videogen.files import replacing
from videogen.frame_choice import SPARSE_CAUSAL
from videogen.guidance import Scale
from videogen.noise import FrameNoise
from videogen.pipeline import Pipeline


def tune_a_video(
    pipe: Pipeline,
    clip: Tensor,
    source: str,
    target: str,
    *,
    tuning_steps: int = 200,
    learning_rate: float = 3e-5,
    steps: int = 50,
    strength: float | None = None,
    guidance_scale: Scale = 12.5,
    negative_prompt: str | None = None,
    inversion_prompt: str = "",
    motion_scale: float | Dial = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> Edited:
    """Frames `f 3 H W` in [0, 1] that show `source`, made to show `target`.

    pipe              an image model (motion modules are left out), which stays as it is; or a tuned one, which is not tuned again
    tuning_steps      500 in the paper; too many, and the model can no longer be told otherwise
    learning_rate     the authors' for Stable Diffusion; a model as small as the miniature wants one some hundred times as high
    strength          share of the grid that is inverted and sampled again; None is the model's own advice, else all
    inversion_prompt  what the net is told while the clip is inverted; the authors say nothing

    Measured: `error_T`, what the tuned net's prediction is off by on the clip at t = T (where it was tuned here).
    """
    measured: dict[str, float] = {}
    if not temporal_parameters(pipe.parts.unet):
        pipe, measured = tune(
            pipe, clip, source, steps=tuning_steps, learning_rate=learning_rate, seed=seed, progress=progress
        )
    made = sample(
        pipe, clip, target, steps=steps, strength=strength, guidance_scale=guidance_scale, negative_prompt=negative_prompt,
        inversion_prompt=inversion_prompt, motion_scale=motion_scale, progress=progress,
    )  # fmt: skip
    return dataclasses.replace(made, measured={**made.measured, **measured})


@torch.no_grad()
def sample(
    pipe: Pipeline,
    clip: Tensor,
    target: str,
    *,
    steps: int = 50,
    strength: float | None = None,
    guidance_scale: Scale = 12.5,
    negative_prompt: str | None = None,
    inversion_prompt: str | None = "",
    motion_scale: float | Dial = 1.0,
    seed: int = 0,
    first: int = 0,
    trajectory: Inversion | None = None,
    progress: bool = True,
) -> Edited:
    """A tuned model's clip of `target`, begun from the inverted clip.

    With `inversion_prompt=None` it begins from the noise of a seed, whatever the strength.

    first       the id of the first frame, where the frames are a piece of a longer clip: pieces that overlap share that noise
    trajectory  an inversion of this clip (`ddim_inversion.invert_clip`), instead of making one
    """
    if inversion_prompt is None:
        strength = 1.0
    table = tuned_with(pipe) or SPARSE_CAUSAL  # a folder of FateZero's authors has a table of its own
    work = begin(pipe, clip, steps, strength=strength, guidance_scale=guidance_scale, frames=table)
    described, wanted = work.conditions(
        inversion_prompt or "", target, negative_prompt=negative_prompt, motion_scale=motion_scale
    )
    if inversion_prompt is None:
        noise = FrameNoise(seed)(1, range(first, first + len(clip)), work.latents.shape[2:]).to(work.latents)
    else:
        noise = inverted(work, described, made=trajectory, progress=progress).noise
    return work.edited(work.sample(work.denoise(wanted, guidance_scale), noise, progress))


def check_tuning(steps: int, learning_rate: float) -> None:
    """Raise InputError for numbers with which nothing can be tuned."""
    if steps < 0 or not 0 < learning_rate < math.inf:
        raise InputError(
            f"{steps} tuning steps at a learning rate of {learning_rate:g}: give 0 or more, at a rate above 0, such as 3e-5"
        )


def tune(
    pipe: Pipeline,
    clip: Tensor,
    prompt: str,
    *,
    steps: int = 200,
    learning_rate: float = 3e-5,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Pipeline, dict[str, float]]:
    """A copy of an image model, tuned on frames `f 3 H W` in [0, 1] and their caption, and its error on the clip.

    With 0 steps it is the untuned model with the method's attention. progress: the loop tells of its steps on stderr. Raises KeyboardInterrupt
    where the loop was stopped by a signal: half a tuning is not what was asked for.
    """
    from motion_modules.tuning import How, Subject, Tuning
    from videogen.training.config import RunConfig
    from videogen.training.loop import Loop

    check_tuning(steps, learning_rate)
    begin(pipe, clip, 1)  # refuses what cannot be edited before anything is tuned
    device, dtype = pipe.device, pipe.parts.unet.conv_in.weight.dtype
    recipe = Tuning(How(), lambda place: Subject(pipeline(animated(pipe.parts)).to(place, torch.float32), clip, prompt))
    try:
        with torch.random.fork_rng(), torch.enable_grad(), tempfile.TemporaryDirectory(prefix="videogen-") as folder:
            if steps:
                optimization = {
                    "optimizer": "adamw", "adamw": learning_rate, "betas": (0.9, 0.999), "weight_decay": 0.01, "schedule": "constant",
                }  # fmt: skip
                values = {
                    "recipe": "tune_a_video", "out": Path(folder) / "run", "seed": seed, "budget": {"steps": steps}, "settings": {},
                    "optimization": {**optimization, "warmup": 0.0, "average": 0.0}, "every": {"log": max(steps // 10, 1), "checkpoint": 0},
                }  # fmt: skip
                loop = Loop(RunConfig[How].model_validate(values), recipe)
                with contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO()):
                    loop.run()
                if loop.progress < 1:
                    raise KeyboardInterrupt
            else:
                torch.manual_seed(seed)
                recipe.prepare(device)
        tuned = recipe.about.pipe
        tuned.parts.unet.set_checkpointing(False)
        with torch.no_grad():
            error = recipe.judge()
        tuned.parts.unet.requires_grad_(False)
    finally:
        pipe.parts.to(device, dtype)  # the copy has the same VAE and text side
    return tuned.to(device, dtype), error


def from_config(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Edited]:
    """Run a configuration file with the authors' keys: tune (or resume) into `output_dir`, then a clip for each of its prompts.

    With `use_inv_latent` they begin from the inverted clip, which is left in `output_dir/inv_latents` as theirs is. Under `accelerate launch` the
    first process makes the clips, the others return none. Raises InputError with the path of the first wrong key, KeyboardInterrupt where the
    tuning was stopped by a signal.
    """
    from motion_modules.tune_a_video_folder import load
    from motion_modules.tuning import offer, read_clip
    from motion_modules.tuning_config import read_authors
    from videogen.training.loop import Loop

    config = read_authors(path, overrides)
    run = config.run()
    loop = Loop(run, offer().build(run.settings))
    loop.run(config.resume_from_checkpoint)
    if loop.progress < 1:
        raise KeyboardInterrupt
    loop.accelerator.wait_for_everyone()  # until the first process has written the model
    if not loop.accelerator.is_main_process:
        return {}
    pipe, clip, made = load(config.output_dir), read_clip(config.train_data), config.validation_data
    clip = clip[: made.video_length]
    trajectory = None
    if made.use_inv_latent and made.prompts:
        trajectory = invert_clip(pipe, clip, "", steps=made.num_inference_steps)
        write_noise(config.output_dir / "inv_latents" / f"ddim_latent-{config.max_train_steps}.pt", trajectory.noise)
    return {
        prompt: sample(
            pipe, clip, prompt, steps=made.num_inference_steps, guidance_scale=made.guidance_scale,
            negative_prompt=made.negative_prompt, inversion_prompt="" if made.use_inv_latent else None, seed=config.seed or 0,
            trajectory=trajectory,
        )
        for prompt in made.prompts
    }  # fmt: skip


def write_noise(path: Path, noise: Tensor) -> None:
    """Write an inverted clip `1 f c h w` as the authors do: one tensor, `1 c f h w`."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as beside:
        torch.save(noise.transpose(1, 2).cpu().contiguous(), beside)
