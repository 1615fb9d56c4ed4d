"""The shapes world: coloured shapes that move on a background, described by a batch of plain tensors.

Lengths are pixels of the 128 x 128 frame (other sizes scale them), x to the right, y downwards, angles in radians
clockwise. An attribute is stored as its index in the tuple of names below. Everything that a picture depends on is in
`Scenes`, the jitter of its colours too, so that a scene looks the same whenever and wherever it is drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE, FRAMES, FPS = 128, 16, 8

SHAPES = ("circle", "square", "triangle", "star")
SIZES = ("small", "large")
STYLES = ("flat", "outlined", "shaded")
MOTIONS = (
    "standing still",
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "growing",
    "shrinking",
    "rotating",
)
RELATIONS = ("left of", "right of", "above", "below")
CAMERAS = ("none", "pans left", "pans right", "pans up", "pans down", "zooms in", "zooms out")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 50, 47),
    "green": (60, 180, 75),
    "blue": (50, 90, 220),
    "yellow": (255, 215, 0),
    "purple": (145, 60, 200),
    "orange": (245, 130, 40),
    "white": (245, 245, 245),
    "cyan": (60, 200, 220),
}
# Two tones each, a plain background the same one twice; those of the textured ones stay away from the objects' colours.
BACKGROUNDS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "black": ((12, 12, 14), (12, 12, 14)),
    "gray": ((120, 120, 125), (120, 120, 125)),
    "navy": ((20, 30, 80), (20, 30, 80)),
    "brown": ((100, 65, 35), (100, 65, 35)),
    "striped": ((92, 26, 56), (122, 52, 84)),
    "checkered": ((18, 78, 78), (42, 104, 102)),
}
PLAIN_BACKGROUNDS = ("black", "gray", "navy", "brown")
JITTER = 12  # of 255, for each channel apart
CONTOUR = (55, 55, 55)  # seen on every background, black too
CONTOUR_WIDTH, CONTOUR_LIMITS = 0.2, (1.5, 3.0)  # radii, within pixels
LIGHT, SHADE = 0.5, 0.35  # how far the lit side goes to white and the far side to black
STRIPE_PERIOD, CHECKER_PERIOD = 24.0, 32.0
STAR_INNER = 0.5  # inner over outer radius

RADIUS = {"small": (10.0, 14.0), "large": (15.0, 22.0)}  # of the circumscribed circle, in the middle of the clip
TRAVEL = (24.0, 60.0)
GROWTH = (1.4, 2.0)
TURN = (60.0, 180.0)  # degrees
PAN, ZOOM = (12.0, 28.0), (1.2, 1.5)
MARGIN = 2.0  # between an object and the frame's border
GAP = 5.0  # between two objects' circumscribed circles
APART = 14.0  # how far "left of" is left, at least, in every frame

SPLITS = ("train", "test", "held_out", "all")
DIRECTIONS = {"moving left": (-1, 0), "moving right": (1, 0), "moving up": (0, -1), "moving down": (0, 1)}
RELATION_AXES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
CAMERA_AXES = {"pans left": (-1, 0), "pans right": (1, 0), "pans up": (0, -1), "pans down": (0, 1)}


@dataclass(frozen=True)
class Scenes:
    """b clips of one or two objects. Where a clip has one object, the second column and `relation` mean nothing.

    With u = time / duration - 1/2, an object is at centre + direction * travel * u, has radius * growth**u and is
    turned by angle + turn * u.
    """

    count: Tensor  # b          objects, 1 or 2
    shape: Tensor  # b 2        index in SHAPES
    colour: Tensor  # b 2       index in COLOURS
    size: Tensor  # b 2         index in SIZES
    motion: Tensor  # b 2       index in MOTIONS
    background: Tensor  # b     index in BACKGROUNDS
    style: Tensor  # b          index in STYLES
    camera: Tensor  # b         index in CAMERAS
    relation: Tensor  # b       index in RELATIONS: where the first object is, seen from the second
    centre: Tensor  # b 2 2     x, y
    radius: Tensor  # b 2
    angle: Tensor  # b 2
    travel: Tensor  # b 2
    growth: Tensor  # b 2       ratio of the last radius to the first
    turn: Tensor  # b 2
    rgb: Tensor  # b 2 3        in [0, 1]
    ground: Tensor  # b 2 3     the background's two tones, in [0, 1]
    phase: Tensor  # b 2        where the texture begins, in periods
    pan: Tensor  # b 2          the camera's way over the clip
    zoom: Tensor  # b           ratio of the last magnification to the first

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Scenes:
        """Some of the clips; an integer gives a batch of one."""
        if isinstance(index, int):
            index = [range(len(self))[index]]
        if isinstance(index, Sequence):
            index = torch.as_tensor(index, dtype=torch.long)
        return Scenes(*(field[index] for field in self.tensors()))

    def tensors(self) -> list[Tensor]:
        """The fields in their order."""
        return [getattr(self, field.name) for field in dataclasses.fields(self)]

    def to(self, device: torch.device | str) -> Scenes:
        """The same scenes on `device`."""
        return Scenes(*(field.to(device) for field in self.tensors()))

    def change(self, **fields: Tensor) -> Scenes:
        """The same scenes with some fields replaced; shapes must stay."""
        return dataclasses.replace(self, **fields)

    def captions(self, generator: torch.Generator) -> list[str]:
        """One caption a clip, in one of many phrasings: `videogen.shapes.captions.captions`."""
        from videogen.shapes.captions import captions

        return captions(self, generator)


def concatenate(scenes: Sequence[Scenes]) -> Scenes:
    """All clips of several batches, in order."""
    return Scenes(*(torch.cat(fields) for fields in zip(*(part.tensors() for part in scenes), strict=True)))


def held_out(shape: Tensor, colour: Tensor, motion: Tensor) -> Tensor:
    """Whether objects (any shape of index tensors) belong to the tenth of all combinations that training never sees.

    Every colour, shape and motion, and every pair of them, is seen in other combinations.
    """
    return (shape * 2 + colour + motion) % 10 == 3


def table(names: dict[str, tuple[int, int]], order: Sequence[str], device: torch.device | None = None) -> Tensor:
    """Unit vectors `len(order) 2` of a dictionary name -> (x, y); names without an entry stay put."""
    return torch.tensor([names.get(name, (0, 0)) for name in order], dtype=torch.float32, device=device)
