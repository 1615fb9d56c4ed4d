"""The recipe of Tune-A-Video (Wu et al. 2023, section 3.3): one clip and its caption, the tensors of `trainable`, the plain loss.

Settings have the authors' names. What differs from their script is the one training loop's: randomness by step, so that a resumed run is the same
run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from motion_modules.tune_a_video import TRAINABLE, Bias, trainable
from motion_modules.tune_a_video_folder import animated, pipeline, write_parts
from videogen.conditioning import Conditioning
from videogen.errors import InputError
from videogen.frame_choice import SPARSE_CAUSAL
from videogen.mixing import mix
from videogen.models import autoencoder
from videogen.models.folder import Parts, find, load_folder
from videogen.pipeline import Pipeline
from videogen.training import Offer
from videogen.training.config import CARD, Strict
from videogen.training.denoising import target
from videogen.training.diffusion import TIMES
from videogen.training.recipe import JUDGE_SEED, Draw, Thunk

TOLD = """\
# Tune-A-Video

A model tuned on one clip with `videogen train`, recipe `tune_a_video`, in the layout of the authors' code;
`videogen edit CLIP PROMPT --model FOLDER`. The clip's caption was:
"""


class TrainData(Strict):
    """The clip: every `sample_frame_rate`-th frame from `sample_start_idx` on, at most `n_sample_frames`, at one size."""

    video_path: Path
    prompt: str
    n_sample_frames: int = Field(8, gt=0)
    width: int = Field(512, gt=0)
    height: int = Field(512, gt=0)
    sample_start_idx: int = Field(0, ge=0)
    sample_frame_rate: int = Field(1, gt=0)


class How(Strict):
    """What is tuned and how, whatever the model and the clip."""

    trainable_modules: tuple[str, ...] = TRAINABLE
    train_batch_size: int = Field(1, gt=0)  # draws of time and noise a step and process
    gradient_checkpointing: bool = True


class Settings(How):
    """The model that is tuned (a folder or hub id of the Stable Diffusion kind, or `shapes`) and the clip."""

    pretrained_model_path: str
    train_data: TrainData
    temporal_bias: Bias = "zero"  # "random" is the released code's start, a small offset of every channel


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a run is about: a model whose UNet has temporal layers, the clip `f 3 H W` in [0, 1], and its caption."""

    pipe: Pipeline
    clip: Tensor
    prompt: str


class Batch(NamedTuple):
    """Clean latents `b f c h w`, times `b`, noise like the latents."""

    latents: Tensor
    times: Tensor
    noise: Tensor


class Tuning:
    """Trains the queries of self- and text attention and the temporal attention (group `tuned`) on one clip."""

    root: nn.Module

    def __init__(self, how: How, subject: Callable[[torch.device], Subject]) -> None:
        self.how, self.subject = how, subject

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        """Encode clip and caption, and freeze all but the declared tensors."""
        self.about = self.subject(device)
        pipe, self.device = self.about.pipe, device
        self.root = pipe.parts.unet
        pipe.parts.unet.set_checkpointing(self.how.gradient_checkpointing)
        with torch.no_grad():
            size = (self.about.clip.shape[2], self.about.clip.shape[3])
            frames = range(len(self.about.clip))
            self.told: Conditioning = pipe.condition([self.about.prompt], None, frames, size)[0]
            self.mean, self.deviation = posterior(pipe.parts, self.about.clip.to(device))
        return {"tuned": list(trainable(self.root, self.how.trainable_modules).values())}

    def batches(self, draws: Iterator[Draw]) -> Iterator[Batch]:
        """The clip's latents, drawn from the VAE's posterior anew, with times and noise."""
        for draw in draws:
            generator, count = draw.generator("batch"), self.how.train_batch_size * draw.ranks
            noise, within = torch.randn(2, count, *self.mean.shape, generator=generator)
            times = torch.randint(self.about.pipe.denoiser.path.steps, (count,), generator=generator)
            mine = draw.share(count)
            latents = self.mean + self.deviation * within[mine].to(self.device)
            yield Batch(latents, times[mine], noise[mine].to(self.device))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Thunk]]:
        """The mean square error of what the net predicts."""
        yield "tuned", lambda: {"loss": self.error(batch)}

    def error(self, batch: Batch) -> Tensor:
        """The mean over everything of (out - what it should be)^2, in the net's own parametrisation."""
        denoiser, x0, eps = self.about.pipe.denoiser, batch.latents, batch.noise
        alpha, sigma = denoiser.path.alpha(batch.times), denoiser.path.sigma(batch.times)
        denoise = denoiser.given(self.told.expand(len(x0)), SPARSE_CAUSAL)
        said = denoise(mix(alpha, x0, sigma, eps), batch.times).out.float()
        return (said - target(denoiser.predicts, x0, eps, alpha, sigma)).square().mean()

    def judge(self) -> dict[str, float]:
        """The error on the clip itself (there is no other) at three times, always with the same noise."""
        generator = torch.Generator().manual_seed(JUDGE_SEED)
        noise = torch.randn(1, *self.mean.shape, generator=generator).to(self.device)
        steps = self.about.pipe.denoiser.path.steps
        batches = {time: Batch(self.mean[None], torch.tensor([time * steps // 1000]), noise) for time in TIMES}
        return {f"error_{time}": float(self.error(batch)) for time, batch in batches.items()}

    def export(self, folder: Path) -> None:
        """A whole model in the authors' layout, and a card."""
        write_parts(self.about.pipe.parts, folder)
        (folder / CARD).write_text(f"{TOLD}\n{self.about.prompt}\n", encoding="utf-8")


def posterior(parts: Parts, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the latents of a clip `f 3 H W` in [0, 1], both `f c h w`: the authors tune on draws, not on the mean."""
    return autoencoder.posterior(parts.vae, clip * 2 - 1, slice_frames=1)


def read_clip(data: TrainData) -> Tensor:
    """The frames that are tuned on: `f 3 H W` in [0, 1], squeezed to the size as the authors do. Raises InputError for an unusable file."""
    from videogen.video import read

    clip = read(data.video_path)
    frames = (
        clip.cut(data.sample_start_idx, len(clip))
        .to_float()
        .expand(-1, 3, -1, -1)[:: data.sample_frame_rate][: data.n_sample_frames]
    )
    size = (data.height, data.width)
    return frames if frames.shape[2:] == size else torch.nn.functional.interpolate(frames, size, mode="area")


def subject(settings: Settings, device: torch.device) -> Subject:
    """The model and the clip that settings name. Raises InputError where the size does not suit the model."""
    data = settings.train_data
    clip = read_clip(data)
    pipe = pipeline(animated(load_folder(find(settings.pretrained_model_path)), settings.temporal_bias)).to(device)
    factor = autoencoder.factor(pipe.parts.vae)
    if data.width % factor or data.height % factor:
        raise InputError(f"train_data: {data.width} x {data.height} pixels are not multiples of {factor}")
    return Subject(pipe, clip, data.prompt)


def offer() -> Offer:
    """The recipe `tune_a_video`, as `videogen train` finds it (entry point group `videogen.recipes`)."""
    return Offer(Settings, lambda settings: Tuning(settings, lambda device: subject(settings, device)))
