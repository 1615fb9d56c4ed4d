"""DDIM inversion (Song et al. 2021, section 4.3): the noise that samples to a clip, and a new prompt from it.

The plain way to edit, and the baseline of the others: what is not said in the prompt is held by the noise alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.edited import Edited
from editors.map_levels import attention_sites
from editors.workpiece import Workpiece, begin
from videogen.branches import Pair
from videogen.conditioning import Dial
from videogen.control import Control
from videogen.errors import InputError
from videogen.frame_choice import Entry, FrameChoice
from videogen.guidance import Scale
from videogen.inversion import Asked, Trajectory, invert, reconstruct
from videogen.models.words import Words
from videogen.pipeline import Pipeline
from videogen.progress import bar, ticking
from videogen.windows import Windows


@dataclass(frozen=True, eq=False)
class Inversion(Trajectory):
    """A trajectory that knows what it was made under: the prompt, and which frames self-attention read, by place (none where each its own)."""

    words: Words
    reads: Mapping[str, tuple[Entry, ...]]


@torch.no_grad()
def ddim_inversion(
    pipe: Pipeline,
    clip: Tensor,
    source: str,
    target: str,
    *,
    steps: int = 50,
    strength: float | None = None,
    guidance_scale: Scale | None = None,
    negative_prompt: str | None = None,
    inversion_scale: Scale = 1.0,
    asked: Asked = "target",
    rounds: int = 0,
    motion_scale: float | Dial = 1.0,
    windows: Windows | None = None,
    trajectory: Inversion | None = None,
    progress: bool = True,
) -> Edited:
    """Invert frames `f 3 H W` under the source prompt (which may be empty), then sample from that noise under the target.

    strength         share of the grid that is inverted and sampled again; None is the model's own advice, else all
    guidance_scale   of the sampling; None is the model's own
    inversion_scale  of the inversion; 1, no guidance, unless a study wants otherwise
    asked, rounds    how the inverse step is guessed and refined, see `videogen.inversion`
    trajectory       an inversion of this clip by `invert_clip`, instead of making one

    Measured: `reconstruction_rms`, of the latents, and `reconstruction_psnr`, in dB against the VAE's round trip, of
    sampling under the source prompt just as the inversion did.
    """
    work = begin(pipe, clip, steps, strength=strength, guidance_scale=guidance_scale, windows=windows)
    described, wanted = work.conditions(source, target, negative_prompt=negative_prompt, motion_scale=motion_scale)
    trajectory = inverted(
        work, described, scale=inversion_scale, asked=asked, rounds=rounds, made=trajectory, progress=progress
    )
    x = work.sample(work.denoise(wanted, work.plan.guidance), trajectory.noise, progress)
    again = reconstruct(work.denoise(described, inversion_scale), trajectory)
    rms, psnr = float(trajectory.distance(again)[-1]), work.psnr(again.clean)
    return work.edited(x, reconstruction_rms=rms, reconstruction_psnr=psnr)


@torch.no_grad()
def invert_clip(
    pipe: Pipeline,
    clip: Tensor,
    source: str,
    *,
    steps: int = 50,
    strength: float | None = None,
    asked: Asked = "target",
    rounds: int = 0,
    motion_scale: float | Dial = 1.0,
    windows: Windows | None = None,
    frames: Control | None = None,
    progress: bool = True,
) -> Inversion:
    """The inversion of frames `f 3 H W` under the prompt that describes them, for several edits: their `trajectory`.

    They need the same clip, source prompt, steps and strength, and the same `frames`, which self-attention reads: None is what the model was tuned
    with, else every frame its own. Only `fatezero` reads others, on models without motion modules (`fatezero.default_frames`). The other arguments
    are those of `ddim_inversion`.
    """
    work = begin(pipe, clip, steps, strength=strength, windows=windows, frames=frames)
    (described,) = work.conditions(source, motion_scale=motion_scale)
    return inverted(work, described, asked=asked, rounds=rounds, progress=progress)


def check_fits(work: Workpiece, described: Pair, made: Inversion) -> None:
    """Raise InputError where an inversion is of another clip, on another grid, under another prompt, or by a network that read other frames."""
    if not torch.equal(made.times.t, work.times.t):
        raise InputError(
            "the trajectory was made with other steps or another strength; invert the clip with those of this call"
        )
    if made.clean.shape != work.latents.shape or not torch.allclose(made.clean, work.latents, atol=1e-2):
        raise InputError("the trajectory ends in another clip than the one that is given; invert this one")
    words = described[0].words[0]
    if made.words.padded(words.chunks) != words.padded(made.words.chunks):
        raise InputError(
            f"the trajectory was made under {made.words.text!r}; invert the clip under {words.text!r}, the source prompt of this call"
        )
    if made.reads != frames_read(work):
        raise InputError(
            "the trajectory was made with self-attention over other frames; give `invert_clip` the frames of this call (fatezero's own are "
            "`default_frames(pipe)`)"
        )


def frames_read(work: Workpiece) -> dict[str, tuple[Entry, ...]]:
    """Which frames the self-attentions of a network read, by place and in no order; without those that read their own, as all do in a picture."""
    table = work.always
    if len(work.source) == 1 or not isinstance(table, FrameChoice) or not table.entries:
        return {}
    entries = tuple(sorted(table.entries, key=str))
    return {s.place: entries for s in attention_sites(work.pipe.parts.unet) if s.kind == "self" and table.sites(s)}


def inverted(
    work: Workpiece,
    described: Pair,
    *,
    scale: Scale = 1.0,
    asked: Asked = "target",
    rounds: int = 0,
    made: Inversion | None = None,
    progress: bool = True,
) -> Inversion:
    """The trajectory of a workpiece from noise to its latents, under the prompt that describes it; `made` before, it is checked alone."""
    if made is not None:
        check_fits(work, described, made)
        return made
    denoise = work.denoise(described, scale)
    with bar(len(work.times), progress, "inverting") as tick:
        found = invert(denoise, work.latents, work.times, asked=asked, rounds=rounds, after=ticking(tick))
    return Inversion(found.times, found.latents, found.device, described[0].words[0], frames_read(work))
