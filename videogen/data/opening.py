"""Clips opened where they are, whatever they are: videos, moving pictures, stills, folders of frames; files or parts of a shard."""

from __future__ import annotations

import bisect
import contextlib
import errno
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import av
import numpy as np
from PIL import Image, ImageOps, ImageSequence

from videogen.clip import rgb
from videogen.data.decoding import Video
from videogen.data.fitting import Fit, fitted
from videogen.data.rows import MOVING, STILLS, File, Member, Place, content
from videogen.data.windows import Extent
from videogen.errors import InputError, reason
from videogen.pictures import UNREADABLE

PICTURE = Extent(1, Fraction(1))

Reader = Literal["pyav", "decord"]

OF_THE_MACHINE = frozenset(
    {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}
)
SAID_OF_FILES = frozenset({errno.EIO, errno.ENOMEM})  # by FFmpeg, of broken ones too


class Unread(InputError):
    """A clip could not be read for a reason that says nothing about it: a disk that fails, too many open files, no memory."""


class Opened(Protocol):
    """An open clip."""

    extent: Extent

    def frames(self, numbers: Sequence[int], fit: Fit | None) -> np.ndarray:
        """Frames by ascending numbers, `f h w 3` uint8, upright, fitted where a fit is given. Raises InputError where they cannot be read."""

    def size(self) -> tuple[int, int]:
        """Width and height, upright."""

    def whole(self, thorough: bool) -> None:
        """Read all of it, and decode it where `thorough`. Raises InputError where it ends before its header says, or is broken."""


@contextlib.contextmanager
def opened(place: Place, reader: Reader = "pyav") -> Iterator[Opened]:
    """The clip at a place. Raises InputError, without the place's name, for what is not there, empty or no clip; and while it is read.

    It is `Unread` where the machine is at fault.
    """
    with contextlib.ExitStack() as stack:
        try:
            yield _opened(place, reader, stack)
        except FileNotFoundError as problem:
            raise InputError("there is no file") from problem
        except InputError as problem:
            if _of_the_machine(problem.__cause__, place):
                raise Unread(str(problem)) from problem
            raise
        except (
            OSError,
            EOFError,
            OverflowError,
            MemoryError,
        ) as problem:  # a disk that fails, sizes that no machine has
            if _of_the_machine(problem, place):
                raise Unread(f"it cannot be read ({reason(problem)})") from problem
            raise InputError(f"broken: {reason(problem)}") from problem


def _of_the_machine(problem: BaseException | None, place: Place) -> bool:
    """Whether an error says nothing about the clip."""
    if isinstance(problem, av.FFmpegError) and problem.errno in SAID_OF_FILES:
        try:
            content(place)
        except InputError:
            return True
        return False
    return isinstance(problem, MemoryError) or (isinstance(problem, OSError) and problem.errno in OF_THE_MACHINE)


def _opened(place: Place, reader: Reader, stack: contextlib.ExitStack) -> Opened:
    if not isinstance(place, File | Member):
        return Pictures([Path(path) for path in place.paths], Fraction(place.rate))
    file: Any
    if isinstance(place, Member):
        name, size, file = place.name, place.size, Part(place.shard, place.offset, place.size)
        stack.callback(file.close)
    else:
        name, size, file = place.path, os.stat(place.path).st_size, place.path
    if size == 0:
        raise InputError("the file is empty")
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in STILLS:
        return Pictures([file], Fraction(1))
    if suffix in MOVING:
        return Moving(file)
    if reader == "decord":
        from videogen.data.through_decord import DecordVideo

        return DecordVideo(file)
    return stack.enter_context(contextlib.closing(Video(file)))


def check_reader(reader: Reader) -> None:
    """Raises InputError for a reader that is not installed."""
    if reader == "decord":
        from videogen.data import through_decord

        through_decord.installed()


class Part(io.RawIOBase):
    """Bytes [offset, offset + size) of a file, as a file of their own."""

    def __init__(self, path: str, offset: int, size: int) -> None:
        self.file = io.FileIO(path)
        self.offset, self.size = offset, size
        self.at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position in the part."""
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position in the part."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        self.at = max(0, start + offset)
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Read what is there."""
        self.file.seek(self.offset + self.at)
        piece = self.file.read(max(0, min(len(buffer), self.size - self.at)))
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()


class Pictures:
    """One picture, or a folder of them; files are opened when their frame is asked for."""

    def __init__(self, files: Sequence[Any], rate: Fraction) -> None:
        self.files = files
        self.extent = PICTURE if len(files) == 1 else Extent(len(files), rate)

    def frames(self, numbers: Sequence[int], fit: Fit | None) -> np.ndarray:
        """See `Opened.frames`."""
        return _stacked({n: fitted(_still(self.files[n]), fit) for n in set(numbers)}, numbers)

    def size(self) -> tuple[int, int]:
        """See `Opened.size`."""
        return _still(self.files[0]).size

    def whole(self, thorough: bool) -> None:
        """See `Opened.whole`."""
        for file in self.files if thorough else self.files[:1]:
            _still(file)


class Moving:
    """A gif or webp; a picture is shown as long as the file says, a tenth of a second where it says nothing."""

    def __init__(self, file: Any) -> None:
        self.pictures, shown = _moving(file)
        times = [seconds or Fraction(1, 10) for seconds in shown]
        self.starts = list(itertools.accumulate(times, initial=Fraction(0)))[:-1]
        self.extent = PICTURE if len(times) == 1 else Extent(len(times), len(times) / sum(times, Fraction(0)))

    def frames(self, numbers: Sequence[int], fit: Fit | None) -> np.ndarray:
        """See `Opened.frames`."""
        shown = {n: bisect.bisect_right(self.starts, n / self.extent.rate) - 1 for n in set(numbers)}
        return _stacked({n: fitted(self.pictures[shown[n]], fit) for n in shown}, numbers)

    def size(self) -> tuple[int, int]:
        """See `Opened.size`."""
        return self.pictures[0].size

    def whole(self, thorough: bool) -> None:
        """All of it has been read."""


def _still(file: Any) -> Image.Image:
    try:
        with Image.open(file) as picture:
            return Image.fromarray(rgb(ImageOps.exif_transpose(picture)))
    except UNREADABLE as problem:
        raise InputError(f"no picture that can be read ({reason(problem)})") from problem


def _moving(file: Any) -> tuple[list[Image.Image], list[Fraction]]:
    try:
        with Image.open(file) as picture:
            pictures, shown = [], []
            for frame in ImageSequence.Iterator(picture):
                pictures.append(Image.fromarray(rgb(ImageOps.exif_transpose(frame))))  # decoding sets the duration
                shown.append(Fraction(round(frame.info.get("duration", 0)), 1000))
            return pictures, shown
    except UNREADABLE as problem:
        raise InputError(f"no picture that can be read ({reason(problem)})") from problem


def _stacked(pictures: dict[int, np.ndarray], numbers: Sequence[int]) -> np.ndarray:
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise InputError("its pictures change size")
    return np.stack([pictures[n] for n in numbers])
