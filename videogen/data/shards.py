"""Tar shards in webdataset's naming: neighbouring members of one key, `key.mp4` and `key.txt` or `key.json`, are one row.

A shard is read once from front to back over its headers and captions; nothing is unpacked. A row keeps where its clip's bytes lie, so a clip is
later read in its place, and the order of training needs no shuffle buffer.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from videogen.data import captions
from videogen.data.rows import CLIPS, VIDEOS, Member, Rejected, Row, inside
from videogen.data.settings import Shards
from videogen.errors import InputError, reason

TEXT = 1 << 20  # bytes; no caption is longer
THREADS = 8  # shards whose headers are read at once
MANY = 1_000_000  # names that braces may stand for


def read(source: Shards) -> Iterator[Row | Rejected]:
    """The rows of all shards, in their order. Raises InputError for a shard that is missing or no plain tar file, before any row."""
    names = [name for pattern in source.shards for name in expanded(pattern)]
    lost = [name for name in names if not Path(name).is_file()]
    if lost:
        raise InputError(f"{len(lost)} of {len(names)} shards are not there, the first is {lost[0]}")
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(names), THREADS):  # not all at once: their rows would lie in memory uncompressed
            for rows in threads.map(lambda name: list(read_shard(Path(name), source)), names[start : start + THREADS]):
                yield from rows


def expanded(pattern: str) -> list[str]:
    """Braces as a shell expands them: `{000..012}` counts with leading zeros, `{a,b}` lists. Raises InputError for what stands for too many names."""
    names = [""]
    for part in re.split(r"(\{[^{}]*\})", pattern):
        choices = _choices(part)
        if len(names) * len(choices) > MANY:
            raise InputError(f"{pattern} stands for more than {MANY:,} shards")
        names = [name + choice for name in names for choice in choices]
    return names


def _choices(part: str) -> list[str]:
    if counted := re.fullmatch(r"\{(\d+)\.\.(\d+)\}", part):
        first, last = int(counted[1]), int(counted[2])
        if abs(last - first) >= MANY:
            raise InputError(f"{part} stands for more than {MANY:,} shards")
        step = 1 if last >= first else -1
        width = max(len(counted[1]), len(counted[2])) if "0" in (counted[1][0], counted[2][0]) else 0
        return [f"{number:0{width}}" for number in range(first, last + step, step)]
    return part[1:-1].split(",") if part.startswith("{") and "," in part else [part]


def read_shard(path: Path, source: Shards) -> Iterator[Row | Rejected]:
    """The rows of one shard. One that breaks off gives what lies whole before the cut, and says so."""
    shard = path.as_posix()  # with its folder: shards of several folders have the same names
    key: str | None = None
    clip: list[Member] = []
    found: list[str] = []
    wrong: str | None = None
    for member in _members(path):
        if isinstance(member, Rejected):
            # the last row may miss its other half, so it is not taken for one without caption
            if key is not None and clip and found:
                yield _row(source, key, clip, found, wrong)
            yield member
            return
        info, text = member
        name = inside(info.name)
        if name is not None and name.name.startswith("."):
            continue  # what a Mac knows of its files lies beside them, `._a.mp4` beside `a.mp4`
        if name is None or not info.isreg():
            what = "its name leads out of the shard" if name is None else "no file but a link or a device"
            yield Rejected(f"{shard}/{info.name[:120]}", what)
            continue
        stem, suffix = _split(name)
        if f"{shard}/{stem}" != key:
            if key is not None:
                yield _row(source, key, clip, found, wrong)
            key, clip, found, wrong = f"{shard}/{stem}", [], [], None
        if suffix in CLIPS:
            clip.append(Member(str(path), info.offset_data, info.size, info.name))
        elif suffix in (".txt", ".json"):
            try:
                found += _told(text, suffix, source)
            except (ValueError, RecursionError) as problem:
                wrong = f"{info.name}: {reason(problem)}"
    if key is not None:
        yield _row(source, key, clip, found, wrong)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes | None] | Rejected]:
    """Each member that is no folder, with its bytes where it is a short text; at last what is wrong with the shard."""
    count = 0
    try:
        with tarfile.open(path, "r:") as tar:
            size = path.stat().st_size
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # a shard's list of members would stay in memory
                if info.isdir():
                    continue
                if info.isreg() and info.offset_data + info.size > size:
                    yield Rejected(path.as_posix(), f"the shard breaks off in {info.name}, after {count} members")
                    return
                short = info.isreg() and info.name.lower().endswith((".txt", ".json")) and info.size <= TEXT
                file = tar.extractfile(info) if short else None
                yield info, file.read() if file else None
                count += 1
            # the library takes a header that is cut or garbled for the end, which is a block of zeros
            end = tar.offset
        with path.open("rb") as plain:
            plain.seek(end)
            if plain.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                yield Rejected(path.as_posix(), f"the shard breaks off after {count} members (it has no end)")
    except (tarfile.TarError, OSError, EOFError, ValueError) as problem:
        if count == 0:
            raise InputError(
                f"{path} is no tar file that can be read ({reason(problem)}); compressed shards are unpacked first"
            ) from problem
        yield Rejected(path.as_posix(), f"the shard breaks off after {count} members ({reason(problem)})")


def _split(name: PurePosixPath) -> tuple[str, str]:
    """webdataset's key, up to the first dot of the last part, and what follows its last dot, in small letters."""
    stem = name.name.split(".", 1)[0]
    return (name.parent / stem).as_posix(), name.suffix.lower()


def _told(text: bytes | None, suffix: str, source: Shards) -> list[str]:
    if text is None:
        raise ValueError("a caption of more than a megabyte")
    decoded = text.decode("utf-8-sig")
    return [decoded] if suffix == ".txt" else captions.from_json(decoded, source.caption)


def _row(source: Shards, key: str, clip: list[Member], found: list[str], wrong: str | None) -> Row | Rejected:
    films = [member for member in clip if PurePosixPath(member.name).suffix.lower() in VIDEOS]
    clip = films if len(films) == 1 else clip  # what else there is are its thumbnails
    if wrong or len(clip) != 1:
        return Rejected(key, wrong or ("no clip beside the caption" if not clip else f"{len(clip)} clips of one key"))
    told = captions.settled(found, source.prompt)
    return Row(key, clip[0], told) if told else Rejected(key, "no caption")
