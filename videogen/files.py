"""Output that appears whole or not at all, and what FFmpeg is told of a file."""

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from videogen.errors import InputError

BEFORE = ".before"
"""The name, beside what was written, of the folder whose place it is about to take."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place, on any failure (Ctrl-C too) it is removed.

    What is written may be a file or a folder. The temporary name keeps the suffix, which some writers look at. Every file may at least be
    read and written by whom the umask lets, as any that `open` makes: safetensors makes its own for their owner alone.
    Raises InputError where the folder is missing or cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist; create it first")
    try:
        holder = Path(tempfile.mkdtemp(prefix=f".{target.stem}-", dir=target.parent))
    except OSError as problem:
        raise InputError(f"cannot write into {target.parent}: {problem.strerror}") from problem
    try:
        beside = holder / target.name
        beside.touch()
        usual = beside.stat().st_mode
        beside.unlink()
        yield beside
        _widen(beside, usual)
        if beside.is_dir() and target.is_dir():
            _exchange(beside, target, holder / BEFORE)
        else:
            os.replace(beside, target)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _exchange(beside: Path, target: Path, before: Path) -> None:
    """Put a folder in another's place, which becomes `before`: only names change, so that at no moment either is in parts.

    A process that is killed between the two changes leaves both whole, and neither under the name.
    """
    try:
        os.replace(target, before)
        os.replace(beside, target)
    except BaseException:  # Ctrl-C between the two as well
        if before.exists() and not target.exists():
            os.replace(before, target)
        raise


def _widen(written: Path, usual: int) -> None:
    """Let files be read and written by those whom the mode `usual` lets, beside those whom their writers let."""
    inside = [Path(folder) / name for folder, _, names in os.walk(written) for name in names]
    for file in (written, *inside):
        mode = file.lstat().st_mode if file.exists() else 0
        if stat.S_ISREG(mode) and mode | usual != mode:
            with contextlib.suppress(OSError):  # a file system without modes
                file.chmod(stat.S_IMODE(mode | usual))


def address(path: str | Path) -> str:
    """What FFmpeg is told of a file: in a relative path it takes the `12:` of `12:30.mp4` for a protocol."""
    return str(Path(path).absolute())


def natural(path: Path) -> tuple[list[int | str], str]:
    """Sorts `frame_2.png` before `frame_10.png`; words and numbers take turns in a name, so that like is compared with like."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", path.name))], path.name
