"""What is the machine's fault is told, and never remembered as a clip's: a disk, open files, a reader that is not installed, Ctrl-C."""

import errno
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.videogen.data.films import film, picture, shard
from tests.videogen.data.test_cache import Toy
from videogen.data import opening
from videogen.data.cache import Filled, fill
from videogen.data.cached import CachedClips
from videogen.data.check import check
from videogen.data.clips import Clips
from videogen.data.facts import FILE, look, surveyed
from videogen.data.listing import all_listed
from videogen.data.opening import Part, Unread, opened
from videogen.data.rows import File, Row
from videogen.data.settings import Data
from videogen.errors import InputError


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A shard of three films, one of them of other bytes than a film's."""
    film(tmp_path / "a.mp4", 20)
    film(tmp_path / "b.mp4", 24)
    clips = {"a": (tmp_path / "a.mp4").read_bytes(), "b": (tmp_path / "b.mp4").read_bytes(), "c": b"no film"}
    members = {f"{name}.{suffix}": clip if suffix == "mp4" else b"a film" for name, clip in clips.items() for suffix in ("mp4", "txt")}  # fmt: skip
    return shard(tmp_path / "0.tar", members)


def data(films: Path, **values: Any) -> Data:
    small = {
        "sources": [{"layout": "shards", "shards": str(films)}], "frames": 4, "size": "32x32", "batch_size": 2, "flip": False,
        "store": str(films.parent / "store"), "cache": {"folder": str(films.parent / "cache")}, "broken": 1.0,
    }  # fmt: skip
    return Data.model_validate(small | values)


@pytest.fixture
def bad_sectors(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Members of these sizes lie where the disk cannot be read."""
    sizes: list[int] = []
    plain = Part.readinto

    def readinto(part: Part, buffer: Any) -> int:
        if part.size in sizes:
            raise OSError(errno.EIO, "Input/output error")
        return plain(part, buffer)

    monkeypatch.setattr(Part, "readinto", readinto)
    return sizes


def test_a_clip_that_a_disk_hides_is_encoded_when_it_is_back(films: Path, bad_sectors: list[int]) -> None:
    settings = data(films)
    bad_sectors.append((films.parent / "a.mp4").stat().st_size)
    first = fill(Clips(settings, 0), Toy())
    assert (first.clips, first.new_clips, first.broken) == (3, 2, 1)
    ((key, why),) = ((one.key, one.reason) for one in first.unread)
    assert key.endswith("0.tar/a")
    assert "Input/output error" in why
    with pytest.raises(InputError, match="lacks 1 of 3 clips"):
        CachedClips(settings, 0, Toy())
    bad_sectors.clear()
    assert fill(Clips(settings, 0), Toy()) == Filled(3, 2, 1, 0, 1, 0, False)
    CachedClips(settings, 0, Toy())


def test_a_file_that_has_gone_is_told(films: Path, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("a film")
    clips = Clips(data(films, sources=[{"layout": "pairs", "folder": str(tmp_path)}]), 0)
    (tmp_path / "a.mp4").unlink()
    found = fill(clips, Toy())
    assert [one.key for one in found.unread] == ["a.mp4"]
    assert (found.new_clips, found.broken) == (1, 0)


def test_facts_that_a_disk_hides_are_looked_for_again(films: Path, bad_sectors: list[int]) -> None:
    settings = data(films, frames=[2, 4])
    size = (films.parent / "a.mp4").stat().st_size
    bad_sectors.append(size)
    assert len(Clips(settings, 0).plan.rejected) == 2
    bad_sectors.clear()
    assert len(Clips(settings, 0).plan.rejected) == 1
    bad_sectors.append(size)  # by now it is known
    assert len(Clips(settings, 0).plan.rejected) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits that the system sets")
@pytest.mark.parametrize("name", ["a.mp4", "a.png"])
def test_too_many_open_files_say_nothing_of_a_clip(tmp_path: Path, name: str) -> None:
    import os
    import resource

    path = tmp_path / name
    (film if path.suffix == ".mp4" else picture)(path)
    assert look(File(str(path))).wrong is None  # and all that is imported for it is
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(Unread, match="Too many open files"), opened(File(str(path))) as clip:
            clip.size()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_ffmpeg_calls_an_input_error_is_the_disks_where_the_bytes_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = film(tmp_path / "a.webm", 12, size=(32, 32), codec="libvpx-vp9").read_bytes()

    def told(size: int) -> InputError | None:
        (tmp_path / "a.webm").write_bytes(whole[:size])
        try:
            with opened(File(str(tmp_path / "a.webm"))) as clip:
                clip.whole(thorough=False)
        except InputError as problem:
            return problem
        return None

    sizes = [size for size in range(100, len(whole), 50) if "Input/output" in str(told(size))]
    assert not isinstance(told(sizes[0]), Unread)

    def unreadable(place: object) -> str:
        raise InputError("Input/output error")

    monkeypatch.setattr(opening, "content", unreadable)
    assert isinstance(told(sizes[0]), Unread)


def test_a_reader_that_is_not_installed_is_told_before_anything_is_read(
    films: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = data(films, reader="decord")
    listings = all_listed(settings)
    monkeypatch.setitem(sys.modules, "decord", None)  # as if it were not
    with pytest.raises(InputError, match="decord is not installed"):
        Clips(data(films, reader="decord", cache=None), 0)
    with pytest.raises(InputError, match="decord is not installed"):
        fill(Clips(settings, 0), Toy())
    with pytest.raises(InputError, match="decord is not installed"):
        check(settings, listings, 0, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "cache").exists()


def test_a_survey_that_is_interrupted_keeps_what_it_found(films: Path, tmp_path: Path) -> None:
    rows: list[Row] = list(all_listed(data(films))[0].rows)
    survey: Any = surveyed(rows, tmp_path / "store", 1)
    next(survey)
    next(survey)
    with pytest.raises(KeyboardInterrupt):
        survey.throw(KeyboardInterrupt)
    assert len((tmp_path / "store" / FILE).read_text().splitlines()) == 2
