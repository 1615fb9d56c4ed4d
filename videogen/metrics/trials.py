"""Trials: the prompt of an unseen scene of the shapes world and a seed each, and what answers them with clips.

Of one object that is no held-out combination there are so few prompts that training has met most of them; their scenes it has not.

A trial is a function of (seed, split, number) alone. So the first 64 of 512 trials are the 64 of a shorter run, and a
run that is continued makes what it would have made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from videogen import recipe, shapes
from videogen.models import folder
from videogen.shapes import Scenes, render, sample, world
from videogen.shapes.captions import plain

if TYPE_CHECKING:
    from videogen.pipeline import Pipeline

Address = tuple[str, int]
"""Split and number of a trial."""


@dataclass(frozen=True)
class Trial:
    """One prompt.

    prompt  in the plain form
    seed    of the noise: `videogen generate PROMPT --seed SEED` makes the clip that is measured
    scene   one that the prompt is true of, a batch of one; models are not shown it
    """

    split: str
    number: int
    prompt: str
    seed: int
    scene: Scenes


Source = Callable[[Sequence[Trial]], Tensor]
"""What is measured: trials -> clips `b f 3 H W` in [0, 1], H = W. A model is one; so are true renders."""


@dataclass(frozen=True)
class Plan:
    """Which trials a run has: two of three with one object, every third with two.

    count     of the split "test": combinations of colour, shape and motion that training sees, in other scenes
    held_out  of the split "held_out": the first object is a combination that training never sees
    simple    only one flat object on a plain background, the first target of a model in training
    """

    count: int = 512
    held_out: int = 128
    seed: int = 0
    simple: bool = False

    def addresses(self) -> list[Address]:
        """All trials, the split "test" first."""
        sizes = {"test": self.count, "held_out": self.held_out}
        return [(split, number) for split, size in sizes.items() for number in range(size)]

    def blocks(self, batch: int) -> list[list[Address]]:
        """The trials that are made together, `batch` or fewer of one split."""
        rows = self.addresses()
        parts = [rows[: self.count], rows[self.count :]]
        return [part[start : start + batch] for part in parts for start in range(0, len(part), batch)]

    def trial(self, address: Address) -> Trial:
        """The trial of an address."""
        split, number = address
        digest = blake2b(f"evaluate/{self.seed}/{split}/{number}".encode(), digest_size=4).digest()
        seed = int.from_bytes(digest, "little")
        scene = sample(
            1,
            generator=torch.Generator().manual_seed(seed),
            split=split,
            objects=2 if number % 3 == 2 and not self.simple else 1,
            plain=True if self.simple else None,
            styles=("flat",) if self.simple else None,
        )
        return Trial(split, number, plain(scene)[0], seed, scene)


def hashes(model: str, motion: str | None) -> dict[str, str]:
    """What tells the models, and the world with its measuring program, from others. Raises InputError for a missing file."""
    world_files = Path(shapes.__file__).parent.glob("*.py")
    own = "the model's own" if motion is None else "none"
    return {
        "model": recipe.hash_path(folder.find(model)),
        "motion": own if motion in (None, "none") else recipe.hash_path(folder.find(str(motion))),
        "world": recipe.hash_files({path.name: path for path in world_files}),
    }


def true_renders(frames: int, size: int) -> Source:
    """The world itself: what a perfect model would make, so the ceiling of the measuring program."""

    def clips(trials: Sequence[Trial]) -> Tensor:
        return render(world.concatenate([trial.scene for trial in trials]), frames, size).frames

    return clips


def round_trip(pipe: Pipeline, frames: int) -> Source:
    """True renders after the model's VAE, to latents and back: the ceiling of a model with this VAE."""
    renders = true_renders(frames, pipe.default_size[0])

    @torch.no_grad()
    def clips(trials: Sequence[Trial]) -> Tensor:
        return pipe.decode(pipe.encode(renders(trials)))

    return clips


def generated(pipe: Pipeline, frames: int, steps: int, guidance: float, sampler: str) -> Source:
    """A model's clips, from prompt and seed alone."""

    def clips(trials: Sequence[Trial]) -> Tensor:
        made = pipe(
            [trial.prompt for trial in trials],
            seed=[trial.seed for trial in trials],
            num_frames=frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            sampler=sampler,
            output_type="pt",
            progress=False,
        )
        frames_made: Tensor = made.frames
        return frames_made

    return clips
