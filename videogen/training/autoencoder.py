"""The recipe of the miniature's VAE: diffusers' AutoencoderKL on rendered frames (Kingma and Welling 2014; Rombach et al. 2022, section 3.1).

Objects fill a few per cent of a frame, so a plain loss learns backgrounds. Two things help: at first the crops lie near an object, and half of
the loss is the mean over objects and the pixels close to them, where a blurred edge shows. Two groups in GroupNorm, because normalising two
channels by themselves hides absolute colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import videogen.foreign

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from videogen.models.folder import load_vae
from videogen.shapes import render, sample
from videogen.shapes.geometry import poses
from videogen.shapes.world import COLOURS, FRAMES, SIZE, Scenes
from videogen.training.config import Strict
from videogen.training.recipe import JUDGE_SEED, Draw, Thunk


class Settings(Strict):
    """What the autoencoder is and sees."""

    start: Path | None = None  # the folder of a VAE of these sizes to go on from
    widths: tuple[int, ...] = (16, 32, 64, 64)
    groups: int = 2
    latent_channels: int = 4
    batch_size: int = 16
    crop: int = 64  # pixels, of the first phase
    whole_from: float = 0.6  # share of the budget after which whole frames come
    kl: float = 5e-4  # weight of the divergence, averaged over elements
    rim: int = 4  # pixels around an object that count as it
    judged_frames: int = 64


class Batch(NamedTuple):
    """Pixels `b 3 h w` in [-1, 1], where objects are `b 1 h w`, and the posterior's noise `b c h/8 w/8`."""

    pixels: Tensor
    objects: Tensor
    noise: Tensor


class Autoencoder:
    """Trains the whole VAE; exports it with each latent channel moved to mean 0 and deviation 1."""

    root: AutoencoderKL

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        """A fresh VAE, or the one at `start`; everything trains."""
        s = self.settings
        levels = len(s.widths)
        self.device = device
        self.root = AutoencoderKL(
            block_out_channels=s.widths,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=1,
            norm_num_groups=s.groups,
            latent_channels=s.latent_channels,
            mid_block_add_attention=False,
            sample_size=SIZE,
            scaling_factor=1.0,
        ).to(device, memory_format=torch.channels_last)
        if s.start:
            self.root.load_state_dict(load_vae(s.start, torch.float32).state_dict())
        return {"vae": list(self.root.parameters())}

    def batches(self, draws: Iterator[Draw]) -> Iterator[Batch]:
        """Crops near an object while `progress` is below `whole_from`, whole frames after it."""
        for draw in draws:
            generator, share = draw.generator("frames"), draw.share(self.settings.batch_size)
            scenes = sample(self.settings.batch_size, generator=generator)
            frames = torch.randint(FRAMES, (len(scenes), 1), generator=generator)
            window = self.settings.crop if draw.progress < self.settings.whole_from else SIZE
            corner = _corners(poses(scenes, frames / (FRAMES - 1)).centre[:, 0, 0], window, generator)
            noise = torch.randn(
                len(scenes), self.settings.latent_channels, window // 8, window // 8, generator=generator
            )
            pixels, objects = _picture(scenes[share].to(self.device), frames[share])
            if window < SIZE:
                pixels, objects = _cut(pixels, corner[share], window), _cut(objects, corner[share], window)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            yield Batch(pixels, objects, noise[share].to(self.device))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Thunk]]:
        """|d| + d^2, half of it over all pixels and half over those near objects, plus the weighted divergence."""
        rim = self.settings.rim
        near = F.max_pool2d(batch.objects, 2 * rim + 1, stride=1, padding=rim)

        def thunk() -> dict[str, Tensor]:
            posterior = self.root.encode(batch.pixels).latent_dist
            decoded = self.root.decode(posterior.mean + posterior.std * batch.noise).sample
            difference = decoded.float() - batch.pixels
            error = difference.abs() + difference.square()
            mask = near.expand_as(error)
            everywhere, objects = error.mean(), (error * mask).sum() / mask.sum().clamp(min=1)
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
            loss = 0.5 * everywhere + 0.5 * objects + self.settings.kl * divergence
            return {"loss": loss, "everywhere": everywhere, "objects": objects, "divergence": divergence}

        yield "vae", thunk

    def judge(self) -> dict[str, float]:
        """PSNR of held-out frames (mean over all pixels and frames), and the share of objects whose median colour is nearest to the right one.

        Outlined objects are left out: of a small one half the pixels are contour, in the true picture already.
        """
        generator, count = Draw(JUDGE_SEED, 0).generator("judge"), self.settings.judged_frames
        scenes = sample(count, generator=generator, split="test", objects=1, styles=("flat", "shaded")).to(self.device)
        pixels, objects = _picture(scenes, torch.randint(FRAMES, (count, 1), generator=generator))
        latents = torch.cat([self.root.encode(part).latent_dist.mean for part in pixels.split(8)])
        decoded = torch.cat([self.root.decode(part).sample for part in latents.split(8)])
        error = ((decoded.clamp(-1, 1) - pixels) / 2).square()
        mask = objects.expand_as(error)
        return {
            "psnr": float(-10 * error.mean().log10()),
            "psnr_objects": float(-10 * ((error * mask).sum() / mask.sum()).log10()),
            "colour": _right_colours(decoded, objects, scenes),
            "latent_deviation": float(latents.std()),
        }

    def export(self, folder: Path) -> None:
        """`vae/`: a float16 copy whose latents have mean 0 and deviation 1 in every channel; `scaling_factor` stays 1."""
        generator = Draw(JUDGE_SEED, 1).generator("statistics")
        scenes = sample(256, generator=generator)
        pixels, _ = _picture(scenes.to(self.device), torch.randint(FRAMES, (256, 1), generator=generator))
        with torch.no_grad():
            latents = torch.cat([self.root.encode(part).latent_dist.mean for part in pixels.split(8)])
        vae = AutoencoderKL.from_config(self.root.config)
        vae.load_state_dict(self.root.state_dict())
        standardise(vae, latents.mean((0, 2, 3)).cpu(), latents.std((0, 2, 3)).cpu())
        vae.half().save_pretrained(folder / "vae")


