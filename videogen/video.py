"""Clips in files: read anything, write mp4, mov, mkv, webm, gif, webp and png, with the recipe inside.

A file of ours carries a note in its metadata (comment of a container or gif, text of a png, EXIF of a webp): JSON with
the true size, rate and number of frames, which the format may not be able to hold exactly, and the recipe.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path

import av
import numpy as np
from PIL import Image

from videogen import movie, pictures, recipe
from videogen.clip import Audio, Clip, from_numpy
from videogen.errors import InputError, reason
from videogen.files import natural, replacing
from videogen.recipe import Recipe, hash_files, hash_path

WRITTEN = (*movie.CONTAINERS, ".gif", ".webp", ".png")
MOVING = (".gif", ".webp")
STILLS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
SLOWEST = Fraction(1, 600)  # frames per second; a gif shows a picture for 655 s at most


@dataclasses.dataclass(frozen=True)
class Note:
    """What a file of ours says of itself: the true size, rate and count of its frames, and the recipe."""

    width: int
    height: int
    fps: Fraction
    frames: int
    recipe: Recipe | None

    def to_json(self) -> str:
        """ASCII JSON; every container's comment can hold it."""
        content = {"width": self.width, "height": self.height, "fps": str(self.fps), "frames": self.frames}
        return json.dumps({"videogen": content | {"recipe": None if self.recipe is None else self.recipe.to_dict()}})


def note_from(text: str | None) -> Note | None:
    """The note in a metadata text, or None where somebody else wrote it."""
    try:
        content = json.loads(text or "")["videogen"]
        made = None if content["recipe"] is None else recipe.from_dict(content["recipe"])
        width, height, count = (int(content[key]) for key in ("width", "height", "frames"))
        return Note(width, height, Fraction(content["fps"]), count, made)
    except (ValueError, TypeError, KeyError, ZeroDivisionError, RecursionError):
        return None


def check_target(
    path: str | os.PathLike[str], *, overwrite: bool = False, frames: int = 2, fps: Fraction | None = None
) -> None:
    """Refuse a file that could not be written, before anything is computed.

    `frames` tells one png from numbered ones; `fps` is the clip's rate, where it is known. Raises InputError for an
    unknown extension, a folder that is missing or cannot be written, a file that exists while `overwrite` is off, and a
    rate that is too low.
    """
    path = Path(path)
    if fps is not None and fps < SLOWEST:
        raise InputError(f"{fps} frames per second cannot be written; give {SLOWEST} or more")
    if path.suffix.lower() not in WRITTEN:
        raise InputError(f"{path.name or path} has no extension that can be written; use one of {' '.join(WRITTEN)}")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist; create it first")
    try:
        tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent).cleanup()
    except OSError as problem:
        raise InputError(f"cannot write into {path.parent}: {problem.strerror}") from problem
    if path.is_dir():
        raise InputError(f"{path} is a folder; choose another name")
    there = [file for file in touched(path, frames) if file.exists()]
    if there and not overwrite:
        raise InputError(f"{there[0]} exists already; choose another name or say that it may be replaced (--overwrite)")


def touched(path: Path, frames: int) -> list[Path]:
    """The files that writing so many frames makes, replaces or takes away, in an existing folder."""
    if path.suffix.lower() != ".png" or frames == 1:
        return [path]
    return sorted({*_names(path, frames), *_numbered(path)})


