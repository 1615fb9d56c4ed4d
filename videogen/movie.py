"""Video containers through PyAV: H.264 in mp4, mov and mkv, VP9 in webm; decoding of whatever FFmpeg knows.

4:2:0 needs even sizes: an odd picture is continued by its last row or column, and its true size goes into the note.
Colours are BT.709 and say so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from videogen.clip import Audio
from videogen.errors import InputError, reason
from videogen.files import address
from videogen.sound import Sound

# The number of encoder threads is fixed: x264's result depends on it, and a clip shall come out the same on every machine.
THREADS = "2"
H264 = ("libx264", {"crf": "18", "preset": "medium", "threads": THREADS})
# Of smaller pictures, with its macroblock tree, x264 now and then writes other bytes for the same frames (1 to 4 % of runs at 16 and 32 pixels).
SMALL = 128
VP9 = ("libvpx-vp9", {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "2", "threads": THREADS})
# suffix -> FFmpeg's container, (codec, its options), the container's options
CONTAINERS: dict[str, tuple[str, tuple[str, dict[str, str]], dict[str, str]]] = {
    ".mp4": ("mp4", H264, {"movflags": "+faststart"}),
    ".m4v": ("mp4", H264, {"movflags": "+faststart"}),
    # QuickTime's own comment ends at 64 KiB, which a recipe with a long prompt map exceeds; its free tags do not
    ".mov": ("mov", H264, {"movflags": "+faststart+use_metadata_tags"}),
    ".mkv": ("matroska", H264, {}),
    ".webm": ("webm", VP9, {}),
}
BT709 = 1
LIMITED = 1
SMPTE170M = 6
EARLY = Fraction(1, 2)  # seconds before its announced end at which a clip has been cut
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def write_movie(path: Path, frames: np.ndarray, fps: Fraction, note: str, audio: Audio | None) -> None:
    """Encode frames `f h w 3` uint8 at exactly `fps`; `note` becomes the container's comment, sound is taken along."""
    height, width = frames.shape[1:3]
    with Encoder(path, (height, width), fps, note, audio, len(frames) / fps) as encoder:
        for pixels in frames:
            encoder.add(pixels)


class Encoder:
    """A container that is written frame by frame, in memory that does not grow with the clip.

    size     height and width of the frames
    seconds  how long the clip will be, which is how much of the sound is taken along
    aspect   how many times as wide as high a pixel is shown; webm cannot say it

    Leaving the `with` block without an error completes the file.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: Fraction,
        note: str,
        audio: Audio | None,
        seconds: Fraction,
        aspect: Fraction = Fraction(1),
    ) -> None:
        format_, (codec, codec_options), options = CONTAINERS[path.suffix.lower()]
        self.fps, self.count = fps, 0
        self.output: Any = av.open(address(path), "w", format=format_, options=options)
        self.sound: Sound | None = None
        try:
            self.output.metadata["comment"] = note
            height, width = size
            if codec == "libx264" and min(size) < SMALL:
                codec_options = {**codec_options, "mbtree": "0"}
            stream: Any = self.output.add_stream(codec, rate=fps, options=codec_options)
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = "yuv420p"
            self.stream, context = stream, stream.codec_context
            context.time_base = 1 / fps
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED
            if aspect != 1:
                context.sample_aspect_ratio = aspect
            self.sound = None if audio is None else Sound(audio, self.output, seconds)
        except BaseException:
            self.output.close()
            raise

    def add(self, pixels: np.ndarray) -> None:
        """The next frame, `h w 3` uint8."""
        self._mux(self.stream.encode(_frame(pixels, self.count, self.fps)))
        if self.sound is not None:
            self._mux(self.sound.packets(self.count / self.fps))
        self.count += 1

    def finish(self) -> None:
        """What the codecs still hold, and the rest of the sound."""
        self._mux(self.stream.encode(None))
        self._mux(self.sound.packets() if self.sound is not None else ())

    def close(self) -> None:
        """Close the files; a container's last part is written here."""
        try:
            self.output.close()
        finally:
            if self.sound is not None:
                self.sound.close()

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            self.output.mux(packet)

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()


