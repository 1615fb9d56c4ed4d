"""The judgement that counts: clips (or stills) made from captions, decoded, and measured by the shapes world's program."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from videogen.conditioning import Conditioning, stack
from videogen.denoiser import Denoiser
from videogen.guidance import cfg
from videogen.models.autoencoder import decode
from videogen.models.folder import load_vae
from videogen.path import Path as NoisePath
from videogen.sampling import ddim
from videogen.shapes import agrees, measure, parse
from videogen.times import Grid, implicit_steps

STEPS, GUIDANCE, BATCH = 15, 3.0, 16


def clips(
    net: nn.Module, path: NoisePath, given: Conditioning, null: Conditioning, x: Tensor, frames: Sequence[int]
) -> Tensor:
    """Latents from noise x `b f c h w` with 15 guided DDIM steps; `frames` are the ids of its frames in the whole clip."""
    denoise = cfg(Denoiser(net, path, "v").given(stack(uncond=null, cond=given)), GUIDANCE)
    return ddim(
        functools.partial(denoise, frames=frames), x, implicit_steps(path, STEPS, Grid(spacing="trailing", last=-1))
    )


def shares(frames: Tensor, captions: Sequence[str]) -> dict[str, float]:
    """Clips `b f 3 H W` in [0, 1] against their captions: for each attribute the share that agrees, of those that name it."""
    votes: dict[str, list[bool]] = defaultdict(list)
    for measurement, caption in zip(measure(frames), captions, strict=True):
        for name, right in agrees(measurement, parse(caption)).items():
            votes[name].append(right)
    return {f"right_{name}": sum(found) / len(found) for name, found in sorted(votes.items())}


def pixels(vae_folder: Path, latents: Tensor) -> Tensor:
    """Latents `b f c h w` -> clips in [0, 1], on the processor."""
    vae = load_vae(vae_folder, torch.float32).to(latents.device)
    return ((decode(vae, latents) + 1) / 2).clamp(0, 1)
