"""What another library's error says, quoted; what a script ends with."""

import errno
import os

import av
import pytest

from videogen.errors import InputError, exit_code, reason


def test_a_reason_is_one_line_without_numbers_of_the_system() -> None:
    assert reason(ValueError("\n  first \nsecond")) == "first"
    assert reason(KeyError()) == "KeyError"
    assert reason(OSError(errno.ENOENT, os.strerror(errno.ENOENT), "x")) == os.strerror(errno.ENOENT)
    with pytest.raises(av.FFmpegError) as caught:
        av.open("nowhere.mp4")
    assert "[Errno" in str(caught.value)
    assert reason(caught.value) == os.strerror(errno.ENOENT)


def test_a_script_ends_with_its_own_code_or_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def refusing() -> None:
        raise InputError("no such file; give another")

    assert [exit_code(script) for script in (lambda: None, lambda: 1, refusing)] == [0, 1, 2]
    assert capsys.readouterr() == ("", "error: no such file; give another\n")
