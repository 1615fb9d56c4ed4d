"""The recipes on motion modules (Guo et al. 2023): `motion`, `joint`, `full` and `motion_lora`.

`motion` is the authors' stage 2, new modules on a frozen image model (section 4.2); `motion_lora` a low-rank change of trained ones for one
kind of movement (section 4.3). `joint` lets the image layers learn along, on pictures too (Ho et al. 2022, "Video diffusion models", section
3.1, where pictures stand behind a clip's frames and see themselves alone); `full` trains whatever the UNet has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from motion_modules.animatediff import MotionConfig, add_motion, near_in_time
from motion_modules.export import write_motion, write_motion_and_image, write_motion_lora
from videogen.conditioning import Conditioning, Dial
from videogen.data.settings import Data
from videogen.errors import InputError
from videogen.models.layers import Scope
from videogen.pipeline import Motion, Pipeline
from videogen.training import Offer
from videogen.training.config import Strict
from videogen.training.denoising import Batch
from videogen.training.diffusion import READING, Diffusion, Kind, LowRankSettings, Settings, opened
from videogen.training.feed import Fed, Feed
from videogen.training.recipe import Draw
from videogen.training.trainable import IMAGE, MOTION, MOTION_ATTENTION


class Modules(Strict):
    """New modules; the numbers are those of AnimateDiff v3.

    norm_scope    where their GroupNorm takes its statistics: over each `frame` as the authors' code does, or over the `clip` as diffusers does
    near_in_time  queries and keys begin as this times the identity, so that a frame first attends to its neighbours; 0 is at random, as authors do
    """

    heads: int = Field(8, gt=0)
    positions: int = Field(32, gt=0)
    mid: bool = False
    norm_scope: Scope = "frame"
    near_in_time: float = Field(0.0, ge=0)


class MotionSettings(Settings):
    """`motion`: a file or folder to go on from, in any dialect; without it new modules, the identity at first."""

    motion: str | None = None
    modules: Modules = Modules()

    @model_validator(mode="after")
    def _new(self) -> MotionSettings:
        if self.motion is not None and self.modules != Modules():
            raise ValueError(
                "modules says how new ones are built, and motion names some that there are; give one of them"
            )
        return self


class JointSettings(MotionSettings):
    """`stills`: pictures that stand behind each clip's frames; their `batch_size` is a multiple of the clips', 1 frame, the same size."""

    may_differ: ClassVar[frozenset[str]] = MotionSettings.may_differ | {f"stills.{key}" for key in READING}

    stills: Data | None = None


class TrainedMotion(Settings):
    """A model whose motion modules there are: its own, those of the file `motion`, or `none`."""

    motion: str | None = None


class MotionLoraSettings(LowRankSettings):
    """The same for a low-rank change of them, of the rank of the authors' files."""

    motion: str | None = None
    rank: int = Field(64, gt=0)


def animated(settings: MotionSettings) -> Pipeline:
    """The model with modules from a file, or with new ones."""
    if settings.motion is not None:
        return opened(settings, settings.motion)
    pipe = opened(settings, "none")
    unet = pipe.parts.unet
    m, sizes = settings.modules, unet.config
    config = MotionConfig(
        channels=sizes.channels, layers=sizes.layers, heads=m.heads, positions=m.positions, mid=m.mid, norm_scope=m.norm_scope,
        groups=sizes.groups,
    )  # fmt: skip
    add_motion(unet, config)
    if m.near_in_time:
        near_in_time(unet, m.near_in_time)
    frames = min(max(settings.data.frames), m.positions)
    line = f"new modules, {m.positions} positions, norm over each {m.norm_scope}"
    return Pipeline(pipe.parts, Motion(line, config.to_diffusers(), m.positions, frames, settings.scheduler))


def complete(settings: TrainedMotion | MotionLoraSettings) -> Pipeline:
    """The model with the modules that it has or is given."""
    return opened(settings, settings.motion)


def moving(settings: MotionLoraSettings) -> Pipeline:
    """The same, which must have some. Raises InputError where it has none."""
    pipe = complete(settings)
    if pipe.motion is None:
        raise InputError("a MotionLoRA changes motion modules, and this model has none; give settings.motion: FILE")
    return pipe


