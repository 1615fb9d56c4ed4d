"""Clips and captions as the net meets them: sampled latents, and what it is told. From files, or out of the cache of the same draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from videogen.conditioning import Conditioning
from videogen.data.cached import CachedClips, LatentBatch
from videogen.data.clips import Batch, Clips
from videogen.data.encoders import PartEncoders
from videogen.data.settings import Data
from videogen.data.tally import Tally
from videogen.models.sizes import count, size_condition
from videogen.models.unet import UNetConfig
from videogen.training.recipe import Draw


class Fed(NamedTuple):
    """This process's share of a step: row names, captions, sampled latents `b f c h w`, what the net is told, and `b` counts."""

    keys: tuple[str, ...]
    captions: tuple[str, ...]
    latents: Tensor
    told: Conditioning
    counts: Tensor


class Feed:
    """The batches of a section of data, called `name`, for a model with these encoders and this UNet.

    Opening raises InputError for what is missing or wrong in the data, and where a cache lacks something.
    """

    def __init__(self, data: Data, seed: int, encoders: PartEncoders, unet: UNetConfig, name: str) -> None:
        self.encoders, self.unet, self.name = encoders, unet, name
        self.source = Clips(data, seed) if data.cache is None else CachedClips(data, seed, encoders)

    @property
    def data(self) -> Data:
        """What is trained on."""
        return self.source.data

    @property
    def _clips(self) -> Clips:
        return self.source if isinstance(self.source, Clips) else self.source.clips

    @property
    def rows(self) -> int:
        """How many clips there are."""
        return sum(len(listing.rows) for listing in self._clips.listings)

    @property
    def origin(self) -> str:
        """How many clips there are, and a digest of their names, places and captions."""
        return f"{self.rows} rows, {' '.join(listing.rows.digest() for listing in self._clips.listings)}"

    @property
    def tally(self) -> Tally:
        """How many clips were read, and how many of them were broken."""
        return self._clips.tally

    def batches(self, draws: Iterator[Draw]) -> Iterator[tuple[Draw, Fed]]:
        """Each draw with its batch. Pulling is lazy; files are read ahead as long as the steps follow each other."""
        stream: Iterator[Batch | LatentBatch] | None = None
        step, whole = -1, None
        for draw in draws:
            if stream is None or draw.step not in (step, step + 1):
                stream, step = self.source.batches(draw.step, draw.rank, draw.ranks), draw.step - 1
            if whole is None or draw.step != step:
                step, whole = draw.step, next(stream)
            yield draw, self.fed(cut(whole, draw, self.data.batch_size), draw)

    def fed(self, batch: Batch | LatentBatch, draw: Draw) -> Fed:
        """A batch on the model's device, its latents drawn from the VAE's posterior."""
        known = self.encoded(batch) if isinstance(batch, Batch) else batch
        size, generator = self.data.batch_size, draw.generator(f"posterior of {self.name}")
        within = torch.randn(size, *known.mean.shape[1:], generator=generator)[draw.share(size)]
        device = self.encoders.device
        latents = known.mean.to(device) + known.deviation.to(device) * within.to(device)
        text = known.text or self.encoders.texts(known.captions, self.data.chunks)
        return Fed(known.keys, known.captions, latents, self.told(text, len(latents), latents.shape), known.counts)

    def encoded(self, batch: Batch) -> LatentBatch:
        """What the cache would have held of a batch of frames."""
        mean, deviation = self.encoders.clip(batch.frames.flatten(0, 1))
        shape = batch.frames.shape[:2]
        return LatentBatch(
            batch.step, batch.keys, batch.captions, mean.unflatten(0, shape), deviation.unflatten(0, shape), {},
            batch.counts, batch.rates, batch.broken,
        )  # fmt: skip

    def told(self, text: dict[str, Tensor], items: int, latents: torch.Size) -> Conditioning:
        """Encoded captions as a condition, with SDXL's sizes where the net reads them."""
        device = self.encoders.device
        ports: dict[str, dict[str, Tensor]] = {"tokens": {}, "vector": {}}
        for address, value in text.items():
            port, _, name = address.partition(".")
            ports[port][name] = value.to(device)
        if self.unet.size_width is None:
            return Conditioning(tokens=ports["tokens"])
        numbers = count(self.unet.added_width, self.unet.size_width, ports["vector"]["text"].shape[-1])
        made = (latents[-2] * self.factor, latents[-1] * self.factor)
        sizes = size_condition(items, made, numbers)[0].to(device)
        return Conditioning(tokens=ports["tokens"], vector=ports["vector"]) & sizes

    @property
    def factor(self) -> int:
        """Pixels a latent is wide."""
        return int(2 ** (len(self.encoders.vae.config.block_out_channels) - 1))


Read = TypeVar("Read", bound=Batch | LatentBatch)


def cut(batch: Read, draw: Draw, size: int) -> Read:
    """The micro-batch that a draw asks for, of this process's share of a step of `size` clips."""
    share, first = draw.share(size), size * draw.rank // draw.ranks
    part = slice(share.start - first, share.stop - first)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if field.name == "text":
            found["text"] = {name: told[part] for name, told in value.items()}
        elif field.name not in ("step", "broken"):
            found[field.name] = value[part]
    return dataclasses.replace(batch, **found)
