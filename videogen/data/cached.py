"""Batches out of the cache: the same draws as `Clips` makes, as latents and text instead of pixels and captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from videogen.data.cache import Contents, Wanted, cache_of, caption_key, clip_key, wanted
from videogen.data.clips import Clips, Drawn, Step, rate_of
from videogen.data.encoders import Encoders
from videogen.data.plan import Shape
from videogen.data.rows import Rejected, Row
from videogen.data.settings import Data
from videogen.data.store import Store
from videogen.data.windows import Extent
from videogen.errors import InputError


@dataclass(frozen=True)
class Latent:
    """One clip's latents, `f c h w`, and what they are of."""

    mean: Tensor
    deviation: Tensor
    numbers: tuple[int, ...]
    extent: Extent


@dataclass(frozen=True)
class LatentBatch:
    """This process's share of a step, see `Batch`.

    mean, deviation  `b f c h w` float32 of the scaled latents; zeros for a clip that could not be read
    text             what the net is told, by `port.name`: `tokens.text` `b n d`; empty where the cache holds no text
    """

    step: int
    keys: tuple[str, ...]
    captions: tuple[str, ...]
    mean: Tensor
    deviation: Tensor
    text: dict[str, Tensor]
    counts: Tensor
    rates: Tensor
    broken: tuple[Rejected, ...] = ()


class CachedClips:
    """The clips of a configuration, out of its cache. `encoders` only say which weights the entries must be of; nothing is encoded.

    Opening looks every clip up. Raises InputError where the cache lacks one, or has it of other bytes, weights or settings, and where no clip of
    a bucket can be read.
    """

    def __init__(self, data: Data, seed: int, encoders: Encoders) -> None:
        self.clips = Clips(data, seed)
        folder = cache_of(data).folder
        self.store, self.texts = Store(folder / "clips"), Store(folder / "text")
        self.encoder, self.text_key = encoders.clip_key, encoders.text_key
        self.contents = Contents(folder)
        self._check()

    def _check(self) -> None:
        self.latent: dict[Shape, list[int]] = {}  # channels, height, width of what a shape becomes
        needed = lacking = 0
        for one in wanted(self.clips):
            needed += 1
            entry = self.store.entries.get(self._key(one))
            lacking += entry is None or self._lacks_text(one.row)
            if entry is not None and "latent" in entry.info:
                self.latent[one.shape] = entry.info["latent"]
        self.contents.save()
        if lacking:
            raise InputError(
                f"the cache {cache_of(self.data).folder} lacks {lacking} of {needed} clips and their captions, or has them of other files, "
                "weights or settings; run videogen data cache with this configuration"
            )
        if empty := [bucket.shape for bucket in self.clips.plan.buckets if bucket.shape not in self.latent]:
            raise InputError(f"of the clips that are to be {empty[0]} none can be read; videogen data check lists them")

    def _lacks_text(self, row: Row) -> bool:
        captions = ("", *row.captions) if cache_of(self.data).text else ()
        return any(caption_key(self.data, self.text_key, caption) not in self.texts.entries for caption in captions)

    @property
    def data(self) -> Data:
        """What is trained on."""
        return self.clips.data

    def batches(self, start: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[LatentBatch]:
        """As `Clips.batches`."""
        for step in self.clips.steps(self._latent, start, rank, ranks):
            yield self._batch(step)

    def _key(self, one: Wanted) -> str:
        try:
            return clip_key(self.data, self.encoder, one, self.contents.of(one.row.place))
        except InputError:
            return ""

    def _latent(self, one: Drawn) -> Latent:
        key = self._key(Wanted(one.row, one.item.shape))
        if key not in self.store.entries:
            raise InputError("the cache has lost it, or its file has changed since the run began")
        info = self.store.entries[key].info
        if "wrong" in info:
            raise InputError(info["wrong"])
        extent = Extent(info["count"], Fraction(info["rate"]))
        numbers = one.numbers(self.data, extent)
        at = {number: place for place, number in enumerate(info["numbers"])}
        places = torch.tensor([at[number] for number in numbers])
        first, last = int(places.min()), int(places.max()) + 1
        name = "mirrored" if one.mirrored else "plain"
        mean, deviation = (
            self.store.tensor(key, f"{name}.{part}", first, last)[places - first].float()
            for part in ("mean", "deviation")
        )
        return Latent(mean, deviation, tuple(numbers), extent)

    def _batch(self, step: Step[Latent]) -> LatentBatch:
        shape = step.drawn[0].item.shape
        nothing = torch.zeros(shape.frames, *self.latent[shape])
        read = [one if isinstance(one, Latent) else None for one in step.read]
        return LatentBatch(
            step.number,
            step.keys,
            step.captions,
            torch.stack([one.mean if one else nothing for one in read]),
            torch.stack([one.deviation if one else nothing for one in read]),
            self._text(step.captions) if cache_of(self.data).text else {},
            step.counts,
            torch.tensor([rate_of(one.numbers, one.extent) if one else 0.0 for one in read]),
            step.broken,
        )

    def _text(self, captions: tuple[str, ...]) -> dict[str, Tensor]:
        told = [self.texts.tensors(caption_key(self.data, self.text_key, caption)) for caption in captions]
        return {name: torch.stack([one[name].float() for one in told]) for name in told[0]}
