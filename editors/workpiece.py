"""What an edit begins with and ends in: the clip in latents, the grid, the network under a prompt; then frames and figures."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from editors.edited import Edited
from videogen.branches import Pair, together
from videogen.conditioning import Dial
from videogen.control import Control, both
from videogen.errors import InputError
from videogen.guidance import Scale
from videogen.pipeline import Pipeline
from videogen.plan import Plan
from videogen.prediction import Denoise
from videogen.progress import After, bar, ticking
from videogen.sampling import Sampler, ddim
from videogen.times import Times
from videogen.windows import Windows, windowed


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """A model made ready for one call.

    plan     frames, size, guidance (the model's own, where none was asked for), sampler, grid and windows
    always   a control in every call of the network: what its weights were tuned with (Tune-A-Video's frame choice), or the method's own in its place
    """

    pipe: Pipeline
    plan: Plan
    always: Control | None

    @property
    def sampler(self) -> Sampler:
        """With the model's own settings."""
        return self.plan.sampler

    @property
    def times(self) -> Times:
        """The grid."""
        return self.plan.times

    @property
    def windows(self) -> Windows | None:
        """How a clip longer than the motion module's table is cut, or None."""
        return self.plan.windows

    @torch.no_grad()
    def conditions(
        self, *prompts: str, negative_prompt: str | None = None, motion_scale: float | Dial = 1.0
    ) -> list[Pair]:
        """The pair (given, null) of each prompt. They are encoded together, so that their lengths agree and they stack."""
        given, null = self.pipe.condition(prompts, negative_prompt, self.plan.frames, self.plan.size, motion_scale)
        return [(given.only([i]), null.only([i])) for i in range(len(prompts))]

    def denoise(self, pair: Pair, guidance_scale: Scale = 1.0, control: Control | None = None) -> Denoise:
        """The network under a condition, on this grid, guided and in windows where the clip needs them."""
        return self.in_windows(self.ask(pair, guidance_scale, control))

    def ask(self, pair: Pair, guidance_scale: Scale = 1.0, control: Control | None = None) -> Denoise:
        """The same of the frames of one window."""
        denoiser = self.pipe.denoiser.replace(path=self.times.path)
        return together(denoiser, pair, guidance_scale, self.times.t, both(self.always, control))

    def in_windows(self, denoise: Denoise) -> Denoise:
        """What answers for the frames of one window, asked for the whole clip."""
        return denoise if self.windows is None else windowed(denoise, self.windows)

    def sample(self, denoise: Denoise, x: Tensor, progress: bool, after: After | None = None) -> Tensor:
        """From noise `b f c h w` to latents by DDIM, under a bar."""
        with bar(len(self.times), progress, "editing") as tick:
            return ddim(denoise, x, self.times, after=ticking(tick, after))

    @torch.no_grad()
    def edited(self, latents: Tensor, mask: Tensor | None = None, **measured: float) -> Edited:
        """Latents 1 f c h w, decoded, with the mask that was used (f h w, on the latents' grid) and what was measured."""
        shown = None if mask is None else F.interpolate(mask[:, None].float(), self.plan.size).cpu()
        return Edited(self.pipe.decode(latents)[0], shown, measured)


@dataclasses.dataclass(frozen=True, eq=False)
class Workpiece(Bench):
    """A clip on the bench.

    source   the frames as given: f 3 H W in [0, 1]
    latents  1 f c h w, the mean of the VAE's posterior
    """

    source: Tensor
    latents: Tensor

    @torch.no_grad()
    def psnr(self, latents: Tensor) -> float:
        """Peak signal-to-noise ratio, in dB, of decoded latents 1 f c h w against the VAE's own round trip of the source."""
        difference = self.pipe.decode(latents).double() - self.pipe.decode(self.latents).double()
        return float(-10 * difference.square().mean().clamp(min=1e-12).log10())


@torch.no_grad()
def begin(
    pipe: Pipeline,
    clip: Tensor,
    steps: int,
    *,
    strength: float | None = None,
    guidance_scale: Scale | None = None,
    sampler: str = "ddim",
    windows: Windows | None = None,
    frames: Control | None = None,
) -> Workpiece:
    """Frames `f 3 H W` in [0, 1] (one for a picture), H and W multiples of the VAE's factor, made ready for a grid of `steps` steps.

    strength  share of the grid that is run, cut down to whole steps as in diffusers' image to image; None is the model's own advice, else all
    windows   chosen by itself where the clip is longer than the motion module allows
    frames    the method's own frame choice, in every call of the network; None is the one that the model was tuned with, if it was

    Raises InputError for another shape, a size that does not fit, values outside [0, 1], or impossible steps or strength.
    """
    if clip.ndim != 4 or clip.shape[1] != 3 or not len(clip) or not clip.is_floating_point():
        raise InputError(f"a clip to edit is f 3 H W, floats in [0, 1], not {clip.dtype} of shape {tuple(clip.shape)}")
    if not bool(torch.isfinite(clip).all()) or float(clip.min()) < -1e-3 or float(clip.max()) > 1 + 1e-3:
        raise InputError(f"the clip's values run from {float(clip.min()):g} to {float(clip.max()):g}; give [0, 1]")
    strength = pipe.advised_strength(1.0) if strength is None else strength
    if not 0 <= strength <= 1:
        raise InputError(f"strength {strength:g}: give 0 (nothing changes) to 1 (everything may)")
    always = tuned_with(pipe) if frames is None else frames
    settled = pipe.plan(
        num_frames=len(clip), height=clip.shape[2], width=clip.shape[3], num_inference_steps=steps,
        guidance_scale=guidance_scale, sampler=sampler, windows=windows, control=always,
    )  # fmt: skip
    settled = dataclasses.replace(settled, times=settled.times.final(int(steps * strength)))
    return Workpiece(pipe, settled, always, clip, pipe.encode(clip[None]))


def tuned_with(pipe: Pipeline) -> Control | None:
    """The control that belongs to a model's weights, if there is one."""
    return None if pipe.motion is None else pipe.motion.control
