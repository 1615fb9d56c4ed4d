"""Clips longer than memory: `video.open_source` gives their frames one by one, and here they are written one by one.

A gif, webp or png that is written is kept until its end, since one palette or one header serves all of its frames.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np

from videogen import movie, video
from videogen.clip import from_numpy
from videogen.errors import InputError, reason
from videogen.files import replacing
from videogen.recipe import Recipe
from videogen.video import Source

ASPECT = tuple(suffix for suffix, (_, codec, _) in movie.CONTAINERS.items() if codec is movie.H264)
"""Files that can say that pixels are not square."""

Add = Callable[[np.ndarray], None]
"""Takes the next frame, `h w 3` uint8."""


@contextlib.contextmanager
def writing(
    path: str | Path,
    like: Source,
    made: Recipe | None = None,
    *,
    size: tuple[int, int] | None = None,
    sound: bool = True,
    overwrite: bool = False,
) -> Iterator[Add]:
    """Yield what takes the frames of a clip with the count, rate, pixel aspect and sound of `like`; it appears whole, at the end.

    size   height and width, where not those of `like`

    Raises InputError for all that `video.write` refuses; warns where the file cannot say that pixels are not square.
    """
    path = Path(path)
    video.check_target(path, overwrite=overwrite, frames=like.count, fps=like.fps)
    if like.aspect != 1 and path.suffix.lower() not in ASPECT:
        told = f"{path} will show the clip {'narrower' if like.aspect > 1 else 'wider'} than its source"
        warnings.warn(f"{told}, whose pixels are not square; {' and '.join(ASPECT)} keep that", stacklevel=3)
    height, width = size or like.size
    if path.suffix.lower() not in movie.CONTAINERS:
        held: list[np.ndarray] = []
        yield held.append
        video.write(path, from_numpy(np.stack(held), like.fps), made, overwrite=overwrite)
        return
    note = video.Note(width, height, like.fps, like.count, made).to_json()
    audio = like.audio if sound else None
    with contextlib.ExitStack() as stack:
        beside = stack.enter_context(replacing(path))
        with _telling(path):
            encoder = movie.Encoder(
                beside, (height, width), like.fps, note, audio, like.count / like.fps, like.aspect
            )  # fmt: skip
        yield stack.enter_context(_adding(path, encoder))


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, av.FFmpegError) as problem:
        raise InputError(f"{path} could not be written: {reason(problem)}") from problem


@contextlib.contextmanager
def _adding(path: Path, encoder: movie.Encoder) -> Iterator[Add]:
    """The encoder's `add`; only what fails in writing is told as such."""

    def add(pixels: np.ndarray) -> None:
        with _telling(path):
            encoder.add(pixels)

    try:
        yield add
        with _telling(path):
            encoder.finish()
    finally:
        with _telling(path):
            encoder.close()