@torch.no_grad()
def standardise(vae: Any, mean: Tensor, deviation: Tensor) -> None:
    """Move the latents of `vae` from (mean, deviation), both `c`, to (0, 1) in every channel; what it decodes to stays.

    Both 1x1 convolutions around the latent are linear, so the change of units folds into them.
    """
    channels = len(mean)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    encode.weight[:channels] /= deviation[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / deviation
    encode.bias[channels:] -= 2 * deviation.log()
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= deviation[None, :, None, None]


def _corners(centre: Tensor, window: int, generator: torch.Generator) -> Tensor:
    """Upper left corners `b 2` (x, y) of windows that hold `centre` (`b 2`), anywhere within the window."""
    where = torch.rand(len(centre), 2, generator=generator) * 0.7 + 0.15
    return (centre - where * window).round().clamp(0, SIZE - window).long()


def _picture(scenes: Scenes, frames: Tensor) -> tuple[Tensor, Tensor]:
    """One frame of each clip (`frames` `b 1`): `b 3 h w` in [-1, 1], and where an object is, `b 1 h w` in {0, 1}."""
    rendered = render(scenes, only=frames)
    masks = rendered.masks[:, 0]
    return rendered.frames[:, 0] * 2 - 1, (masks.amax(1, keepdim=True) > 0.5).float()


def _cut(pictures: Tensor, corners: Tensor, window: int) -> Tensor:
    """`b c window window`, each cut at its corner (x, y)."""
    pairs = zip(pictures, corners.tolist(), strict=True)
    return torch.stack([picture[:, y : y + window, x : x + window] for picture, (x, y) in pairs])


def _right_colours(decoded: Tensor, objects: Tensor, scenes: Scenes) -> float:
    table = torch.tensor(list(COLOURS.values()), dtype=torch.float32, device=decoded.device) / 255
    right = 0
    for picture, mask, colour in zip((decoded + 1) / 2, objects[:, 0] > 0.5, scenes.colour[:, 0], strict=True):
        median = picture[:, mask].median(1).values
        right += int((table - median).square().sum(1).argmin() == colour)
    return right / len(scenes)
