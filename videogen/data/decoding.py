"""Some frames of a video, by seeking: what lies before the last key frame is not decoded, pictures that no other needs are passed over.

The frame at an instant is the latest that has begun by then, so files of variable frame rate are read in true time. Packets are looked through before
they are decoded: their times tell which frames are wanted, where decoding ends, and whether a seek went far enough.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from videogen.data.fitting import Fit
from videogen.data.windows import Extent
from videogen.errors import InputError, reason
from videogen.files import address
from videogen.movie import SCALING, announced, matrix

FASTEST = 240  # frames a second; a header that tells more is not believed
COVER = 1 << 10  # FFmpeg's flag of a picture that belongs to a song
MOST = 10_000_000  # frames, more than a hundred hours
FAR = 10  # seconds, within which a key frame is likely
FEW = 2  # frames at the cut edges of a stream that cannot be decoded by themselves
WORTH = 6  # frames that cost about as much to decode as a seek
LATE = Fraction(1)  # seconds a stream may end before its header says


class Video:
    """An open container: how long it is, and its frames by number.

    `file` is a path or an open binary file. Raises InputError for what is no video, holds none (sound alone, a cover picture), or no frames.
    """

    def __init__(self, file: Any) -> None:
        place: Any = address(file) if isinstance(file, (str, Path)) else file
        try:
            self.container: Any = av.open(place, metadata_errors="ignore")
        except av.FFmpegError as problem:
            raise InputError(f"no video that can be read ({reason(problem)})") from problem
        try:
            streams = [stream for stream in self.container.streams.video if not _cover(stream)]
            if not streams:
                raise InputError("it has no video in it")
            self.stream: Any = streams[0]
            if self.stream.codec_context is None:
                raise InputError("its video is of a kind that cannot be decoded")
            self.stream.codec_context.thread_count = 1  # clips are decoded side by side, which costs less
            self.tick = Fraction(self.stream.time_base)
            first = [packet for packet, _ in zip(self.container.demux(self.stream), range(8)) if packet.size]
            # AVI stores no times of frames, and those that are made up for it are wrong with B-frames
            self.timed = all(packet.pts is not None for packet in first) and self.container.format.name != "avi"
            self.begin = (self.stream.start_time if self.timed else None) or 0
            self.bottom = min((t for packet in first for t in (packet.pts, packet.dts) if t is not None), default=0)
            self.extent = self._extent()
            if not 0 < self.extent.count <= MOST:
                raise InputError(f"its header says that it has {self.extent.count} frames")
        except av.FFmpegError as problem:
            self.container.close()
            raise InputError(f"broken: {reason(problem)}") from problem
        except BaseException:
            self.container.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def frames(self, numbers: Sequence[int], fit: Fit | None) -> np.ndarray:
        """The frames of these numbers, ascending, `f h w 3` uint8, turned as the rotation flag says; fitted, or as they are.

        Raises InputError where the file breaks off or is broken before the last of them.
        """
        try:
            found = _timed(self, self.ticks(numbers)) if self.timed else _untimed(self, numbers)
            pictures = {at: _pixels(frame, fit) for at, frame in found}
        except (av.FFmpegError, StopIteration) as problem:
            raise InputError(f"broken: {reason(problem)}") from problem
        shapes = {picture.shape for picture in pictures.values()}
        if len(shapes) != 1:
            raise InputError("its pictures change size" if shapes else "it has no frames")
        return np.stack([pictures[at] for at in range(len(numbers))])

    def ticks(self, numbers: Sequence[int]) -> list[int]:
        """The time that each number stands for, in ticks of the stream: the frame at a number is the latest that has begun by then."""
        slack = min(self.tick, Fraction(1, 4) / self.extent.rate)
        return [self.begin + int((number / self.extent.rate + slack) / self.tick) for number in numbers]

    def size(self) -> tuple[int, int]:
        """Width and height of the first frame as it is shown."""
        height, width = self.frames([0], None).shape[1:3]
        return width, height

    def rewind(self) -> None:
        """Go to the first packet."""
        self.container.seek(self.bottom, stream=self.stream)

    def _extent(self) -> Extent:
        stream = self.stream
        rate = Fraction(stream.average_rate or stream.guessed_rate or 0)
        believed = 0 < rate <= FASTEST
        if believed and stream.frames > 0 and stream.duration:
            return Extent(announced(stream, rate), rate)
        last, counted = _ending(self) if believed else _counted(self)
        if not believed:
            rate = (
                Fraction(counted - 1) / ((last - self.begin) * self.tick)
                if counted > 1 and last > self.begin
                else Fraction(25)
            )
        return Extent(round((last - self.begin) * self.tick * rate) + 1, rate)

    def whole(self, thorough: bool) -> None:
        """Look through all packets, and decode them where `thorough`.

        Raises InputError where they end more than a second before the header says, or one cannot be decoded.
        """
        try:
            last, counted = _counted(self)
            shown, faulty = _decodable(self) if thorough else (counted, 0)
        except av.FFmpegError as problem:
            raise InputError(f"broken: {reason(problem)}") from problem
        reached, told = (last - self.begin) * self.tick + 1 / self.extent.rate, self.extent.count / self.extent.rate
        if counted < self.extent.count and reached + LATE < told:
            raise InputError(f"it breaks off at {float(reached):.1f} of {float(told):.1f} s")
        if faulty or shown < counted - FEW:
            raise InputError(f"{max(faulty, counted - shown)} of {counted} frames are broken")


@dataclass(frozen=True)
class Stretch:
    """Packets from a key frame on, in the order of decoding, and at which of them (by pts) which of the wanted frames are."""

    packets: list[Any]
    wanted: dict[int, list[int]]


def _timed(video: Video, ticks: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """(place in `ticks`, frame) for every tick: the latest frame with pts <= tick."""
    done = 0
    while done < len(ticks):
        until = _together(video, ticks, done)
        stretch = _stretch(video, ticks, done, until)
        for frame in _decoded(video, stretch):
            if frame.is_corrupt and frame.pts in stretch.wanted:
                break
            for at in stretch.wanted.pop(frame.pts, ()):
                yield at, frame
        if stretch.wanted:
            raise InputError(f"broken at {float((min(stretch.wanted) - video.begin) * video.tick):.2f} s")
        done = until


def _together(video: Video, ticks: Sequence[int], first: int) -> int:
    """How far one stretch goes: up to a tick with a key frame (by the container's index) so far behind the one before that a seek is worth it."""
    keys = [entry.timestamp for entry in video.stream.index_entries if entry.is_keyframe]
    worth = int(WORTH / video.extent.rate / video.tick)
    for at in range(first + 1, len(ticks)):
        if len(keys) < 2 and ticks[at] - ticks[at - 1] > FAR / video.tick:  # no index, as in transport streams
            return at
        if bisect.bisect_right(keys, ticks[at]) > bisect.bisect_right(keys, ticks[at - 1] + worth):
            return at
    return len(ticks)


def _stretch(video: Video, ticks: Sequence[int], first: int, until: int) -> Stretch:
    """Seek to a key frame at or before the first tick, and collect packets until no later one can be at or before the last."""
    target, back = ticks[first], int(1 / video.tick)
    while True:
        packets, ended = _collected(video, target, ticks[until - 1])
        times = sorted(packet.pts for packet in packets if not packet.is_discard)
        if target <= video.bottom or (times and max(packets[0].pts, times[0]) <= ticks[first]):
            break
        # the seek goes by decoding times, in some containers to any packet: back further, at last to the start
        target, back = max(target - back, video.bottom), 2 * back
    if not times:
        raise InputError("it has no frames")
    wanted: dict[int, list[int]] = {}
    for at in range(first, until):
        place = bisect.bisect_right(times, ticks[at]) - 1
        wanted.setdefault(times[max(place, 0)], []).append(at)
    if ended:
        _check_end(video, times[-1], ticks[until - 1])
    return Stretch(packets, wanted)


def _collected(video: Video, target: int, last: int) -> tuple[list[Any], bool]:
    """Packets from the first key frame after a seek to `target` until one is decoded after `last`; and whether the file ended before."""
    video.container.seek(target, stream=video.stream, backward=True)
    packets: list[Any] = []
    for packet in video.container.demux(video.stream):
        if not packet.size or packet.pts is None or not (packets or packet.is_keyframe):
            continue
        if packet.dts is not None and packet.dts > last:
            return packets, False
        packets.append(packet)
    return packets, True


def _check_end(video: Video, reached: int, wanted: int) -> None:
    """A clip whose frames end well before an instant that its header promises is cut off: its last frame is not repeated in silence."""
    late = (wanted - reached) * video.tick
    if late > max(LATE / 4, 3 / video.extent.rate):
        told = video.extent.count / video.extent.rate
        raise InputError(f"it breaks off at {float((reached - video.begin) * video.tick):.1f} of {float(told):.1f} s")


def _decoded(video: Video, stretch: Stretch) -> Iterator[Any]:
    """The frames of a stretch, those that are not wanted only as far as others need them."""
    context = video.stream.codec_context
    context.flush_buffers()
    left = set(stretch.wanted)
    for packet in [*stretch.packets, None]:
        context.skip_frame = "DEFAULT" if packet is None or packet.pts in stretch.wanted else "NONREF"
        for frame in context.decode(packet):
            yield frame
            left.discard(frame.pts)
            if not left:
                return


def _untimed(video: Video, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """(place in `numbers`, frame), counted from the start."""
    places: dict[int, list[int]] = {}
    for at, number in enumerate(numbers):
        places.setdefault(number, []).append(at)
    video.rewind()
    video.stream.codec_context.skip_frame = "DEFAULT"
    count = 0
    for count, frame in enumerate(video.container.decode(video.stream), 1):
        for at in places.pop(count - 1, ()):
            yield at, frame
        if not places:
            return
    raise InputError(f"it breaks off after {count} of {video.extent.count} frames")


def _counted(video: Video) -> tuple[int, int]:
    """The last packet's pts and how many there are, without those that an edit list cuts away; the whole file is read, nothing decoded."""
    video.rewind()
    return _last(video)


def _decodable(video: Video) -> tuple[int, int]:
    """How many frames can be decoded, and how many of those have a fault."""
    video.rewind()
    video.stream.codec_context.skip_frame = "DEFAULT"
    count, faulty = 0, 0
    for frame in video.container.decode(video.stream):
        count += 1
        faulty += bool(frame.is_corrupt)
    return count, faulty


def _ending(video: Video) -> tuple[int, int]:
    """The last packet's pts, from the last key frame on."""
    length = video.container.duration
    if not length:
        return _counted(video)
    try:
        video.container.seek(
            video.begin + int((Fraction(length, av.time_base) - 1) / video.tick), stream=video.stream, backward=True
        )
    except av.FFmpegError:
        return _counted(video)
    last, count = _last(video, minimum=0)
    return (last, count) if count else _counted(video)


def _last(video: Video, minimum: int = 1) -> tuple[int, int]:
    last, count = video.begin, 0
    for packet in video.container.demux(video.stream):
        if packet.size and not packet.is_discard:
            at = packet.pts if packet.pts is not None else packet.dts
            # without times frames are counted at the header's rate
            last = (
                max(last, at)
                if at is not None
                else video.begin + int(count / (video.stream.guessed_rate or 25) / video.tick)
            )
            count += 1
    if count < minimum:
        raise InputError("it has no frames")
    return last, count


def _pixels(frame: Any, fit: Fit | None) -> np.ndarray:
    """A frame upright, scaled while its colours are converted, cut to the wanted part: `h w 3` uint8."""
    if frame.rotation % 90:
        raise InputError(f"it is turned by {frame.rotation} degrees; only quarter turns can be read")
    turned = bool(frame.rotation % 180)
    width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    if fit is not None:
        width, height = fit.scaled(width, height)
    size = {"width": height, "height": width} if turned else {"width": width, "height": height}
    rgb = frame.reformat(**size, format="rgb24", src_colorspace=matrix(frame), interpolation=SCALING).to_ndarray()
    upright = np.rot90(rgb, round(frame.rotation / 90)) if frame.rotation else rgb
    if fit is None:
        return upright
    left, top = fit.corner(width, height)
    return upright[top : top + fit.height, left : left + fit.width]


def _cover(stream: Any) -> bool:
    return bool(int(stream.disposition) & COVER)