def write(
    path: str | os.PathLike[str], clip: Clip, recipe: Recipe | None = None, *, overwrite: bool = False
) -> list[Path]:
    """Write a clip, complete or not at all; returns the files written.

    .mp4 .mov .mkv  H.264, yuv420p, crf 18, made to be played while it loads (mp4, mov); .webm  VP9. Sound is taken
    along.
    .gif            one palette for the whole clip; .webp  without loss
    .png            one frame, or NAME_0001.png, NAME_0002.png, ... for several

    Raises InputError for all that `check_target` refuses, and where writing fails.
    """
    path = Path(path)
    check_target(path, overwrite=overwrite, frames=len(clip), fps=clip.fps)
    note = Note(clip.width, clip.height, clip.fps, len(clip), recipe).to_json()
    frames = clip.to_numpy()
    suffix = path.suffix.lower()
    try:
        if suffix == ".png":
            return _write_pngs(path, frames, note)
        with replacing(path) as beside:
            if suffix == ".gif":
                pictures.write_gif(beside, frames, clip.fps, note)
            elif suffix == ".webp":
                pictures.write_webp(beside, frames, clip.fps, note)
            else:
                movie.write_movie(beside, frames, clip.fps, note, clip.audio)
    except (OSError, RuntimeError, av.FFmpegError) as problem:  # libwebp's are RuntimeErrors
        raise InputError(f"{path} could not be written: {reason(problem)}") from problem
    except OverflowError as problem:  # frames that equal each other become one picture of a gif, shown for longer
        told = f"{path} cannot say how long a picture is shown"
        raise InputError(f"{told}; use .mp4, fewer frames or a higher rate") from problem
    return [path]


@dataclasses.dataclass(frozen=True)
class Source:
    """A clip in a file, or pictures; what `open_source` found out of it without keeping a frame.

    again   the frames from the first on, `h w 3` uint8, each time it is called
    parts   the files it lies in
    aspect  how many times as wide as high a pixel is shown
    """

    path: Path
    count: int
    size: tuple[int, int]
    fps: Fraction
    audio: Audio | None
    again: Callable[[], Iterator[np.ndarray]]
    parts: tuple[Path, ...]
    aspect: Fraction = Fraction(1)

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width, in square pixels, at which the clip is shown."""
        return self.size[0], max(1, round(self.size[1] * self.aspect))

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames [start, stop), decoded from the file's beginning."""
        return islice(self.again(), start, stop)

    def sha256(self) -> str:
        """The first 16 hexadecimal digits over the contents."""
        if len(self.parts) == 1:
            return hash_path(self.parts[0])
        return hash_files({part.name: part for part in self.parts})


def open_source(path: str | os.PathLike[str]) -> Source:
    """Go through a video, gif, webp, picture, folder of pictures or NAME.png of numbered ones once, to its end.

    Rotation flags are honoured, sound is kept as a reference to its file, and our own files give back their true size,
    rate and number of frames. Raises InputError for what does not exist, cannot be read, or has pictures of several
    sizes; warns where frame times vary or fewer frames can be decoded than are announced.
    """
    path = Path(path)
    series = pictures_of(path)
    if not series and not path.exists():
        raise InputError(f"{path} does not exist")
    if series:
        return _pictures(path, series)
    if path.suffix.lower() in MOVING:
        return _moving(path)
    found = movie.survey(path)
    note = note_from(found.note)
    # what somebody cut out of a clip of ours has its note, and announces fewer frames itself
    if note is not None and found.count < min(note.frames, found.announced or note.frames):
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

    audio = Audio(path, found.begin) if found.sound else None
    return Source(path, found.count, (height, width), fps, audio, frames, (path,), found.aspect)


def read(path: str | os.PathLike[str]) -> Clip:
    """Read all frames of a clip into memory (of a video in a second pass); what `open_source` says of files holds here."""
    source = open_source(path)
    return dataclasses.replace(from_numpy(np.stack(list(source.frames())), source.fps), audio=source.audio)


def _moving(path: Path) -> Source:
    try:
        size, shown, text = pictures.survey(path)
    except pictures.UNREADABLE as problem:
        raise InputError(f"{path} is no picture that can be read ({reason(problem)})") from problem
    note, often = note_from(text), Counter(range(len(shown)))
    if note is not None:
        often, fps = Counter(pictures.spread(shown, note.frames)), note.fps
    else:
        # viewers show a picture without a time for a tenth of a second
        shown = [seconds or Fraction(1, 10) for seconds in shown]
        if len(set(shown)) > 1:
            warnings.warn(f"{path}: frame times vary; they are taken as even", stacklevel=3)
        fps = min(len(shown) / sum(shown, Fraction(0)), Fraction(1000))

    def frames() -> Iterator[np.ndarray]:
        for i, pixels in enumerate(pictures.decoded(path)):
            yield from repeat(pixels, often[i])

    return Source(path, often.total(), size, fps, None, frames, (path,))


