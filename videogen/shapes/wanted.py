"""Captions read back: what a text asks of a clip of the shapes world."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from videogen.errors import InputError
from videogen.shapes import world
from videogen.shapes.captions import CAMERA_WORDS, MOTION_WORDS, RELATION_WORDS, SIZE_WORDS, described
from videogen.shapes.world import Scenes


@dataclass(frozen=True)
class WantedObject:
    """What a caption says of one object; None where it says nothing."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    motion: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What a caption asks for. None is any; style and camera have a fixed reading where they are not named."""

    objects: tuple[WantedObject, ...]
    background: str | None = None
    relation: str | None = None  # where the first object is, seen from the second
    style: str = "flat"
    camera: str = "none"


_MORE_MOTIONS = {
    "standing still": ("stands still", "staying still", "stays still", "still"),
    "moving left": ("moves left", "moves to the left"),
    "moving right": ("moves right", "moves to the right"),
    "moving up": ("moves up", "moves upwards"),
    "moving down": ("moves down", "moves downwards"),
    "growing": ("grows", "getting larger", "gets bigger"),
    "shrinking": ("shrinks", "gets smaller"),
    "rotating": ("rotates", "turning", "turns", "spinning", "spins"),
}
_OBJECT = ("object", "shape", "thing")  # nouns that leave the shape open


def _table() -> dict[tuple[str, ...], tuple[str, str]]:
    """Phrases as words -> what they say."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    plain = {"shape": world.SHAPES, "colour": world.COLOURS, "style": world.STYLES, "background": world.BACKGROUNDS}
    spoken = {
        "size": SIZE_WORDS,
        "motion": MOTION_WORDS,
        "relation": RELATION_WORDS,
        "camera": CAMERA_WORDS,
        "motion ": _MORE_MOTIONS,
    }
    for kind, names in plain.items():
        found |= {(name,): (kind, name) for name in names}
    for kind, table in spoken.items():
        found |= {tuple(text.split()): (kind.strip(), name) for name, texts in table.items() for text in texts}
    found |= {(noun,): ("shape", "") for noun in _OBJECT}
    return found | {("grey",): ("background", "gray")}


_PHRASES = _table()
_LONGEST = max(len(phrase) for phrase in _PHRASES)


def parse(text: str) -> Wanted:
    """Read a caption. Words that the world does not know are passed over; adjectives stand before their noun.

    Raises:
        InputError: where the text names nothing of the world, or more than two objects.
    """
    words = re.findall(r"[a-z]+", text.lower())
    objects: list[WantedObject] = []
    coming: dict[str, str] = {}  # said of the next noun
    whole: dict[str, str] = {}  # said of the clip
    fresh = True  # a new noun phrase has begun since the last noun
    at = 0
    while at < len(words):
        length, kind, value = _phrase(words, at)
        if words[at] in ("a", "an", "and"):
            fresh = True
        if kind in ("background", "relation", "camera", "style"):
            whole.setdefault(kind, value)
            fresh = fresh or kind == "relation"
        elif kind == "shape":
            objects.append(WantedObject(shape=value or None, **coming))
            coming, fresh = {}, False
        elif kind == "motion" and objects and objects[-1].motion is None and not fresh:
            objects[-1] = dataclasses.replace(objects[-1], motion=value)
        elif kind:
            coming[kind] = value
            fresh = True
        at += length
    if coming and objects and "motion" in coming and objects[-1].motion is None:
        objects[-1] = dataclasses.replace(objects[-1], motion=coming.pop("motion"))
    if coming and not objects:
        objects.append(WantedObject(**coming))
    if not objects and not whole:
        raise InputError(f"{text!r} names nothing of the shapes world; try 'a red circle moving right'")
    if len(objects) > 2:
        raise InputError(f"{text!r} names {len(objects)} objects; the shapes world has one or two")
    return Wanted(objects=tuple(objects or [WantedObject()]), **whole)


def truths(scenes: Scenes) -> list[Wanted]:
    """All that could be asked of each scene, nothing left open: what measuring it should find."""
    return [
        Wanted(
            objects=tuple(
                WantedObject(**{name: str(scene[f"{name}{number}"]) for name in ("shape", "colour", "size", "motion")})
                for number in range(int(scene["count"]))
            ),
            background=str(scene["background"]),
            relation=str(scene["relation"]) if scene["count"] == 2 else None,
            style=str(scene["style"]),
            camera=str(scene["camera"]),
        )
        for scene in described(scenes)
    ]


def _phrase(words: list[str], at: int) -> tuple[int, str, str]:
    """The longest known phrase at a place: its length, kind and value; one unknown word otherwise."""
    for length in range(_LONGEST, 0, -1):
        found = _PHRASES.get(tuple(words[at : at + length]))
        if found:
            return length, *found
    return 1, "", ""
