"""Trials of editing: a source scene of the shapes world, its prompt, and a prompt that differs in one thing.

A trial is a function of (seed, edit, number) alone. Every second scene is a hard one, with a textured background or a second object, since on a
plain ground with one object alone even the plainest editing keeps what it should. Edits share scenes and, where they can, source prompts: what is
found for one clip (a tuned model, null texts) serves them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from videogen import video
from videogen.clip import Clip
from videogen.errors import InputError
from videogen.shapes import Scenes, render, sample, world
from videogen.shapes.captions import described, plain
from videogen.shapes.geometry import moments, poses

EDITS = ("colour", "shape", "style", "background", "adding", "removing")
"""Another colour or shape of the first object; a style or background of the clip; the first object's colour named where the source prompt leaves it
out (and another one); the word of a style left out, so that the clip is to be flat."""
RECONSTRUCTION = "reconstruction"  # the source prompt again, at guidance 7.5
FROM_TEXT = "motion"  # no source: a prompt with a direction, for Text2Video-Zero
KINDS = ("one object", "textured background", "one object", "two objects")  # by number


@dataclass(frozen=True)
class Trial:
    """One clip and what is asked of it.

    scene    the source's, a batch of one; `changed` is the same scene after a perfect edit
    asked    attributes that the edit is about: colour, shape, style or background; empty for a reconstruction
    seed     of noise, where a method draws any
    """

    edit: str
    number: int
    scene: Scenes
    changed: Scenes
    source: str
    target: str
    asked: tuple[str, ...]
    seed: int

    @property
    def kind(self) -> str:
        """What the scene has that may be harmed."""
        return KINDS[self.number % len(KINDS)] if self.edit != FROM_TEXT else KINDS[0]

    @property
    def everywhere(self) -> bool:
        """Whether the edit is about all objects rather than the first alone."""
        return "style" in self.asked

    @property
    def moves(self) -> bool:
        """Whether the first object goes somewhere, so that it has a velocity."""
        return world.MOTIONS[int(self.scene.motion[0, 0])] in world.DIRECTIONS

    @property
    def clip_name(self) -> str:
        """Of the source's file; trials with the same scene share it."""
        return f"{self.number:04d}{'-styled' if self.edit == 'removing' else ''}"


def trial(edit: str, number: int, seed: int = 0) -> Trial:
    """The trial of an address. Raises InputError for an unknown edit."""
    if edit not in (*EDITS, RECONSTRUCTION, FROM_TEXT):
        raise InputError(f"the edit {edit!r} is not known; choose one of {', '.join(EDITS)}")
    scene = _scene(edit, number, seed)
    draw = _seeded(seed, edit, number)
    changed, asked = _changed(edit, scene, torch.Generator().manual_seed(draw))
    (source,), (target,) = plain(scene), plain(changed)
    if edit == "adding":
        source = _without_colour(source, scene)
    return Trial(edit, number, scene, changed, source, target, asked, draw)


def centres(scene: Scenes, frames: int) -> Tensor:
    """Where the objects truly are: `objects f 2`, pixels of the 128 x 128 frame."""
    return poses(scene, moments(frames)).centre[0, :, : int(scene.count)].transpose(0, 1)


def source_clip(trial: Trial, folder: Path, frames: int, size: int) -> Tensor:
    """The source `f 3 H W` in [0, 1] as its H.264 file in `folder` has it, which is written if need be."""
    path = folder / f"{trial.clip_name}.mp4"
    if not path.exists():
        video.write(path, Clip(render(trial.scene, frames, size).frames[0]), overwrite=True)
    clip = video.read(path)
    if (len(clip), clip.height, clip.width) != (frames, size, size):
        raise InputError(f"{path} is not the source of this run; remove the folder {folder}")
    return clip.to_float()


def _seeded(*address: object) -> int:
    return int.from_bytes(blake2b(f"editing/{address}".encode(), digest_size=4).digest(), "little")


def _scene(edit: str, number: int, seed: int) -> Scenes:
    styled, moving = edit == "removing", edit == FROM_TEXT
    kind = KINDS[0] if moving else KINDS[number % len(KINDS)]
    return sample(
        1,
        generator=torch.Generator().manual_seed(
            _seeded(seed, "styled" if styled else "moving" if moving else "", number)
        ),
        split="test",
        objects=2 if kind == "two objects" else 1,
        plain=kind != "textured background",
        styles=world.STYLES[1:] if styled else world.STYLES[:1],
        motions=tuple(world.DIRECTIONS) if moving else None,
    )


def _changed(edit: str, scene: Scenes, generator: torch.Generator) -> tuple[Scenes, tuple[str, ...]]:
    """The scene after the edit, and the attributes that it is about."""

    def pick(choices: list[int]) -> int:
        return choices[int(torch.randint(len(choices), (1,), generator=generator))]

    shape, colour, motion = (int(field[0, 0]) for field in (scene.shape, scene.colour, scene.motion))
    if edit in ("colour", "adding"):
        taken = set(scene.colour[0, : int(scene.count)].tolist())
        free = [c for c in range(len(world.COLOURS)) if c not in taken and not _rare(shape, c, motion)]
        return _recoloured(scene, pick(free)), ("colour",)
    if edit == "shape":
        turning = motion == world.MOTIONS.index("rotating")  # which a circle does not show
        barred = {shape, world.SHAPES.index("circle")} if turning else {shape}
        found = pick([s for s in range(len(world.SHAPES)) if s not in barred and not _rare(s, colour, motion)])
        return scene.change(shape=_first(scene.shape, found)), ("shape",)
    if edit == "style":
        return scene.change(style=torch.tensor([pick([1, 2])])), ("style",)
    if edit == "removing":
        return scene.change(style=torch.zeros_like(scene.style)), ("style",)
    if edit == "background":
        ground = pick([g for g in range(len(world.BACKGROUNDS)) if g != int(scene.background)])
        tones = _moved(scene.ground, world.BACKGROUNDS, int(scene.background), ground)
        return scene.change(background=torch.tensor([ground]), ground=tones), ("background",)
    return scene, ()


def _rare(shape: int, colour: int, motion: int) -> bool:
    """Whether training never sees the combination: no target is one."""
    return bool(world.held_out(*(torch.tensor(index) for index in (shape, colour, motion))))


def _first(field: Tensor, value: int) -> Tensor:
    """A field `1 2` with another value for the first object."""
    return torch.tensor([[value, int(field[0, 1])]])


def _recoloured(scene: Scenes, colour: int) -> Scenes:
    rgb = scene.rgb.clone()
    rgb[:, 0] = _moved(rgb[:, 0], world.COLOURS, int(scene.colour[0, 0]), colour)
    return scene.change(colour=_first(scene.colour, colour), rgb=rgb)


def _moved(tones: Tensor, table: Mapping[str, Sequence[object]], old: int, new: int) -> Tensor:
    """Tones of an entry of a table, made those of another with the same jitter."""
    values = torch.tensor(list(table.values()), dtype=torch.float32) / 255
    return (tones - values[old] + values[new]).clamp(0, 1)


def _without_colour(prompt: str, scene: Scenes) -> str:
    """The prompt with the first object's colour unsaid."""
    (attributes,) = described(scene)
    colour, shape = attributes["colour0"], attributes["shape0"]
    article = "an" if str(colour)[0] in "aeiou" else "a"
    return prompt.replace(f"{article} {colour} {shape}", f"a {shape}", 1)
