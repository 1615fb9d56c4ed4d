"""The evidence of three trainings (Guo et al. 2023, AnimateDiff): motion modules from files, image models animated, MotionLoRA.

What a tuned model should show is not told twice: it stands in the `corpus.json` of the corpus that it was tuned on.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from videogen.corpus.films import Corpus
from videogen.errors import InputError
from videogen.metrics.paired import Estimate, ratio_of_means
from videogen.metrics.text_to_video import EVERYTHING
from videogen.metrics.trained import Judged, Part, Way, one_object
from videogen.metrics.trials import Plan, Trial
from videogen.metrics.ways import Row, both_read
from videogen.models.folder import load_unet
from videogen.shapes import Measurement, agrees, measure, parse, world
from videogen.shapes.camera import cameras, own_motion
from videogen.shapes.looks import STRANGE
from videogen.shapes.measure import MeasuredObject

if TYPE_CHECKING:
    from videogen.pipeline import Pipeline

    Load = Callable[[], Pipeline]

PROMPTED = ("background", "colour", "shape", "motion", "count", "unchanged")
SPEED = "speed, px"
INNER = 0.3  # of the radius of a disc of an object's area: within every shape, away from contours
KEPT, MOVES = 0.90, 0.85  # shares of animated clips that are aimed at, at least
PANS, STRAYS = 0.85, 0.10  # of clips that pan with a MotionLoRA, at least, and without it, at most


def nothing(rows: Mapping[tuple[str, int], Row], count: int) -> dict[str, Estimate]:
    """No line below the table."""
    return {}


def from_files(shipped: Load, trained: Load, seed: int, frames: int) -> Part:
    """The shipped motion module, and one trained from files."""
    ways = (
        Way("shipped", "the shipped module", None, shipped, frames, prompted),
        Way("trained", "trained from files", "shipped", trained, frames, prompted),
    )
    explained = "The motion module that comes with the model, and one trained from H.264 files of a rendered corpus, on the same image model."
    plan = Plan(seed=seed)
    return Part(
        "from_files",
        "A motion module trained from files",
        explained,
        ways,
        lambda n: plan.trial(("test", n)),
        {},
        nothing,
    )


def prompted(trials: Sequence[Trial], clips: Tensor) -> list[Judged]:
    """Whether clips show what their prompts ask for."""
    found = [agrees(seen, parse(trial.prompt)) for trial, seen in zip(trials, measure(clips), strict=True)]
    return [({name: right[name] for name in PROMPTED} | {EVERYTHING: all(right.values())}, {}) for right in found]


def transfer(model: Load, bases: Mapping[str, tuple[Corpus, Path]], seed: int, frames: int) -> Part:
    """Image models tuned to another look, animated by a module that never saw them; `bases`: name -> what it was tuned on, and its weights."""
    ways: list[Way] = []
    targets: dict[tuple[str, str], float] = {}
    for name, (corpus, weights) in bases.items():
        judge = functools.partial(moved, corpus=corpus)
        tuned = functools.partial(based, model, weights)
        ways += [
            Way(f"{name}/before", f"{name}: the model before tuning", None, model, frames, judge),
            Way(f"{name}/stills", f"{name}: single frames", None, tuned, 1, functools.partial(looked, corpus=corpus)),
            Way(f"{name}/animated", f"{name}: animated", f"{name}/stills", tuned, frames, judge),
        ]
        targets |= {(f"{name}/animated", "look"): KEPT, (f"{name}/animated", "motion"): MOVES}
    explained = (
        "Image models tuned on single frames of another look (other colours, another style), which the motion module never saw, animated by it."
        " `look`: the object has, in every frame, the colour that its name has in the tuning's corpus, or the clip has the corpus's style. Brackets"
        " behind a semicolon: animated less single frames of the same prompts and seeds."
    )
    trial = functools.partial(one_object, seed=seed, key="transfer", plain=None)
    return Part("transfer", "Tuned image models, animated", explained, tuple(ways), trial, targets, nothing)


def based(model: Load, weights: Path) -> Pipeline:
    """The model with the image layers of another UNet (a folder) or with a LoRA (a file). Raises InputError where they do not fit."""
    pipe = model()
    if weights.is_file():
        return pipe.load_lora(weights)
    ours = pipe.parts.unet
    folder = weights / "unet" if (weights / "unet").is_dir() else weights
    theirs = load_unet(folder, next(ours.parameters()).dtype)
    if theirs.config.to_diffusers() != ours.config.to_diffusers():
        raise InputError(f"{folder} holds a UNet of other sizes than the model's")
    ours.load_state_dict(theirs.state_dict(), strict=False)  # the motion modules stay
    return pipe


def looked(trials: Sequence[Trial], clips: Tensor, corpus: Corpus) -> list[Judged]:
    """Whether pictures or clips have the look of a corpus, and the shape that is asked for."""
    return [
        ({name: right[name] for name in ("look", "shape", "count")}, {}) for right, _ in moved(trials, clips, corpus)
    ]


def moved(trials: Sequence[Trial], clips: Tensor, corpus: Corpus) -> list[Judged]:
    """Whether clips have the look of a corpus, and shape and motion as asked for."""
    answers: list[Judged] = []
    for trial, clip, seen in zip(trials, clips, measure(clips), strict=True):
        wanted = parse(trial.prompt)
        right = agrees(seen, wanted)
        look = has_look(clip, seen, wanted.objects[0].colour or "", corpus)
        answers.append(({"look": look, **{name: right[name] for name in ("motion", "shape", "count")}}, {}))
    return answers


def has_look(clip: Tensor, seen: Measurement, colour: str, corpus: Corpus) -> bool:
    """Whether a clip `f 3 H W` looks as the corpus does: its one style, and the largest object in what it paints for `colour`, in every frame."""
    if len(corpus.styles) == 1 and seen.style != corpus.styles[0]:
        return False
    if not corpus.paint:
        return bool(seen.objects)
    paint = {name: tuple(rgb) for name, *rgb in corpus.paint}
    known = [*world.COLOURS.values(), *paint.values()]
    wanted = paint.get(colour, world.COLOURS[colour])
    if not seen.objects or bool(seen.objects[0].areas.isnan().any()):
        return False
    far = torch.cdist(painted(clip, seen.objects[0]), torch.tensor(known, dtype=torch.float32))
    least, index = far.min(1)
    return bool((least < STRANGE).all()) and all(known[i] == wanted for i in index.tolist())


def painted(clip: Tensor, item: MeasuredObject) -> Tensor:
    """The colour of an object's middle in each frame of `f 3 H W`: `f 3`, of 255."""
    scale = world.SIZE / clip.shape[-1]
    grid = (torch.arange(clip.shape[-1]) + 0.5) * scale
    x, y = grid - item.centres[:, 0, None], grid - item.centres[:, 1, None]
    radius = (INNER * (item.areas / math.pi).sqrt()).clamp(min=scale)
    inside = (x[:, None, :] ** 2 + y[:, :, None] ** 2 < radius[:, None, None] ** 2).float()
    return torch.einsum("fchw,fhw->fc", clip, inside) / inside.sum((1, 2)).clamp(min=1)[:, None] * 255


