"""Clips longer than memory: frames are read one by one and written one by one.

Videos are streamed; numbered pictures are read one by one. A gif, webp or png that is written is kept until its end,
since one palette or one header serves all of its frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

from videogen import movie, pictures, recipe, video
from videogen.clip import Audio, from_numpy
from videogen.errors import InputError, reason
from videogen.files import replacing
from videogen.models.weights import files
from videogen.recipe import Recipe

Add = Callable[[np.ndarray], None]
"""Takes the next frame, `h w 3` uint8."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A clip in a file, or pictures; what `open_source` found out of it without keeping a frame.

    again   the frames from the first on, `h w 3` uint8, each time it is called
    parts   the files it lies in
    """

    path: Path
    count: int
    size: tuple[int, int]
    fps: Fraction
    audio: Audio | None
    again: Callable[[], Iterator[np.ndarray]]
    parts: tuple[Path, ...]

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames [start, stop), decoded from the file's beginning."""
        return islice(self.again(), start, stop)

    def sha256(self) -> str:
        """The first 16 hexadecimal digits over the contents."""
        if len(self.parts) == 1:
            return files.sha256(list(self.parts))[:16]
        return recipe.hash_files({part.name: part for part in self.parts})


def open_source(path: str | Path) -> Source:
    """Go through a video, gif, webp, picture, folder of pictures or NAME.png of numbered ones once, to its end.

    Raises InputError for all that `video.read` refuses, and for pictures of several sizes; warns where frame times vary
    or fewer frames can be decoded than are announced.
    """
    path = Path(path)
    series = video.pictures_of(path)
    if not series and not path.exists():
        raise InputError(f"{path} does not exist")
    if series:
        return _pictures(path, series)
    if path.suffix.lower() in video.MOVING:
        clip = video.read(path)
        held = clip.to_numpy()
        return Source(path, len(clip), (clip.height, clip.width), clip.fps, None, lambda: iter(held), (path,))
    found = movie.survey(path)
    note = video.note_from(found.note)
    if note is not None and found.count < note.frames:
        raise InputError(f"{path} breaks off: {found.count} of {note.frames} frames can be read")
    if found.count < found.announced:
        warnings.warn(f"{path} announces {found.announced} frames, {found.count} can be decoded", stacklevel=2)
    fps, (height, width) = found.fps, found.size
    if note is not None and abs(note.fps / fps - 1) < Fraction(1, 100):
        fps = note.fps
    # the last row and column of an odd clip were added to make it even
    if note is not None and (height, width) == (note.height + note.height % 2, note.width + note.width % 2):
        height, width = note.height, note.width

    def frames() -> Iterator[np.ndarray]:
        return (pixels[:height, :width] for pixels in movie.decoded(path))

    audio = Audio(path) if found.sound else None
    return Source(path, found.count, (height, width), fps, audio, frames, (path,))


def _pictures(path: Path, series: list[Path]) -> Source:
    try:
        sizes = {pictures.read_still(file)[0].shape[:2] for file in series}
        note = video.note_from(pictures.read_still(series[0])[1])
    except video.UNREADABLE as problem:
        raise InputError(f"{path} holds a picture that cannot be read ({reason(problem)})") from problem
    if len(sizes) > 1:
        told = " and ".join(f"{width} x {height}" for height, width in sorted(sizes)[:2])
        raise InputError(f"the pictures of {path} have several sizes ({told})")

    def frames() -> Iterator[np.ndarray]:
        return (pictures.read_still(file)[0] for file in series)

    fps = Fraction(8) if note is None else note.fps
    return Source(path, len(series), sizes.pop(), fps, None, frames, tuple(series))


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
    """Yield what takes the frames of a clip with the count, rate and sound of `like`; it appears whole, at the end.

    size   height and width, where not those of `like`

    Raises InputError for all that `video.write` refuses.
    """
    path = Path(path)
    video.check_target(path, overwrite=overwrite, frames=like.count)
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
            encoder = movie.Encoder(beside, (height, width), like.fps, note, audio, like.count / like.fps)
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
