"""The loss that every diffusion recipe shares: the weighted mean square error of what the net predicts.

Ho et al. 2020, eq. 14 (eps); Salimans and Ho 2022, section 4 (v); Liu et al. 2022 (flow). Min-SNR weighting is Hang et al. 2023
(arXiv 2303.09556), section 3.4; offset noise is Guttenberg's "Diffusion with offset noise" (2023). The numbers are those of diffusers'
training scripts.
"""

from __future__ import annotations

import dataclasses

import torch
from pydantic import Field
from torch import Tensor

from videogen.conditioning import Conditioning
from videogen.denoiser import Denoiser
from videogen.mixing import mix
from videogen.prediction import Kind
from videogen.training.config import Strict
from videogen.training.recipe import Draw


class Loss(Strict):
    """What is not plain about the loss."""

    min_snr: float | None = Field(None, gt=0)  # gamma, 5 in the paper; None: every time counts alike
    noise_offset: float = Field(
        0.0, ge=0
    )  # share of noise that is one number a channel and clip; 0.05 to 0.1 where used


@dataclasses.dataclass(frozen=True)
class Batch:
    """This process's share of a step.

    keys    names of the rows, for messages
    x0      `b f c h w`, clean latents
    noise   like x0
    times   `b`, whole steps of the path
    told    what the net is told
    counts  `b`, or `b f` where frames of one item come from several files: 1, or 0 for what could not be read
    alone   every item is one picture, and what is temporal is left out
    """

    keys: tuple[str, ...]
    x0: Tensor
    noise: Tensor
    times: Tensor
    told: Conditioning
    counts: Tensor
    alone: bool = False


def drawn(draw: Draw, count: int, steps: int, latent: tuple[int, ...], offset: float) -> tuple[Tensor, Tensor]:
    """Times `b` and noise `b f c h w` of this process's share of `count` items, whose latents are `latent`: `f c h w`.

    With an offset, noise + offset * (one draw for each item and channel, the same in all frames and cells).
    """
    generator = draw.generator("noise")
    times = torch.randint(steps, (count,), generator=generator)
    noise = torch.randn(count, *latent, generator=generator)
    if offset:
        noise = noise + offset * torch.randn(count, 1, latent[1], 1, 1, generator=generator)
    mine = draw.share(count)
    return times[mine], noise[mine]


def target(kind: Kind, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a net of this kind should say, like x0; alpha and sigma `b`."""
    if kind == "v":
        return mix(alpha, eps, -sigma, x0)
    return {"eps": eps, "x0": x0, "flow": eps - x0}[kind]


def min_snr_weight(kind: Kind, alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
    """min(SNR, gamma) for the error of x0, written for the error of what the net says: `b` float64, SNR = alpha^2 / sigma^2.

    eps: min(1, gamma / SNR); v: min(SNR, gamma) / (SNR + 1); flow likewise, as there too x0 = (...) - sigma out; x0: min(SNR, gamma).
    """
    snr = (alpha / sigma).square()
    if kind == "eps":
        return (gamma / snr).clamp(max=1)
    least = snr.clamp(max=gamma)
    if kind == "x0":
        return least
    return least * sigma.square() / (alpha.square() + sigma.square() if kind == "v" else 1)


def predicted(denoiser: Denoiser, batch: Batch, told: Conditioning) -> Tensor:
    """What the net says of a batch, like its x0, float32."""
    alpha, sigma = denoiser.path.alpha(batch.times), denoiser.path.sigma(batch.times)
    return denoiser.given(told)(mix(alpha, batch.x0, sigma, batch.noise), batch.times).out.float()


def error(denoiser: Denoiser, batch: Batch, told: Conditioning, loss: Loss) -> Tensor:
    """The mean over items, frames and cells of weight * count * (out - target)^2; a scalar, float32."""
    alpha, sigma = denoiser.path.alpha(batch.times), denoiser.path.sigma(batch.times)
    wanted = target(denoiser.predicts, batch.x0, batch.noise, alpha, sigma)
    squares = (predicted(denoiser, batch, told) - wanted).square()
    counts = batch.counts if batch.counts.ndim == 2 else batch.counts[:, None]
    each = squares.mean((2, 3, 4)) * counts.to(squares)
    if loss.min_snr is not None:
        each = each * min_snr_weight(denoiser.predicts, alpha, sigma, loss.min_snr).to(each)[:, None]
    return each.mean()
