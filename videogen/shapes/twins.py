"""Scenes in fours that share everything but one word of their captions, or the order of two, for training that is to hear this.

What a word changes is little beside what no caption tells, place above all. In a batch of four that differ in this word alone, under the same noise,
the rest pulls all four the same way and cancels from what tells them apart.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor

from videogen.errors import InputError
from videogen.shapes import world
from videogen.shapes.sampling import sample
from videogen.shapes.world import Scenes

TWINS = 4
Word = Literal["shape", "motion", "pair"]

_WAYS = torch.tensor([world.MOTIONS.index(name) for name in world.DIRECTIONS])
_OTHERS = torch.tensor([number for number in range(len(world.MOTIONS)) if number not in _WAYS.tolist()])


def twins(count: int, word: Word, *, generator: Generator) -> Scenes:
    """`count` training scenes, each four in a row alike but for the first object's shape, or its motion, or for which of a pair has what.

    By motion: one object; half of the fours go the four ways from the same middle, the others stand, grow, shrink and rotate. A combination
    that training must not see gives its place to another of the four.

    By pair: two objects, as they are, with their colours exchanged, with their shapes, and with both.

    Raises:
        InputError: when `count` is no multiple of four.
    """
    if count < TWINS or count % TWINS:
        raise InputError(f"twins come in fours; {count} is no multiple of {TWINS}")
    return _DRAWN[word](count // TWINS, generator)


def _of_shapes(fours: int, generator: Generator) -> Scenes:
    scenes = _each_four_times(sample(fours, generator=generator))
    wanted = torch.arange(len(world.SHAPES)).repeat(fours)
    seen = _seen(wanted, scenes.colour[:, 0], scenes.motion[:, 0])
    shape = torch.where(seen, wanted, scenes.shape[:, 0])
    return scenes.change(shape=torch.stack([shape, scenes.shape[:, 1]], 1))


def _of_motions(fours: int, generator: Generator) -> Scenes:
    still = sample(fours, generator=generator, split="all", objects=1, motions=["standing still"])
    travels = torch.rand(fours, 1, generator=generator) < 1 / 2

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(fours, 2, generator=generator)

    travel, growth = uniform(*world.TRAVEL), uniform(*world.GROWTH)
    turn = torch.deg2rad(uniform(*world.TURN)) * uniform(-1, 1).sign()
    angle = uniform(-math.pi, math.pi)
    reach = torch.where(travels, still.radius + travel / 2, still.radius * growth.sqrt())
    edge = (world.MARGIN + reach)[..., None]
    centre = edge + (world.SIZE - 2 * edge) * torch.rand(fours, 2, 2, generator=generator)
    scenes = _each_four_times(still.change(travel=travel, growth=growth, turn=turn, angle=angle, centre=centre))

    wanted = torch.where(travels, _WAYS, _OTHERS)
    seen = _seen(scenes.shape[:, 0].view(fours, TWINS), scenes.colour[:, 0].view(fours, TWINS), wanted)
    fallback = wanted.gather(1, seen.int().argmax(1, keepdim=True))
    motion = torch.where(seen, wanted, fallback).view(-1, 1).expand(-1, 2)
    return _only(scenes.change(motion=motion.contiguous()))


def _of_pairs(fours: int, generator: Generator) -> Scenes:
    scenes = _each_four_times(sample(fours, generator=generator, objects=2))
    number = torch.arange(len(scenes)) % TWINS

    def exchanged(field: Tensor, which: Tensor) -> Tensor:
        return torch.where(which.view(-1, *[1] * (field.ndim - 1)), field.flip(1), field)

    colours, shapes = (number == 1) | (number == 3), number >= 2
    shape, colour = exchanged(scenes.shape, shapes), exchanged(scenes.colour, colours)
    seen = _seen(shape, colour, scenes.motion).all(1)
    colours, shapes = colours & seen, shapes & seen
    return scenes.change(
        shape=exchanged(scenes.shape, shapes),
        colour=exchanged(scenes.colour, colours),
        rgb=exchanged(scenes.rgb, colours),
    )


def _only(scenes: Scenes) -> Scenes:
    """The scenes with the numbers that their motions have no use for at rest."""

    def moving(names: tuple[str, ...]) -> Tensor:
        return torch.isin(scenes.motion, torch.tensor([world.MOTIONS.index(name) for name in names]))

    grows, shrinks, turns = moving(("growing",)), moving(("shrinking",)), moving(("rotating",))
    growth = torch.where(grows, scenes.growth, torch.where(shrinks, 1 / scenes.growth, torch.ones(())))
    return scenes.change(
        travel=scenes.travel * moving(tuple(world.DIRECTIONS)),
        growth=growth,
        turn=scenes.turn * turns,
        angle=scenes.angle * turns,
    )


def _seen(shape: Tensor, colour: Tensor, motion: Tensor) -> Tensor:
    """Whether training may see an object: the combination is not held out, and circles do not rotate."""
    rotates = (shape == world.SHAPES.index("circle")) & (motion == world.MOTIONS.index("rotating"))
    return ~world.held_out(shape, colour, motion) & ~rotates


def _each_four_times(scenes: Scenes) -> Scenes:
    return scenes[torch.arange(len(scenes)).repeat_interleave(TWINS)]


_DRAWN = {"shape": _of_shapes, "motion": _of_motions, "pair": _of_pairs}
