"""Scenes to captions, in many phrasings, from one word to full sentences.

What a caption leaves out has a fixed reading: the style is flat, there is one object, the camera stands still; colour,
shape, size, motion, background and place are any. So captions of two objects always name both, and a style other than
flat and a camera that moves are always named.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator

from videogen.shapes import world
from videogen.shapes.world import Scenes

# The first of each is the plain word; parsing knows them all.
SIZE_WORDS: dict[str, tuple[str, ...]] = {"small": ("small", "little"), "large": ("large", "big")}
MOTION_WORDS: dict[str, tuple[str, ...]] = {
    "standing still": ("standing still", "not moving"),
    "moving left": ("moving left", "moving to the left"),
    "moving right": ("moving right", "moving to the right"),
    "moving up": ("moving up", "moving upwards"),
    "moving down": ("moving down", "moving downwards"),
    "growing": ("growing", "getting bigger"),
    "shrinking": ("shrinking", "getting smaller"),
    "rotating": ("rotating", "turning around"),
}
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
CAMERA_WORDS: dict[str, tuple[str, ...]] = {name: (f"the camera {name}",) for name in world.CAMERAS[1:]}

# Phrasings of one object and of two: {one} and {two} become noun phrases, {move} and {moves} motions.
# The number is how often a phrasing is taken.
_ONE: dict[str, int] = {
    "{bare}": 1,
    "{colour} {bare}": 1,
    "a {one}": 1,
    "a {one} {move}": 3,
    "a {one} on a {ground} background": 2,
    "a {one} {move} on a {ground} background": 8,
    "a {one} is {move} on a {ground} background": 1,
    "on a {ground} background, a {one} is {move}": 1,
    "{ground} background, {one}, {move}": 1,
    "a video of a {one} {move} on a {ground} background": 1,
    "the {one} is {move} and the background is {ground}": 1,
}
_TWO: dict[str, int] = {
    "a {one} and a {two}": 1,
    "a {one} {relation} a {two}": 1,
    "a {one} and a {two} on a {ground} background": 1,
    "a {one} {relation} a {two} on a {ground} background": 1,
    "a {one} {move} and a {two} {moves}": 2,
    "a {one} {move} and a {two} {moves} on a {ground} background": 4,
    "a {one} {move}, {relation} a {two} {moves}, on a {ground} background": 6,
    "on a {ground} background, a {one} is {move} and a {two} is {moves}": 1,
    "a video of a {one} {move}, {relation} a {two} {moves}, on a {ground} background": 1,
}
_PLAIN = (
    "a {one} {move} on a {ground} background",
    "a {one} {move}, {relation} a {two} {moves}, on a {ground} background",
)


def captions(scenes: Scenes, generator: Generator) -> list[str]:
    """One caption a clip, in a phrasing drawn at random; true of the whole clip."""
    return _drawn(scenes, generator, (_ONE, _TWO))


def image_captions(scenes: Scenes, generator: Generator) -> list[str]:
    """Captions for single frames: full ones, motion words included, in nine cases of ten; else any phrasing.

    An image model that is trained with the motion words passes them on to motion modules.
    """
    full = tuple({text: weight for text, weight in phrasings.items() if "{move}" in text} for phrasings in (_ONE, _TWO))
    short = torch.rand(len(scenes), generator=generator) < 0.1
    pairs = zip(short.tolist(), captions(scenes, generator), _drawn(scenes, generator, full), strict=True)
    return [any_text if is_short else full_text for is_short, any_text, full_text in pairs]


def plain(scenes: Scenes) -> list[str]:
    """The plain full form, one a clip: "a red circle moving right on a black background".

    Two objects: "a red circle moving right, left of a blue square standing still, on a gray background". A style other
    than flat is named before the colour, a moving camera at the end; sizes are not named.
    """
    return [_fill(_PLAIN[int(scene["count"]) - 1], scene, None) for scene in described(scenes)]


def described(scenes: Scenes) -> list[dict[str, str | int]]:
    """Attributes by name, one dictionary a clip: count, background, style, camera, relation, shape0, shape1, ..."""
    columns: dict[str, list[str | int]] = {"count": scenes.count.tolist()}
    for name, names in (
        ("background", tuple(world.BACKGROUNDS)),
        ("style", world.STYLES),
        ("camera", world.CAMERAS),
        ("relation", world.RELATIONS),
    ):
        columns[name] = [names[index] for index in getattr(scenes, name).tolist()]
    for name, names in (
        ("shape", world.SHAPES),
        ("colour", tuple(world.COLOURS)),
        ("size", world.SIZES),
        ("motion", world.MOTIONS),
    ):
        for number in (0, 1):
            columns[f"{name}{number}"] = [names[index] for index in getattr(scenes, name)[:, number].tolist()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def vocabulary() -> list[str]:
    """Every word and sign that a caption can contain, sorted."""
    texts = [*_ONE, *_TWO, *world.SHAPES, *world.COLOURS, *world.BACKGROUNDS, *world.STYLES, "an"]
    for table in (SIZE_WORDS, MOTION_WORDS, RELATION_WORDS, CAMERA_WORDS):
        texts += [phrase for phrases in table.values() for phrase in phrases]
    words = " ".join(texts).replace(",", " , ").split()
    return sorted({word for word in words if not word.startswith("{")})


def _drawn(scenes: Scenes, generator: Generator, phrasings: Sequence[dict[str, int]]) -> list[str]:
    weights = [torch.tensor(list(choice.values()), dtype=torch.float32) for choice in phrasings]
    texts = [list(choice) for choice in phrasings]
    picks = [torch.multinomial(weight, max(len(scenes), 1), True, generator=generator).tolist() for weight in weights]
    chances = torch.rand(len(scenes), 8, generator=generator).tolist()
    found = []
    for number, scene in enumerate(described(scenes)):
        kind = int(scene["count"]) - 1
        found.append(_fill(texts[kind][picks[kind][number]], scene, chances[number]))
    return found


def _fill(text: str, scene: dict[str, str | int], chances: list[float] | None) -> str:
    """A phrasing with its words; without chances the plain ones and no sizes."""
    fields = {name: str(value) for name, value in scene.items()}
    style = fields["style"]
    dice = chances or [1.0] * 8
    nouns = []
    for number in (0, 1):
        adjectives = [] if style == "flat" and dice[number] > 0.05 else [style]
        if dice[2 + number] < 0.4:
            size = SIZE_WORDS[fields[f"size{number}"]]
            adjectives.insert(0, size[dice[2 + number] < 0.1])
        nouns.append(" ".join([*adjectives, fields[f"colour{number}"], fields[f"shape{number}"]]))
    moves = [MOTION_WORDS[fields[f"motion{number}"]][dice[4 + number] < 0.15] for number in (0, 1)]
    bare = fields["shape0"]
    if style != "flat":
        bare, colour = (f"{style} {bare}", "") if text == "{bare}" else (bare, f"{style} {fields['colour0']}")
    else:
        colour = fields["colour0"]
    caption = text.format(
        bare=bare,
        colour=colour,
        one=nouns[0],
        two=nouns[1],
        move=moves[0],
        moves=moves[1],
        relation=RELATION_WORDS[fields["relation"]][dice[6] < 0.2],
        ground=fields["background"],
    )
    if fields["camera"] != "none":
        caption += f", {CAMERA_WORDS[fields['camera']][0]}"
    return _articles(caption)


def _articles(text: str) -> str:
    """The article an before a vowel."""
    words = text.split(" ")
    for place, following in enumerate(words[1:]):
        if words[place] == "a" and following[0] in "aeiou":
            words[place] = "an"
    return " ".join(words)
