"""The VAE of latent diffusion (diffusers' `AutoencoderKL`) over clips, in slices of frames, so that memory does not grow with length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videogen.errors import InputError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# Frames per slice; a slice of 512 x 512 frames takes about 2 GiB in float32 while it is decoded.
FRAMES = 8

# Attention as early versions of diffusers saved it, which Stable Diffusion 1.5's own folder holds.
EARLY_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def factor(vae: AutoencoderKL) -> int:
    """How many pixels one latent is wide (8 for Stable Diffusion)."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def encode(
    vae: AutoencoderKL, clip: Tensor, generator: torch.Generator | None = None, slice_frames: int = FRAMES
) -> Tensor:
    """Pixels `b f 3 H W` in [-1, 1] -> scaled latents `b f c h w`: the posterior's mean, or a draw from it where a generator is given."""
    pieces = []
    for piece in clip.flatten(0, 1).split(slice_frames):
        posterior = vae.encode(piece.to(vae.dtype)).latent_dist
        pieces.append(posterior.mode() if generator is None else posterior.sample(generator))
    shift, scale = shift_scale(vae.config, clip.device)
    return ((torch.cat(pieces).float() - shift) * scale).unflatten(0, clip.shape[:2])


def posterior(vae: AutoencoderKL, frames: Tensor, slice_frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """Pixels `n 3 H W` in [-1, 1] -> mean and deviation of their scaled latents, both `n c h w`."""
    found = [vae.encode(piece.to(vae.dtype)).latent_dist for piece in frames.split(slice_frames)]
    shift, scale = shift_scale(vae.config, frames.device)
    mean, deviation = (torch.cat([getattr(one, name) for one in found]).float() for name in ("mean", "std"))
    return (mean - shift) * scale, deviation * scale


def decode(vae: AutoencoderKL, latents: Tensor, slice_frames: int = FRAMES) -> Tensor:
    """Scaled latents `b f c h w` -> pixels `b f 3 H W` in [-1, 1] (not clamped), float32, on the processor: only a slice is ever on the device."""
    shift, scale = shift_scale(vae.config, latents.device)
    pieces = [
        vae.decode((piece / scale + shift).to(vae.dtype)).sample.float().cpu()
        for piece in latents.flatten(0, 1).split(slice_frames)
    ]
    return torch.cat(pieces).unflatten(0, latents.shape[:2])


def shift_scale(config: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """What is taken off the VAE's latents and what they are then multiplied by, `c 1 1` or a number.

    A config may say the mean and deviation of each channel too, as some of SDXL's do. Raises InputError where it
    has another number of them.
    """
    mean, deviation = (config.get(name) for name in ("latents_mean", "latents_std"))
    shift, scale = float(config.get("shift_factor") or 0.0), float(config["scaling_factor"])
    for name, values in (("latents_mean", mean), ("latents_std", deviation)):
        if values is not None and len(values) != config["latent_channels"]:
            raise InputError(f"{name} has {len(values)} numbers and the VAE {config['latent_channels']} channels")
    shifts = torch.tensor(mean or [0.0], device=device)[:, None, None] + shift
    return shifts, scale / torch.tensor(deviation or [1.0], device=device)[:, None, None]


def present_name(name: str) -> str:
    """The name that a tensor of a VAE has today; names of today stay."""
    for early, present in EARLY_ATTENTION.items():
        name = name.replace(early, present)
    return name