def _pictures(path: Path, series: list[Path]) -> Source:
    try:
        sizes = {pictures.read_still(file)[0].shape[:2] for file in series}
        for file in series:
            if (count := pictures.count(file)) > 1:
                warnings.warn(f"{file} holds {count} pictures; the first alone is taken", stacklevel=3)
        note = note_from(pictures.read_still(series[0])[1])
    except pictures.UNREADABLE as problem:
        what = "is no picture that can be read" if series == [path] else "holds a picture that cannot be read"
        raise InputError(f"{path} {what} ({reason(problem)})") from problem
    if len(sizes) > 1:
        told = " and ".join(f"{width} x {height}" for height, width in sorted(sizes)[:2])
        raise InputError(f"the pictures of {path} have several sizes ({told})")

    def frames() -> Iterator[np.ndarray]:
        return (pictures.read_still(file)[0] for file in series)

    fps = Fraction(8) if note is None else note.fps
    return Source(path, len(series), sizes.pop(), fps, None, frames, tuple(series))


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a file's metadata. Raises InputError where there is none."""
    path = Path(path)
    series = pictures_of(path)
    if not series and not path.exists():
        raise InputError(f"{path} does not exist")
    source = series[0] if series else path
    if source.suffix.lower() in (*STILLS, *MOVING):
        try:
            with Image.open(source) as picture:
                note = note_from(pictures.note_of(picture))
        except pictures.UNREADABLE as problem:
            raise InputError(f"{source} is no picture that can be read ({reason(problem)})") from problem
    else:
        note = note_from(movie.read_note(source))
    if note is None or note.recipe is None:
        raise InputError(
            f"{source} carries no recipe; it was not written by videogen, or another program dropped its metadata"
        )
    return note.recipe


def pictures_of(path: Path) -> list[Path]:
    """The still pictures that a path stands for: itself, a folder's, or the numbered ones, in the order of their numbers; empty for anything else."""
    if path.is_dir():
        inside = [p for p in path.iterdir() if p.suffix.lower() in STILLS and not p.name.startswith(".")]
        if not inside:
            raise InputError(f"the folder {path} holds no pictures ({' '.join(STILLS)})")
        return sorted(inside, key=natural)
    if path.suffix.lower() not in STILLS:
        return []
    return [path] if path.exists() else _numbered(path)


def _numbered(path: Path) -> list[Path]:
    if not path.parent.is_dir():
        return []
    pattern = re.compile(re.escape(path.stem) + r"_\d{4,}" + re.escape(path.suffix))
    return sorted((p for p in path.parent.iterdir() if pattern.fullmatch(p.name)), key=natural)


def _names(path: Path, frames: int) -> list[Path]:
    return [path.with_name(f"{path.stem}_{i:04d}{path.suffix}") for i in range(1, frames + 1)]


def _write_pngs(path: Path, frames: np.ndarray, note: str) -> list[Path]:
    """All pictures are made beside first. What a shorter clip would leave of a longer one goes away with it."""
    if len(frames) == 1:
        with replacing(path) as beside:
            pictures.write_png(beside, frames[0], note)
        return [path]
    names = [file.name for file in _names(path, len(frames))]
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as holder:
        new, old = Path(holder) / "new", Path(holder) / "old"
        new.mkdir()
        old.mkdir()
        for name, frame in zip(names, frames):
            pictures.write_png(new / name, frame, note)
        try:
            for before in _numbered(path):
                os.replace(before, old / before.name)
            for name in names:
                os.replace(new / name, path.parent / name)
        except BaseException:
            for name in names:
                if not (new / name).exists():
                    (path.parent / name).unlink(missing_ok=True)
            for before in old.iterdir():
                before.rename(path.parent / before.name)
            raise
    return [path.parent / name for name in names]
