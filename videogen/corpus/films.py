"""A corpus of clips of the shapes world, planned: which clips there are, how fast they run, what is told of them, and which are broken on purpose.

A clip depends on the corpus and on its own number alone, so a corpus that grows keeps the clips that it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.shapes import world
from videogen.shapes.captions import captions
from videogen.shapes.middle import Middle
from videogen.shapes.sampling import sample
from videogen.shapes.usual import Usual
from videogen.shapes.world import Scenes

# Half of the clips have the world's own rate; the others those that are met on the web, 23.976 and 29.97 exactly.
RATES = tuple(map(Fraction, ("7", "12", "12.5", "24000/1001", "25", "30000/1001", "30")))
WITH_SOUND = 0.25
FLAWS = ("zero bytes", "cut in the middle", "sound without pictures", "one frame")
UNTOLD = ("style", "camera")
LEAST = 128  # pixels; of pictures that are much smaller x264 does not always write the same bytes
BLOCK = 128  # clips that are drawn together
BROKEN_FROM = 9_000_001  # ids of broken clips, so that they stay when the corpus grows
PER_FOLDER = 100


@dataclass(frozen=True)
class Corpus:
    """What the clips of a corpus are like.

    size      side of the frames in pixels, an even number, as 4:2:0 needs
    seconds   of each clip; motions span it
    styles    of the objects; empty for all, half of the clips flat
    camera    how it moves in every clip
    textured  True for textured backgrounds alone, False for plain ones; None for both
    paint     (name, red, green, blue): objects that captions call by this colour are painted in another one, 0 to 255
    untold    what captions leave out, of UNTOLD, so that a model takes it as always so
    usual     share of clips near the middle of the frame, and of usual size and speed; most of those that the miniature learned from are
    """

    seed: int = 0
    size: int = world.SIZE
    seconds: float = world.FRAMES / world.FPS
    styles: tuple[str, ...] = ()
    camera: str = "none"
    textured: bool | None = None
    paint: tuple[tuple[str, int, int, int], ...] = ()
    untold: tuple[str, ...] = ()
    usual: float = 0.0

    def __post_init__(self) -> None:
        if self.size < LEAST or self.size % 2:
            raise InputError(f"clips of {self.size} pixels are not made; give an even size of {LEAST} or more")
        if not 0.25 <= self.seconds <= 600:
            raise InputError(f"clips of {self.seconds:g} seconds cannot be made; give 0.25 to 600")
        if not 0 <= self.usual <= 1:
            raise InputError(f"a share of {self.usual:g} clips cannot be usual; give 0 to 1")
        if self.usual and "zooms" in self.camera:
            raise InputError("where the camera zooms, no place is usual; give usual 0, or another camera")
        for names, known in (
            (self.styles, world.STYLES),
            ((self.camera,), world.CAMERAS),
            ([name for name, *_ in self.paint], tuple(world.COLOURS)),
            (self.untold, UNTOLD),
        ):
            for name in names:
                if name not in known:
                    raise InputError(f"the shapes world does not know {name!r}; it knows {', '.join(known)}")


@dataclass(frozen=True, eq=False)
class Film:
    """One clip: its row of the table, its scene (a batch of one), its rate and length; `flaw` says how it is broken, None where it is whole."""

    videoid: str
    page_dir: str
    caption: str
    scene: Scenes
    rate: Fraction
    frames: int
    sound: bool
    flaw: str | None = None

    @property
    def path(self) -> str:
        """Where it lies in the folder `videos`."""
        return f"{self.page_dir}/{self.videoid}.mp4"


def films(corpus: Corpus, count: int, broken: int) -> list[Film]:
    """`count` whole clips and `broken` others, the others spread among them."""
    whole = _numbered(corpus, "whole", count)
    flawed = _numbered(corpus, "broken", broken)
    every = max(1, count // max(broken, 1))
    found: list[Film] = []
    for i in range(count):
        found.append(next(whole))
        if (i + 1) % every == 0:
            found += [film for film in (next(flawed, None),) if film is not None]
    return [*found, *flawed]


def _numbered(corpus: Corpus, part: str, count: int) -> Iterator[Film]:
    """The first `count` films of a part, "whole" or "broken"."""
    for block in range(-(-count // BLOCK)):
        lot = torch.Generator().manual_seed((corpus.seed << 32) + 2 * block + (part == "broken"))
        scenes = sample(
            BLOCK,
            generator=lot,
            styles=corpus.styles or None,
            cameras=(corpus.camera,),
            plain=None if corpus.textured is None else not corpus.textured,
        )
        scenes = Usual(corpus.usual).drawn(scenes, generator=lot)
        scenes = Middle(corpus.usual).moved(scenes, generator=lot)
        told = captions(_as_told(scenes, corpus.untold), lot)
        rates = torch.randint(2 * len(RATES), (BLOCK,), generator=lot).tolist()
        sounds = (torch.rand(BLOCK, generator=lot) < WITH_SOUND).tolist()
        scenes = _painted(scenes, corpus.paint)
        for i in range(min(BLOCK, count - block * BLOCK)):
            number = block * BLOCK + i
            rate = RATES[rates[i]] if rates[i] < len(RATES) else Fraction(world.FPS)
            flaw = FLAWS[number % len(FLAWS)] if part == "broken" else None
            yield Film(
                videoid=str(number + (1 if flaw is None else BROKEN_FROM)),
                page_dir=_page(number) if flaw is None else "broken",
                caption=told[i],
                scene=scenes[i],
                rate=rate,
                frames=max(2, round(corpus.seconds * rate)) if flaw != "one frame" else 1,
                sound=sounds[i] and flaw is None,  # half of a file with sound can hold all of its pictures
                flaw=flaw,
            )


def _page(number: int) -> str:
    first = number // PER_FOLDER * PER_FOLDER + 1
    return f"{first:06d}_{first + PER_FOLDER - 1:06d}"


def _as_told(scenes: Scenes, untold: tuple[str, ...]) -> Scenes:
    """The scenes that captions tell of: attributes that are left out have the value that captions do not name."""
    unnamed: dict[str, Tensor] = {name: torch.zeros_like(getattr(scenes, name)) for name in untold}
    return scenes.change(**unnamed)


def _painted(scenes: Scenes, paint: tuple[tuple[str, int, int, int], ...]) -> Scenes:
    """Objects of some colours in others, each with the jitter that it had."""
    rgb = scenes.rgb.clone()
    for name, *wanted in paint:
        shift = (torch.tensor(wanted) - torch.tensor(world.COLOURS[name])) / 255
        rgb = torch.where((scenes.colour == list(world.COLOURS).index(name))[..., None], scenes.rgb + shift, rgb)
    return scenes.change(rgb=rgb.clamp(0, 1))
