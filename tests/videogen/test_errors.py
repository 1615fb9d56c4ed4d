"""What another library's error says, quoted."""

import errno
import os

import av
import pytest

from videogen.errors import reason


def test_a_reason_is_one_line_without_numbers_of_the_system() -> None:
    assert reason(ValueError("\n  first \nsecond")) == "first"
    assert reason(KeyError()) == "KeyError"
    assert reason(OSError(errno.ENOENT, os.strerror(errno.ENOENT), "x")) == os.strerror(errno.ENOENT)
    with pytest.raises(av.FFmpegError) as caught:
        av.open("nowhere.mp4")
    assert "[Errno" in str(caught.value)
    assert reason(caught.value) == os.strerror(errno.ENOENT)
