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
    """An open video. How long it is, is read as `Video` does, so that frame numbers mean the same.

    Raises InputError where decord cannot read the file, and for rotated videos, which it would show lying.
    """

    def __init__(self, file: Any) -> None:
        decord = installed()
        video = Video(file)
        try:
            self.extent = video.extent
            width, height = video.size()
            if (width, height) != (video.stream.width, video.stream.height):
                raise InputError("it has a rotation flag, which decord passes over; use reader: pyav")
            video.whole(thorough=False)  # decord may wait for ever in a file that is cut
        finally:
            video.close()
        if not isinstance(file, str):
            file.seek(0)
        try:
            self.reader = decord.VideoReader(file, num_threads=1)
            stamps = self.reader.get_frame_timestamp(range(len(self.reader)))[:, 0]
        except (decord.DECORDError, RuntimeError) as problem:
            raise InputError(f"decord cannot read it ({reason(problem)})") from problem
        self.starts = (stamps - stamps[0]).tolist()

    def frames(self, numbers: Sequence[int], fit: Fit | None) -> np.ndarray:
        """See `Opened.frames`."""
        slack = 0.25 / float(self.extent.rate)
        places = [bisect.bisect_right(self.starts, float(n / self.extent.rate) + slack) - 1 for n in numbers]
        try:
            pictures = self.reader.get_batch(places).asnumpy()
        except Exception as problem:  # its errors are of a class that is no part of its interface
            raise InputError(f"decord cannot read it ({reason(problem)})") from problem
        return np.stack([fitted(Image.fromarray(picture), fit) for picture in pictures])

    def size(self) -> tuple[int, int]:
        """See `Opened.size`."""
        height, width = self.reader[0].shape[:2]
        return width, height

    def whole(self, thorough: bool) -> None:
        """Looked after when it was opened."""
