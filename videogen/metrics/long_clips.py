"""What holds clips together, measured: FreeInit on clips of the model's length; windows and FreeNoise on longer ones.

A way is held against the plain one on the same prompts and seeds: FreeInit against one pass, windows and FreeNoise against clips in a row that know
nothing of each other. From the pixels alone it is read whether an object stays what it is, and how far it jumps between neighbouring frames.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videogen.free_init import FreeInit
from videogen.metrics.trials import Trial
from videogen.metrics.ways import Row
from videogen.shapes import measure

if TYPE_CHECKING:
    from videogen.pipeline import Pipeline

SHARES = ("one object", "same colour", "same shape")
MEANS = JUMP, FLICKER = "jump, px", "flicker, %"


@dataclass(frozen=True)
class Way:
    """One way to make a clip.

    against  the name of the plain way, None where this is one
    make     `(pipe, trial, frames) -> clip f 3 H W`
    """

    name: str
    title: str
    against: str | None
    make: Callable[[Pipeline, Trial, Settings], Tensor]


@dataclass(frozen=True)
class Settings:
    """Frames of the model's own clips, how many of them a long clip is long, and what the sampler is told."""

    frames: int
    times: int
    steps: int
    guidance: float
    iterations: int = 3


def read(clip: Tensor) -> tuple[dict[str, bool], dict[str, float]]:
    """What a clip `f 3 H W` in [0, 1] shows of the largest object of each frame, every frame read for itself.

    one object   exactly one in every frame
    same colour  in all frames (likewise shape), and known
    jump         the largest way of its centre between neighbouring frames, beyond the median one, in pixels of 128
    flicker      mean absolute difference of neighbouring frames, in percent of the range
    """
    flicker = 100 * float((clip[1:] - clip[:-1]).abs().mean())
    frames = [found.objects for found in measure(clip[:, None])]
    largest = [objects[0] for objects in frames if objects]
    if len(largest) < len(frames):
        return dict.fromkeys(SHARES, False), {JUMP: math.nan, FLICKER: flicker}
    steps = torch.stack([one.centres[0] for one in largest]).diff(dim=0).norm(dim=1)
    colours, shapes = {one.colour for one in largest}, {one.shape for one in largest}
    shares = {
        "one object": all(len(objects) == 1 for objects in frames),
        "same colour": len(colours - {None}) == len(colours) == 1,
        "same shape": len(shapes - {None}) == len(shapes) == 1,
    }
    return shares, {JUMP: float(steps.max() - steps.median()), FLICKER: flicker}


def _short(pipe: Pipeline, trial: Trial, settings: Settings, **more: Any) -> Tensor:
    return _made(pipe, trial, settings, settings.frames, **more)


def _long(pipe: Pipeline, trial: Trial, settings: Settings, **more: Any) -> Tensor:
    return _made(pipe, trial, settings, settings.frames * settings.times, **more)


def _in_a_row(pipe: Pipeline, trial: Trial, settings: Settings) -> Tensor:
    seeds = [trial.seed + number for number in range(settings.times)]
    return torch.cat([_made(pipe, dataclasses.replace(trial, seed=seed), settings, settings.frames) for seed in seeds])


def _made(pipe: Pipeline, trial: Trial, settings: Settings, frames: int, **more: Any) -> Tensor:
    made = pipe(
        trial.prompt, seed=trial.seed, num_frames=frames, num_inference_steps=settings.steps,
        guidance_scale=settings.guidance, output_type="pt", progress=False, **more,
    )  # fmt: skip
    clip: Tensor = made.frames[0]
    return clip


def _again(pipe: Pipeline, trial: Trial, settings: Settings) -> Tensor:
    return _short(pipe, trial, settings, free_init=FreeInit(settings.iterations))


def _free_noise(pipe: Pipeline, trial: Trial, settings: Settings) -> Tensor:
    return _long(pipe, trial, settings, free_noise=True)


WAYS = {
    way.name: way
    for way in (
        Way("plain", "One pass", None, _short),
        Way("free_init", "FreeInit", "plain", _again),
        Way("row", "Clips in a row", None, _in_a_row),
        Way("windows", "Windows", "row", _long),
        Way("free_noise", "FreeNoise", "row", _free_noise),
    )
}


def measured(pipe: Pipeline, way: Way, trial: Trial, settings: Settings) -> tuple[Row, Tensor]:
    """One clip made and read."""
    clip = way.make(pipe, trial, settings).float().cpu()
    shares, means = read(clip)
    return Row(way.name, trial.number, trial.prompt, trial.seed, shares, means), clip
