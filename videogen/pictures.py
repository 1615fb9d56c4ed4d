"""Stills and moving pictures through PIL: png, gif, webp, and whatever stills it reads. The note of a file is a text;
what it means is not known here.

gif counts time in hundredths of a second and webp in thousandths. Start times are rounded one by one, so that errors do
not add up, and a picture that equals the one before is stored as a longer time, which reading turns into frames again.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence, PngImagePlugin

from videogen.clip import rgb

NOTE = "videogen"
DESCRIPTION = 0x010E  # EXIF's ImageDescription
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, IndexError, KeyError, TypeError, struct.error,
)  # fmt: skip
"""What PIL raises for files that are none, or that are cut: a gif's blocks are unpacked before it is seen that they end."""


def read_still(path: Path) -> tuple[np.ndarray, str | None]:
    """One picture `h w 3` uint8, turned upright as its EXIF says, and its note."""
    with Image.open(path) as picture:
        return rgb(ImageOps.exif_transpose(picture)), note_of(picture)


def count(path: Path) -> int:
    """How many pictures a still's file holds: an animated png has several, and a tiff of pages."""
    with Image.open(path) as picture:
        return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)  # a camera's preview is no picture


def survey(path: Path) -> tuple[tuple[int, int], list[Fraction], str | None]:
    """Height and width of a gif or webp as it is shown, how many seconds each of its pictures is, and the note; all are decoded, none is kept."""
    with Image.open(path) as picture:
        note, seconds = note_of(picture), []
        for frame in ImageSequence.Iterator(picture):
            frame.load()  # sets the duration
            seconds.append(Fraction(round(frame.info.get("duration", 0)), 1000))
        upright = ImageOps.exif_transpose(picture)
        return (upright.height, upright.width), seconds, note


def decoded(path: Path) -> Iterator[np.ndarray]:
    """The pictures of a gif or webp one by one, `h w 3` uint8, turned upright as its EXIF says."""
    with Image.open(path) as picture:
        for frame in ImageSequence.Iterator(picture):
            yield rgb(ImageOps.exif_transpose(frame))


def note_of(picture: Image.Image) -> str | None:
    """The note in a png's text, a gif's comment or EXIF's description."""
    if picture.format == "GIF":
        comment = picture.info.get("comment", b"")
        return comment.decode("utf-8", "replace") or None
    if picture.format == "PNG" and isinstance(picture, PngImagePlugin.PngImageFile):
        return picture.text.get(NOTE)
    description = picture.getexif().get(DESCRIPTION)
    return description if isinstance(description, str) else None


def write_png(path: Path, frame: np.ndarray, note: str) -> None:
    """One picture `h w 3` uint8 as png."""
    text = PngImagePlugin.PngInfo()
    text.add_text(NOTE, note)
    Image.fromarray(frame).save(path, pnginfo=text)


def write_gif(path: Path, frames: np.ndarray, fps: Fraction, note: str) -> None:
    """Frames `f h w 3` as an endless gif, all with one palette (one per frame would flicker).

    Up to 256 colours are kept exactly; more are reduced by median cut and k-means over the whole clip, and dithered.
    """
    palette, exact = _palette(frames)
    dither = Image.Dither.NONE if exact else Image.Dither.FLOYDSTEINBERG
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=dither) for frame in frames]
    # viewers slow down what is shown for less than 2 hundredths
    times = [10 * t for t in _durations(len(frames), fps, per_second=100, least=2)]
    first, *rest = pictures
    first.save(path, save_all=True, append_images=rest, duration=times, loop=0, optimize=False, comment=note.encode())


def write_webp(path: Path, frames: np.ndarray, fps: Fraction, note: str) -> None:
    """Frames `f h w 3` as an endless webp without loss."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    times = _durations(len(frames), fps, per_second=1000)
    first.save(path, save_all=True, append_images=rest, duration=times, loop=0, lossless=True, exif=_exif(note))


def spread(shown: Sequence[Fraction], count: int) -> list[int]:
    """Which picture stands at each of `count` frames of equal length, from the seconds that each picture is shown."""
    if len(shown) == count:
        return list(range(count))
    rate = count / (sum(shown, Fraction(0)) or Fraction(1))
    starts = [round(start * rate) for start in itertools.accumulate(shown, initial=Fraction(0))][:-1]
    # a picture takes over at its start and stands until the next one's
    return [max(i for i, start in enumerate(starts) if start <= k) for k in range(count)]


def _durations(count: int, fps: Fraction, per_second: int, least: int = 1) -> list[int]:
    """How many ticks each frame is shown, `least` at the least."""
    starts = [round(i * per_second / fps) for i in range(count + 1)]
    return [max(b - a, least) for a, b in itertools.pairwise(starts)]


def _palette(frames: np.ndarray) -> tuple[Image.Image, bool]:
    """A palette for all frames, and whether it holds every colour."""
    seen = np.zeros(1 << 24, bool)
    for frame in frames:
        seen[frame.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)] = True
    colours = np.flatnonzero(seen)
    if len(colours) <= 256:
        palette = Image.new("P", (1, 1))
        palette.putpalette([int(c) >> shift & 255 for c in colours for shift in (16, 8, 0)])
        return palette, True
    # about a hundred thousand pixels speak for the clip
    step = max(1, round((frames.shape[0] * frames.shape[1] * frames.shape[2] / (1 << 17)) ** 0.5))
    sample = frames[:, ::step, ::step].reshape(1, -1, 3)
    return Image.fromarray(sample).quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1), False


def _exif(note: str) -> Image.Exif:
    exif = Image.Exif()
    exif[DESCRIPTION] = note
    return exif
