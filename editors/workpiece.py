"""What an edit begins with and ends in: the clip in latents, the grid, the network under a prompt; then frames and figures."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from editors.edited import Edited
from videogen import plan
from videogen.conditioning import Dial, stack
from videogen.control import Control
from videogen.errors import InputError
from videogen.guidance import Scale, cfg
from videogen.models import autoencoder
from videogen.pipeline import Pair, Pipeline
from videogen.prediction import Denoise
from videogen.sampling import Sampler
from videogen.times import Times
from videogen.windows import Windows, windowed


@dataclasses.dataclass(frozen=True, eq=False)
class Workpiece:
    """A clip on the bench.

    source   the frames as given: f 3 H W in [0, 1]
    latents  1 f c h w, the mean of the VAE's posterior
    sampler  with the model's own settings; `times` is its grid
    windows  how a clip longer than the motion module's table is cut, or None
    """

    pipe: Pipeline
    source: Tensor
    latents: Tensor
    sampler: Sampler
    times: Times
    windows: Windows | None

    @torch.no_grad()
    def conditions(
        self, *prompts: str, negative_prompt: str | None = None, motion_scale: float | Dial = 1.0
    ) -> list[Pair]:
        """The pair (given, null) of each prompt. They are encoded together, so that their lengths agree and they stack."""
        size = (self.source.shape[2], self.source.shape[3])
        frames = range(len(self.source))
        given, null = self.pipe.condition(prompts, negative_prompt, frames, size, motion_scale)
        return [(given.only([i]), null.only([i])) for i in range(len(prompts))]

    def denoise(self, pair: Pair, guidance_scale: Scale = 1.0, control: Control | None = None) -> Denoise:
        """The network under a condition, on this grid, guided and in windows where the clip needs them."""
        denoiser = self.pipe.denoiser.replace(path=self.times.path)
        given, null = pair
        if guidance_scale == 1:
            denoise: Denoise = denoiser.given(given.named("cond"), control, self.times.t)
        else:
            denoise = cfg(denoiser.given(stack(uncond=null, cond=given), control, self.times.t), guidance_scale)
        return denoise if self.windows is None else windowed(denoise, self.windows)

    @torch.no_grad()
    def edited(self, latents: Tensor, mask: Tensor | None = None, **measured: float) -> Edited:
        """Latents 1 f c h w, decoded, with the mask that was used (f 1 H W) and what was measured."""
        return Edited(self.pipe.decode(latents)[0], mask, measured)

    @torch.no_grad()
    def psnr(self, latents: Tensor) -> float:
        """Peak signal-to-noise ratio, in dB, of decoded latents 1 f c h w against the VAE's own round trip of the source."""
        difference = self.pipe.decode(latents).double() - self.pipe.decode(self.latents).double()
        return float(-10 * difference.square().mean().clamp(min=1e-12).log10())


@torch.no_grad()
def begin(
    pipe: Pipeline, clip: Tensor, steps: int, *, sampler: str = "ddim", windows: Windows | None = None
) -> Workpiece:
    """Frames `f 3 H W` in [0, 1] (one for a picture), H and W multiples of the VAE's factor, made ready for `steps` steps.

    windows   chosen by itself where the clip is longer than the motion module allows

    Raises InputError for another shape, a size that does not fit, values outside [0, 1], or impossible steps.
    """
    if clip.ndim != 4 or clip.shape[1] != 3 or not len(clip) or not clip.is_floating_point():
        raise InputError(f"a clip to edit is f 3 H W, floats in [0, 1], not {clip.dtype} of shape {tuple(clip.shape)}")
    if not bool(torch.isfinite(clip).all()) or float(clip.min()) < -1e-3 or float(clip.max()) > 1 + 1e-3:
        raise InputError(f"the clip's values run from {float(clip.min()):g} to {float(clip.max()):g}; give [0, 1]")
    height, width = clip.shape[2], clip.shape[3]
    plan.size_of(height, width, (height, width), autoencoder.factor(pipe.parts.vae))
    plan.check_numbers(len(clip), steps)
    table = (None, None) if pipe.motion is None else (pipe.motion.longest, pipe.motion.trained)
    pieces = plan.windows_of(windows, len(clip), False, *table)
    method = plan.sampler_of(sampler, pipe.scheduler, 0.0, False)
    times = method.times(pipe.denoiser.path, steps)
    return Workpiece(pipe, clip, pipe.encode(clip[None]), method, times, pieces)
