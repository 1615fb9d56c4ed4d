"""Editing a clip as the command line asks for it: a request, what an editing package offers for it, and the recipe.

The methods themselves stand above the core and announce themselves (entry points `videogen.editing`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from torch import Tensor

from videogen import generation
from videogen import recipe as recipes
from videogen.announced import needed
from videogen.errors import InputError
from videogen.pipeline import Motion, Pipeline
from videogen.recipe import Recipe
from videogen.video import Source, open_source
from videogen.windows import Windows


@dataclasses.dataclass(frozen=True)
class Request:
    """What `videogen edit` was asked. None is the method's or the model's own choice.

    clip           the source: a video, gif, webp, picture, or folder of pictures
    base           target prompt, model, motion, negative prompt, steps, guidance, seed, LoRA, dtype, device
    source_prompt  what the clip shows; may be empty
    method         the name of an editing method
    edit           what becomes of words: auto, replace, refine, reweight
    preset         a method's named settings
    blend          words outside whose place the source stays
    weights        how much words of the target count
    strength       share of the way from the clip to noise
    size           width and height that are worked at
    span           first and last second of what is edited; an open end is None
    chunk, overlap frames that are edited together, and what neighbouring chunks share
    settings       the method's own, as a configuration file names them; JSON values
    """

    clip: str
    base: generation.Request
    source_prompt: str = ""
    method: str | None = None
    edit: str = "auto"
    preset: str | None = None
    blend: tuple[str, ...] = ()
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    strength: float | None = None
    size: tuple[int, int] | None = None
    span: tuple[Fraction | None, Fraction | None] = (None, None)
    chunk: int | None = None
    overlap: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        """Raise InputError for what can be refused before anything is read."""
        self.base.check()
        generation.check_text(self.source_prompt)
        if not isinstance(self.base.prompt, str) or not self.base.prompt.strip():
            raise InputError("the prompt is empty; say what the edited clip is to show")
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise InputError(f"--strength {self.strength:g}: give 0 (nothing changes) to 1 (everything may)")
        bad = [word for word, factor in self.weights.items() if not word.strip() or not math.isfinite(factor)]
        if bad:
            raise InputError(f"--weight {bad[0]}: give WORD=NUMBER, such as blue=2")
        if self.overlap is not None and self.chunk is None:
            raise InputError("an overlap belongs to chunks; give --chunk too")
        if self.chunk is not None and not 0 <= (self.overlap or 0) < self.chunk:
            raise InputError(f"chunks of {self.chunk} frames cannot share {self.overlap}; give a smaller --overlap")

    @property
    def prompt(self) -> str:
        """The target prompt."""
        return str(self.base.prompt)


@dataclasses.dataclass(frozen=True)
class Configured:
    """What a configuration file says of a request; None or empty where it says nothing."""

    method: str
    clip: str | None = None
    model: str | None = None
    prompt: str | None = None
    negative: str | None = None
    source_prompt: str = ""
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    chunk: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Piece(NamedTuple):
    """Frames `f 3 H W` in [0, 1] of an edit, the mask `f 1 H W` that was used or None, and what the method measured."""

    frames: Tensor
    mask: Tensor | None = None
    measured: Mapping[str, float] = {}


Edit = Callable[[Tensor, int], Piece]
"""Frames `f 3 H W` in [0, 1] and the number of the first -> what becomes of them."""

Few = Callable[[int], Tensor]
"""At most so many frames, evenly spread over what is edited: `f 3 H W` in [0, 1]."""


class Job(NamedTuple):
    """A method made ready.

    line     says what it will do
    request  with all choices made
    masked   whether it gives masks
    motion   of the model that is sampled from, which may be another than was given
    """

    line: str
    request: Request
    masked: bool
    motion: Motion | None
    edit: Edit


class Offer(NamedTuple):
    """What an editing package brings.

    names       of its methods
    configured  reads a configuration file: (path, clip, prompt, source prompt, model), the last four None where the command line names none
    begin       (pipe, request, number of frames that are edited, few, progress) -> Job
    """

    names: tuple[str, ...]
    configured: Callable[[Path, str | None, str | None, str | None, str | None], Configured]
    begin: Callable[[Pipeline, Request, int, Few, bool], Job]


def offered() -> Offer:
    """What the installed editing package brings. Raises InputError where there is none."""
    offer: Offer = needed("videogen.editing", "editing methods")()
    return offer


def span_of(request: Request, source: Source) -> tuple[int, int]:
    """The frames [start, stop) that are edited: those that begin within the seconds asked for.

    Raises InputError where there are none.
    """
    begin, end = request.span
    start = 0 if begin is None else max(0, math.ceil(begin * source.fps))
    stop = source.count if end is None else min(source.count, math.ceil(end * source.fps))
    if start >= stop:
        seconds = float(source.count / source.fps)
        raise InputError(f"no frame begins in --range {_told(begin)}-{_told(end)}; the clip lasts {seconds:g} s")
    return start, stop


def _told(seconds: Fraction | None) -> str:
    return "" if seconds is None else f"{float(seconds):g}"


def chunks_of(request: Request, motion: Motion | None, frames: int) -> Windows:
    """How the frames are cut into chunks that are edited one after the other; neighbours are cross-faded.

    Where nothing is asked: with a motion module one piece of up to 32 frames if it has the positions, else the length
    that it was trained on; eight frames without one.
    """
    if request.chunk is not None:
        length = request.chunk
    elif motion is None:
        length = 8
    else:
        length = frames if frames <= min(motion.longest, 32) else min(motion.trained, 16)
    overlap = min(length // 4, length - 1) if request.overlap is None else request.overlap
    return Windows(length, overlap)


def recipe_of(request: Request, source: Source) -> Recipe:
    """The recipe of a request in which all choices are made; the clip that it is about is known by its contents."""
    base = dataclasses.replace(request.base, frames=source.count, fps=source.fps, size=None)
    assert base.steps is not None
    assert base.guidance is not None
    height, width = source.size
    made = generation.recipe_of(base, width, height, base.steps, base.guidance)
    standing = {f.name: f.default for f in dataclasses.fields(Request)}
    asked = {f.name: getattr(request, f.name) for f in dataclasses.fields(Request) if f.name != "base"}
    edit = {name: value for name, value in asked.items() if value != standing[name] and value not in ({}, ())}
    if request.span != (None, None):
        edit["span"] = [None if second is None else str(second) for second in request.span]
    edit["sha256"] = source.sha256()
    return dataclasses.replace(made, command="edit", options={**made.options, "edit": edit})


def request_of(made: Recipe) -> Request:
    """The request that a recipe of `videogen edit` records. Raises InputError for one that was changed by hand."""
    try:
        options = dict(made.options)
        edit: dict[str, Any] = dict(options.pop("edit"))
        edit |= {name: tuple(value) for name, value in edit.items() if isinstance(value, list)}
        edit.pop("sha256")
        base = generation.request_of(dataclasses.replace(made, command="generate", options=options))
        begin, end = edit.pop("span", (None, None))
        edit["span"] = (None if begin is None else Fraction(begin), None if end is None else Fraction(end))
        kinds = get_type_hints(Request)
        for name, value in edit.items():
            recipes.check_kind(kinds[name], value, name)
        return Request(base=dataclasses.replace(base, size=None), **edit)
    except (KeyError, TypeError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        told = f"{type(problem).__name__}: {problem}"
        raise InputError(f"the recipe of `videogen edit` in this file is damaged ({told})") from problem


def changed_source(made: Recipe) -> list[str]:
    """What has become of the source clip since the recipe was made; empty where its contents are the same."""
    edit = made.options["edit"]
    try:
        verdict = "" if open_source(edit["clip"]).sha256() == edit["sha256"] else "has changed"
    except InputError:
        verdict = "is not there, or broken,"
    return [f"the source clip ({edit['clip']}) {verdict}"] if verdict else []
