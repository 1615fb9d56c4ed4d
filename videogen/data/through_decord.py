"""Frames through decord, where it is installed: the same frames of a video, by its own decoder; colours differ by rounding."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from videogen.data.decoding import Video
from videogen.data.fitting import Fit, fitted
from videogen.errors import InputError, reason


def installed() -> Any:
    """The library. Raises InputError where it is not installed."""
    try:
        import decord
    except ImportError as problem:
        raise InputError("reader: decord is not installed (pip install decord); use reader: pyav") from problem
    return decord


class DecordVideo:
    """An open video. How long it is, and when each of its frames is shown, is read as `Video` does, so that frame numbers mean the same.

    Raises InputError where decord cannot read the file, and for videos of which it would show other frames: rotated ones, which would lie, those of
    which an edit list cuts some away, those without times of frames, MPEG-TS with B-frames, and those with open groups of pictures.
    """

    def __init__(self, file: Any) -> None:
        decord = installed()
        self.video = Video(file)
        try:
            self.extent = self.video.extent
            width, height = self.video.size()
            if (width, height) != (self.video.stream.width, self.video.stream.height):
                raise InputError("it has a rotation flag, which decord passes over; use reader: pyav")
            self.video.whole(thorough=False)  # decord may wait for ever in a file that is cut
            self.times = _times(self.video)
        finally:
            self.video.close()
        if not isinstance(file, str):
            file.seek(0)
        try:
            self.reader = decord.VideoReader(file, num_threads=1)
            found = self.reader.get_frame_timestamp(range(len(self.reader)))[:, 0].astype(np.float64)
        except (decord.DECORDError, RuntimeError) as problem:
            raise InputError(f"decord cannot read it ({reason(problem)})") from problem
        if not self._same(found):
            raise InputError("decord takes its frames to be shown at other times; use reader: pyav")

    def frames(self, numbers: Sequence[int], fit: Fit | None) -> np.ndarray:
        """See `Opened.frames`."""
        try:
            pictures = self.reader.get_batch(self._places(numbers)).asnumpy()
        except Exception as problem:  # its errors are of a class that is no part of its interface
            raise InputError(f"decord cannot read it ({reason(problem)})") from problem
        return np.stack([fitted(Image.fromarray(picture), fit) for picture in pictures])

    def size(self) -> tuple[int, int]:
        """See `Opened.size`."""
        height, width = self.reader[0].shape[:2]
        return width, height

    def whole(self, thorough: bool) -> None:
        """Looked after when it was opened."""

    def _same(self, found: np.ndarray) -> bool:
        """Whether decord's times of the frames, in seconds, are the file's but for rounding: it makes some up for AVI files with B-frames."""
        found, times = found[: len(self.times)], np.array(self.times, np.float64) * float(self.video.tick)
        if not 0 < len(found) == len(times):
            return False
        apart = np.abs((found - found[0]) - (times - times[0]))  # it counts from elsewhere in some containers
        return bool(apart.max() * float(self.extent.rate) < 0.5)

    def _places(self, numbers: Sequence[int]) -> list[int]:
        """Which frames these are, counted as they are shown."""
        if not self.video.timed:
            return list(numbers)
        return [max(bisect.bisect_right(self.times, tick) - 1, 0) for tick in self.video.ticks(numbers)]


def _times(video: Video) -> list[int]:
    """When each frame is shown, in ticks, ascending. Raises InputError where an edit list cuts frames away before them, and for what decord
    mistakes by the order in which frames are stored.
    """
    video.rewind()
    stored = [packet for packet in video.container.demux(video.stream) if packet.size and packet.pts is not None]
    key = None
    for packet in stored:
        # It counts the frames behind a key frame, also those that are shown before it.
        if key is not None and key.pts > packet.pts and key is not stored[0]:
            raise InputError("frames behind a key frame are shown before it, which decord mistakes; use reader: pyav")
        key = packet if packet.is_keyframe else key
    if "mpegts" in video.container.format.name and any(packet.pts != packet.dts for packet in stored):
        raise InputError("it is MPEG-TS with B-frames, which decord mistakes; use reader: pyav")
    found = sorted((packet.pts, packet.is_discard) for packet in stored)
    times = [at for at, cut in found if not cut]
    # after the last frame that is shown, as FFmpeg itself writes them where times vary, they shift no numbers
    if any(cut for _, cut in found[: len(times)]):
        raise InputError("an edit list cuts some of its frames away, which decord counts; use reader: pyav")
    return times
