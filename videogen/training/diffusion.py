"""The one recipe of diffusion training on users' data: image layers, motion modules, LoRA. What differs between trainings is a `Kind`.

A frozen text side and VAE, noisy latents, and the loss of `denoising`; which tensors train is declared (`trainable`).
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor, nn

from videogen.conditioning import Conditioning, Dial
from videogen.data.encoders import PartEncoders, digest_of
from videogen.data.settings import Data
from videogen.errors import InputError, reason
from videogen.models.folder import find, load_unet
from videogen.path import READ_FROM_CONFIG
from videogen.pipeline import Pipeline
from videogen.sampling import SAMPLERS
from videogen.training import card, denoising
from videogen.training.config import RunConfig, Strict
from videogen.training.feed import Fed, Feed
from videogen.training.recipe import JUDGE_SEED, Draw, Thunk
from videogen.training.trainable import add_changes, parameters
from videogen.training.validation import Validation, make

TIMES = (100, 500, 900)
"""Where `judge` looks at the error, in steps of 1000."""

READING = frozenset({"workers", "store", "broken"})
"""Keys of a section of data that say how clips are read, and no batch depends on."""


class Settings(Strict):
    """The model that is trained, the data, the loss, what is made and measured on the way."""

    may_differ: ClassVar[frozenset[str]] = frozenset(
        {"validation", "export_dtype", *(f"data.{key}" for key in READING)}
    )

    model: str  # a folder, a hub id, a single checkpoint file, or shapes
    tokenizer: str | None = None  # for single files, which bring none
    prediction_type: Literal["epsilon", "v_prediction"] | None = None  # for single files that cannot say it
    unet: Path | None = (
        None  # the folder of a UNet to take in place of the model's, such as an `image` training exports
    )
    loras: dict[str, float] = Field(default_factory=dict)  # files merged into the model first, and their strengths
    scheduler: dict[str, Any] = Field(default_factory=dict)  # in place of what the model's scheduler_config.json says
    data: Data
    loss: denoising.Loss = denoising.Loss()
    validation: Validation | None = None
    export_dtype: Literal["float32", "float16"] = "float32"


class LowRankSettings(Settings):
    """The same for recipes that train a low-rank change."""

    rank: int = Field(16, gt=0)
    alpha: float | None = Field(None, gt=0)  # what the change is scaled by, over the rank; None: the rank
    layers: str | None = None  # a regular expression on layers' names, in place of the recipe's own


@dataclasses.dataclass(frozen=True)
class Kind:
    """What one recipe differs in from another.

    title     what comes out, for the card
    sets      group -> which tensors of the UNet train, by their names; for `low_rank` one entry, which layers
    low_rank  whether a low-rank change of these layers trains instead of them
    open      the model with its slots filled
    write     writes what was trained into a folder; gives the lines of the card that say what lies there
    """

    title: str
    sets: Mapping[str, str]
    low_rank: bool
    open: Callable[[Any], Pipeline]
    write: Callable[[Diffusion, Path], Sequence[str]]


class Diffusion:
    """A training of (a part of) a UNet on captioned clips and pictures."""

    root: nn.Module

    def __init__(self, run: RunConfig[Any], kind: Kind) -> None:
        self.run, self.kind = run, kind
        self.settings: Any = run.settings
        if run.every.validate_ and run.settings.validation is None:
            raise InputError("every.validate: settings.validation names no prompts; give some, or set it to 0")

    def model(self) -> Pipeline:
        """The model, its LoRA files merged; on the processor, so that its weights, and a cache's keys, are the same for any device."""
        pipe = self.kind.open(self.settings)
        for name, weight in self.settings.loras.items():
            pipe.load_lora(find(name), weight, name)  # files in several folders may have one name
        if self.settings.loras:
            pipe.loras.fuse()
        return pipe

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        """The model, its data, and what trains of it."""
        s = self.settings
        self.pipe = self.model().to(device)
        self.root = unet = self.pipe.parts.unet
        if self.run.shards:  # torch's fully_shard takes no kernels in channels-last memory
            unet.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.pipe.parts.vae.requires_grad_(False)
        self.pipe.parts.text.requires_grad_(False)
        self.feed = self.fed_from(s.data, "data")
        if self.kind.low_rank:
            ((group, pattern),) = self.kind.sets.items()
            self.groups = {group: add_changes(unet, s.layers or pattern, s.rank, s.alpha)}
        else:
            self.groups = parameters(unet, self.kind.sets)
        if self.pipe.motion is not None and 1 in s.data.frames and "image" not in self.groups:
            raise InputError("settings.data.frames: a picture (1 frame) trains no motion module; leave 1 out")
        self._check_sizes(s.data)
        self._check_validation()
        return self.groups

    def fed_from(self, data: Data, name: str) -> Feed:
        """The batches of a section of the settings, called `name`."""
        parts = self.pipe.parts
        return Feed(data, self.run.seed, PartEncoders(parts.vae, parts.text), parts.unet.config, name)

    def origin(self) -> dict[str, str]:
        """The clips, and all weights of the model that stay as they are."""
        trained = {parameter for group in self.groups.values() for parameter in group}
        frozen = {name: p.detach() for name, p in self.root.named_parameters() if p not in trained}
        encoders = self.feed.encoders
        digests = (encoders.clip_key, encoders.text_key, digest_of(frozen, {}))
        return {"data": self.feed.origin, "model": " ".join(digest[:12] for digest in digests)}

    def _check_sizes(self, data: Data) -> None:
        """Every size must go through the UNet, and every number of frames through its table of positions."""
        unet = self.pipe.parts.unet.config
        multiple = self.feed.factor * 2 ** (len(unet.channels) - 1)
        for width, height in data.size:
            if width % multiple or height % multiple:
                raise InputError(
                    f"settings.data.size: {width}x{height} are not multiples of {multiple}, as this model needs"
                )
        if self.pipe.motion is not None and max(data.frames) > self.pipe.motion.longest:
            raise InputError(
                f"settings.data.frames: {max(data.frames)}, and the motion modules have positions for {self.pipe.motion.longest}"
            )

    def _check_validation(self) -> None:
        """What is to be shown must be such as the model can make."""
        if wanted := self.settings.validation:
            try:
                self.pipe.plan(
                    num_frames=wanted.frames, height=wanted.height, width=wanted.width, num_inference_steps=wanted.steps,
                    guidance_scale=wanted.guidance,
                )  # fmt: skip
            except InputError as problem:
                raise InputError(f"settings.validation: {problem}") from problem

    def batches(self, draws: Iterator[Draw]) -> Iterator[denoising.Batch]:
        """Sampled latents with times and noise."""
        for draw, fed in self.feed.batches(draws):
            yield self.noisy(draw, fed)

    def noisy(self, draw: Draw, fed: Fed) -> denoising.Batch:
        """A batch with its times and noise."""
        steps, device = self.pipe.denoiser.path.steps, fed.latents.device
        shape = (fed.latents.shape[1], fed.latents.shape[2], fed.latents.shape[3], fed.latents.shape[4])
        times, noise = denoising.drawn(draw, self.feed.data.batch_size, steps, shape, self.settings.loss.noise_offset)
        alone = shape[0] == 1
        return denoising.Batch(fed.keys, fed.latents, noise.to(device), times, fed.told, fed.counts, alone)

    def losses(self, batch: denoising.Batch) -> Iterator[tuple[str, Thunk]]:
        """The weighted mean square error. A batch of pictures trains the image layers alone, the motion modules left out.

        Beside it the log has `broken`, the share of the clips since this part of the run began that could not be read.
        """
        pictures = batch.alone and self.pipe.motion is not None

        def thunk() -> dict[str, Tensor]:
            loss = self.error(batch)
            return {"loss": loss, "broken": loss.new_tensor(self.broken)}

        yield "image" if pictures else "+".join(self.groups), thunk

    @property
    def feeds(self) -> Sequence[Feed]:
        """All that batches are read from."""
        return (self.feed,)

    @property
    def broken(self) -> float:
        """The share of the clips read by this process that were broken."""
        tallies = [feed.tally for feed in self.feeds]
        return sum(tally.broken for tally in tallies) / max(1, sum(tally.seen for tally in tallies))

    def error(self, batch: denoising.Batch) -> Tensor:
        """The loss of a batch; a scalar."""
        return denoising.error(self.pipe.denoiser, batch, self._told(batch), self.settings.loss)

    def predicted(self, batch: denoising.Batch) -> Tensor:
        """What the net says of a batch, like its x0."""
        return denoising.predicted(self.pipe.denoiser, batch, self._told(batch))

    def _told(self, batch: denoising.Batch) -> Conditioning:
        """What the net is told of a batch; of pictures, that motion modules are left out, as when pictures are made."""
        if batch.alone and self.pipe.motion is not None:
            return batch.told.replace(dials={**batch.told.dials, "motion": Dial(0.0)})
        return batch.told

    @functools.cached_property
    def sample(self) -> Sequence[denoising.Batch]:
        """One batch of the data, always the same, for what is measured on the way and at the end.

        It comes clip by clip: a step may see less of it at once, in micro-batches and over processes, and memory is made for that.
        """
        count = self.feed.data.batch_size
        return list(self.batches(Draw(JUDGE_SEED, 0, part=part, parts=count) for part in range(count)))

    def judge(self) -> dict[str, float]:
        """The plain error on one batch of the data at three times, always with the same noise.

        It is that of the clips that can be read; where none can, there are no figures, and a warning says so.
        """
        read = sum(float(batch.counts.float().mean()) for batch in self.sample)
        if not read:
            keys = ", ".join(key for batch in self.sample for key in batch.keys)
            warnings.warn(f"nothing is judged: of {keys}, on which it would be, none can be read", stacklevel=2)
            return {}
        return {f"error_{time}": sum(self._plain_error(batch, time) for batch in self.sample) / read for time in TIMES}

    def _plain_error(self, batch: denoising.Batch, time: int) -> float:
        """The error of a batch at a time in steps of 1000, weighted by nothing."""
        denoiser = self.pipe.denoiser
        there = dataclasses.replace(batch, times=torch.full_like(batch.times, time * denoiser.path.steps // 1000))
        return float(denoising.error(denoiser, there, self._told(there), denoising.Loss()))

    @torch.no_grad()
    def validate(self, folder: Path) -> dict[str, float]:
        """Clips (or pictures) from the settings' prompts, always from the same noise, and a contact sheet, into `folder`."""
        wanted = self.settings.validation
        return {} if wanted is None else make(self.pipe, wanted, folder, measured=self.settings.model == "shapes")

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """What the kind writes, and a card. Raises InputError where there is no room for them."""
        try:
            card.write(folder, self.run, self.kind.title, self.feeds, self.kind.write(self, folder))
        except (OSError, SafetensorError) as problem:
            raise InputError(
                f"the export into {self.run.export} could not be written ({reason(problem)}); the last checkpoint stays: make room, and "
                "--resume latest exports again"
            ) from problem

    @property
    def dtype(self) -> torch.dtype:
        """Of exported tensors."""
        found: torch.dtype = getattr(torch, self.settings.export_dtype)
        return found

    @property
    def header(self) -> dict[str, str]:
        """The run, for a safetensors header."""
        return card.header(self.run)


def opened(settings: Settings, motion: str | None) -> Pipeline:
    """The model of the settings with its own motion modules (None), without (`none`), or with those of a file.

    Raises InputError as `Pipeline.from_pretrained` does, where the UNet that is to take the model's place does not fit, and for a key of the
    scheduler that nothing reads.
    """
    pipe = Pipeline.from_pretrained(
        settings.model, motion=motion, tokenizer=settings.tokenizer, prediction_type=settings.prediction_type
    )
    if settings.unet is not None:
        replace_unet(pipe, settings.unet)
    sampled = {key for one in SAMPLERS.values() for key in (*one.reads, *one.options, *one.fixed)}
    known = READ_FROM_CONFIG | sampled | pipe.scheduler.keys()
    if unknown := sorted(settings.scheduler.keys() - known):
        raise InputError(f"settings.scheduler: nothing reads {unknown[0]}; known are {', '.join(sorted(known))}")
    changed = {**pipe.scheduler, **settings.scheduler}
    kept = (
        None
        if pipe.motion is None
        else dataclasses.replace(pipe.motion, scheduler={**pipe.motion.scheduler, **settings.scheduler})
    )
    return Pipeline(dataclasses.replace(pipe.parts, scheduler=changed), kept)


def replace_unet(pipe: Pipeline, folder: Path) -> None:
    """The image layers of another UNet of the same sizes. Raises InputError where they are not."""
    ours = pipe.parts.unet
    theirs = load_unet(folder, torch.float32)
    if theirs.config.to_diffusers() != ours.config.to_diffusers():
        raise InputError(f"settings.unet: {folder} holds a UNet of other sizes than the model's")
    ours.load_state_dict(theirs.state_dict(), strict=False)