def motion_lora(model: Load, corpus: Corpus, weights: Path, seed: int, frames: int) -> Part:
    """A MotionLoRA of a camera pan at strengths 1, 0.5 and not at all. Raises InputError where the corpus's camera does not pan."""
    if corpus.camera not in world.CAMERA_AXES:
        raise InputError(f"the corpus of the MotionLoRA has the camera {corpus.camera!r}, which is no pan")
    judge = functools.partial(panned, camera=corpus.camera)
    ways = (
        Way("without", "without it", None, model, frames, judge),
        Way("half", "strength 0.5", "without", lambda: model().load_lora(weights, 0.5), frames, judge),
        Way("full", "strength 1", "without", lambda: model().load_lora(weights, 1.0), frames, judge),
    )
    explained = (
        f"A MotionLoRA of clips in which the camera {corpus.camera}; prompts say nothing of the camera, and have textured"
        f" backgrounds, without which nothing tells. The world's own clips pan {world.PAN[0]:g} to {world.PAN[1]:g} pixels."
        f" `pan`: the camera is read from the pixels as one that {corpus.camera}; `motion`: the object's own, with the camera's"
        f" way taken out; `{SPEED}`: the camera's way over the clip in that direction. Brackets behind a semicolon: the"
        " difference to the clips without it, of the same prompts and seeds."
    )
    trial = functools.partial(one_object, seed=seed, key="motion_lora", plain=False, camera=corpus.camera)
    return Part(
        "motion_lora", "MotionLoRA", explained, ways, trial, {("full", "pan"): PANS, ("without", "pan"): -STRAYS}, speeds
    )  # fmt: skip


def panned(trials: Sequence[Trial], clips: Tensor, camera: str) -> list[Judged]:
    """Whether the camera pans, how far, and whether objects, the pan taken out, are as prompts ask."""
    answers: list[Judged] = []
    found = measure(clips)
    for trial, seen, read in zip(trials, found, cameras(clips, found), strict=True):
        if read is not None:
            objects = tuple(dataclasses.replace(item, motion=own_motion(item, read)) for item in seen.objects)
            seen = dataclasses.replace(seen, objects=objects)
        right = agrees(seen, parse(trial.prompt))
        shares = {"pan": read is not None and read.name == camera} | {name: right[name] for name in PROMPTED}
        shares["objects right"] = all(right[name] for name in PROMPTED)
        answers.append((shares, {SPEED: math.nan if read is None else read.along(camera)}))
    return answers


def speeds(rows: Mapping[tuple[str, int], Row], count: int) -> dict[str, Estimate]:
    """The speed at half the strength, as a share of that at full strength."""
    half, full = ([rows[way, number] for number in range(count)] for way in ("half", "full"))
    pairs = both_read(half, full, SPEED)
    return {
        "speed at strength 0.5 over speed at strength 1": ratio_of_means([a for a, _ in pairs], [b for _, b in pairs])
    }