def read_note(path: Path) -> str | None:
    """The comment in a container's metadata. Raises InputError for what is no video."""
    with _opened(path) as container:
        return _note(container)


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a pass over a whole file found.

    count      how many frames can be decoded, `announced` how many the header says (0: nothing)
    size       height and width in pixels, turned as they are shown
    aspect     how many times as wide as high a pixel is shown
    begin      the time of the first frame, in seconds of the file
    note       the comment in the metadata
    """

    count: int
    size: tuple[int, int]
    aspect: Fraction
    fps: Fraction
    begin: Fraction
    note: str | None
    sound: bool
    announced: int


def survey(path: Path) -> Survey:
    """Decode a file once, keeping nothing.

    Raises InputError for what is no video, has no picture, no frames or pictures of several sizes, breaks off, or is turned by no quarter turn;
    warns where frame times vary, and where the clip ends before the length that its header announces.
    """
    with _opened(path) as container:
        if not container.streams.video:
            raise InputError(f"{path} has no video in it")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        nominal = Fraction(stream.average_rate or stream.guessed_rate or 25)
        times: list[Fraction] = []
        shown: set[tuple[int, int]] = set()
        for frame in container.decode(stream):
            times.append(len(times) / nominal if frame.pts is None else frame.pts * frame.time_base)
            if frame.rotation % 90:
                raise InputError(f"{path} is turned by {frame.rotation} degrees; only quarter turns can be read")
            turned = bool(frame.rotation % 180)
            shown.add((frame.width, frame.height) if turned else (frame.height, frame.width))
        if len(shown) > 1:
            told = " and ".join(f"{width} x {height}" for height, width in sorted(shown)[:2])
            raise InputError(f"the pictures of {path} change size ({told}); convert it to one size first")
        if not shown:
            raise InputError(f"{path} has no frames")
        _tell_early_end(path, container, times[-1] - times[0] + 1 / nominal)
        _tell_varying(path, times, nominal)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        return Survey(
            len(times), shown.pop(), 1 / aspect if turned else aspect, nominal, times[0], _note(container),
            bool(container.streams.audio), announced(stream, nominal),
        )  # fmt: skip


def announced(stream: Any, fps: Fraction) -> int:
    """How many frames of a stream the header says, 0 where it says nothing.

    It counts those too that an edit list cuts away, which are not in the duration, whose end may be late by a rounded millisecond.
    """
    if not stream.frames or not stream.duration:
        return int(stream.frames)
    shown = math.ceil(stream.duration * Fraction(stream.time_base) * fps - Fraction(1, 4))
    return min(int(stream.frames), max(1, shown))


def decoded(path: Path) -> Iterator[np.ndarray]:
    """The frames of a file one by one, `h w 3` uint8, as they are shown."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield from map(_pixels, container.decode(stream))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with av.open(address(path)) as container:
            yield container
    except av.FFmpegError as problem:
        if path.is_file() and not path.stat().st_size:
            raise InputError(f"{path} is empty") from problem
        raise InputError(f"{path} is no video that can be read ({reason(problem)})") from problem


def _note(container: Any) -> str | None:
    return {key.lower(): value for key, value in container.metadata.items()}.get("comment")


def _tell_early_end(path: Path, container: Any, reached: Fraction) -> None:
    """Where no number of frames is announced, a length may be: a cut file decodes up to the cut without an error."""
    if container.streams.video[0].frames or container.streams.audio or container.duration is None:
        return  # sound may outlast the picture
    told = Fraction(container.duration, av.time_base)
    if reached + EARLY < told:
        warnings.warn(
            f"{path} announces {float(told):.1f} s, {float(reached):.1f} s can be decoded",
            stacklevel=4,
        )


def _tell_varying(path: Path, times: list[Fraction], nominal: Fraction) -> None:
    gaps = [b - a for a, b in itertools.pairwise(times)]
    if gaps and max(gaps) - min(gaps) > max(Fraction(1, 4) / nominal, Fraction(1, 400)):
        warnings.warn(
            f"{path}: frame times vary ({float(min(gaps)):.3f} to {float(max(gaps)):.3f} s); they are taken as even at "
            f"{float(nominal):.3f} frames per second; convert the clip to an even rate first if that is wrong",
            stacklevel=4,
        )


def matrix(frame: Any) -> Colorspace:
    """How a frame's colours were made of red, green and blue; BT.709 where it does not say, or says what is not known here."""
    said = int(frame.colorspace)
    if said == SMPTE170M:  # BT.601 under a number of its own, which swscale does not have
        return Colorspace.ITU601
    return Colorspace(said) if said in set(map(int, Colorspace)) else Colorspace.ITU709


def _pixels(frame: Any) -> np.ndarray:
    rgb = frame.reformat(format="rgb24", src_colorspace=matrix(frame), interpolation=SCALING).to_ndarray()
    return np.rot90(rgb, round(frame.rotation / 90)) if frame.rotation else rgb


def _frame(pixels: np.ndarray, i: int, fps: Fraction) -> Any:
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=SCALING)
    frame.pts, frame.time_base = i, 1 / fps
    return frame
