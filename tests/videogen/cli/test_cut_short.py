"""A full disk, a system without memory, Ctrl-C in the middle: one line, and nothing half written."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.videogen.cli.calls import Run, contents, error_line
from videogen.cli import app


def test_memory_that_the_system_refuses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.COMMANDS, "hungry", lambda: lambda: torch.empty(1 << 50))
    assert "out of memory" in error_line(run("hungry"))


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """The system refuses to let a file of this process grow beyond `size` bytes, as it does on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits that the system sets")
@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.gif", "clip.webp", "clip.png", "there.mp4"])
def test_writing_fails_in_the_middle(refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    (tmp_path / "there.mp4").write_bytes(b"precious")
    with no_file_longer_than(1000):
        assert "could not be written" in refused("-o", tmp_path / name, "--overwrite")


def private_mounts() -> bool:
    """Whether a process here may mount a small file system that nobody else sees."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not private_mounts(), reason="may not mount a small file system")
def test_a_full_disk(animated: Path, tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=8k tmpfs "$1" && cd "$1" && shift && "$@"; code=$?; ls -A >&2; exit $code'
    words = ["generate", "a red circle", "--model", animated, "--frames", "4", "--steps", "1", "--quiet", "-o", "a.gif"]
    command = ["unshare", "-rm", "sh", "-c", script, "sh", tmp_path, sys.executable, "-m", "videogen", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    (line,) = done.stderr.splitlines()  # and no file that `ls` would have named
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith("error: a.gif could not be written: No space left on device")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")
def test_control_c_while_sampling(animated: Path, tmp_path: Path) -> None:
    words = ["generate", "a red circle", "--model", animated, "--frames", "8", "--steps", "999", "-o", "clip.mp4"]
    command = [sys.executable, "-m", "videogen", *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        said = b""
        while not re.search(rb" [1-9]\d*/999 ", said):
            piece = child.stderr.read1(100)
            assert piece, said
            said += piece
        child.send_signal(signal.SIGINT)
        end = time.monotonic() + 60
        said += child.stderr.read()
        assert child.wait(timeout=end - time.monotonic()) == 130
        assert child.stdout.read() == b""
    *_, last = said.decode().splitlines()
    assert last == "error: interrupted"
    assert said.count(b"error:") == 1
    assert b"Traceback" not in said
    assert contents(tmp_path) == {}