class Joint(Diffusion):
    """Clips and, behind their frames, pictures: each a group of its own, without the motion modules."""

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        """Also opens the pictures. Raises InputError where they do not fit the clips."""
        groups = super().prepare(device)
        stills, clips = self.settings.stills, self.settings.data
        self.stills: Feed | None = None
        if stills is not None:
            if stills.frames != (1,) or stills.size != clips.size or len(clips.size) > 1 or len(clips.frames) > 1:
                raise InputError(
                    "settings.stills: needs frames: 1, and settings.data one size, the same, and one number of frames"
                )
            if stills.chunks != clips.chunks:
                raise InputError("settings.stills.chunks must be settings.data.chunks")
            if stills.batch_size % clips.batch_size:
                raise InputError("settings.stills.batch_size must be a multiple of settings.data.batch_size")
            self.stills = self.fed_from(stills, "stills")
        return groups

    def origin(self) -> dict[str, str]:
        """The pictures too."""
        return super().origin() | ({} if self.stills is None else {"stills": self.stills.origin})

    @property
    def feeds(self) -> Sequence[Feed]:
        """Clips, and pictures where there are any."""
        return (self.feed,) if self.stills is None else (self.feed, self.stills)

    def batches(self, draws: Iterator[Draw]) -> Iterator[Batch]:
        """Clips with the pictures behind them."""
        if self.stills is None:
            yield from super().batches(draws)
            return
        first, second = itertools.tee(draws)
        for (draw, clips), (_, pictures) in zip(self.feed.batches(first), self.stills.batches(second)):
            yield self.noisy(draw, joined(clips, pictures))


def joined(clips: Fed, pictures: Fed) -> Fed:
    """Clips `b f`, and k pictures for each, as items of f + k frames: the clip is one group, every picture another, with the modules off.

    Raises InputError where the pictures cannot be shared out evenly.
    """
    items, frames = clips.latents.shape[:2]
    each, rest = divmod(len(pictures.latents), items)
    if rest:
        raise InputError("settings.data.batch_size must be a multiple of the processes times the micro-batches")
    told = {}
    for port in ("tokens", "vector"):
        ours, theirs = getattr(clips.told, port), getattr(pictures.told, port)
        told[port] = {name: _behind(value, theirs[name], frames, each) for name, value in ours.items()}
    numbers = torch.tensor([*[0] * frames, *range(1, each + 1)]).expand(items, -1)
    on = Dial(frames=[1.0] * frames + [0.0] * each)
    counts = [clips.counts[:, None].expand(-1, frames), pictures.counts.unflatten(0, (items, each))]
    return Fed(
        clips.keys + pictures.keys,
        clips.captions + pictures.captions,
        torch.cat([clips.latents, pictures.latents[:, 0].unflatten(0, (items, each))], 1),
        Conditioning(
            tokens=told["tokens"],
            vector=told["vector"],
            groups=numbers.to(clips.latents.device),
            dials={"motion": on},
        ),
        torch.cat(counts, 1),
    )


def _behind(ours: Tensor, theirs: Tensor, frames: int, each: int) -> Tensor:
    """What clips are told, `b ...`, on each of their frames, and behind it what their pictures are told: `b f+k ...`."""
    ours = ours[:, None].expand(-1, frames, *ours.shape[1:])
    return torch.cat([ours, theirs.unflatten(0, (len(ours), each))], 1)


BOTH = {"motion": MOTION, "image": IMAGE}
STAGE_2 = Kind("Motion modules", {"motion": MOTION}, False, animated, write_motion)
JOINT = Kind("Motion modules and the image UNet they were trained with", BOTH, False, animated, write_motion_and_image)
FULL = Kind("UNet", BOTH, False, complete, write_motion_and_image)
MOTION_LORA = Kind("MotionLoRA", {"lora": MOTION_ATTENTION}, True, moving, write_motion_lora)


def motion() -> Offer:
    """The recipe `motion`, as `videogen train` finds it (entry point group `videogen.recipes`)."""
    return Offer(MotionSettings, lambda run: Diffusion(run, STAGE_2), takes_run=True)


def joint() -> Offer:
    """The recipe `joint`."""
    return Offer(JointSettings, lambda run: Joint(run, JOINT), takes_run=True)


def full() -> Offer:
    """The recipe `full`."""
    return Offer(TrainedMotion, lambda run: Diffusion(run, FULL), takes_run=True)


def motion_lora() -> Offer:
    """The recipe `motion_lora`."""
    return Offer(MotionLoraSettings, lambda run: Diffusion(run, MOTION_LORA), takes_run=True)
