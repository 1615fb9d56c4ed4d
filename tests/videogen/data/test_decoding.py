"""Frames by seeking are those that decoding from the start gives, in every container, at every rate, turned or not."""

import random
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.videogen.data.films import COUNT, film, flat, numbers, picture, shard, sound_only, trimmed, turned
from videogen.data import decoding
from videogen.data.decoding import Video
from videogen.data.fitting import Fit
from videogen.data.opening import opened
from videogen.data.rows import File, Member, Row, Rows, Series
from videogen.data.settings import Shards
from videogen.data.shards import read_shard
from videogen.data.windows import Extent
from videogen.errors import InputError
from videogen.movie import decoded


@pytest.mark.parametrize(
    ("name", "codec", "gop"),
    [
        ("a.mp4", "libx264", 12),
        ("a.mp4", "libx264", 250),
        ("a.mkv", "libx264", 12),
        ("a.mov", "mpeg4", 12),
        ("a.avi", "libx264", 12),  # packets without times
        ("a.avi", "mpeg4", 12),
        ("a.ts", "libx264", 12),  # times that begin at 1.4 s, no count in the header
        ("a.webm", "libvpx-vp9", 12),
    ],
)
def test_any_frames_are_those_of_decoding_from_the_start(tmp_path: Path, name: str, codec: str, gop: int) -> None:
    path = film(tmp_path / name, codec=codec, gop=gop)
    truth = np.stack(list(decoded(path)))
    assert len(truth) == COUNT
    video = Video(str(path))
    assert (video.extent.count, video.extent.rate) == (COUNT, 12)
    draw = random.Random(0)
    for wanted in (
        [0],
        [COUNT - 1],
        list(range(3, 40, 4)),
        [5, 5, 6],
        *(sorted(draw.sample(range(COUNT), 4)) for _ in range(8)),
    ):
        np.testing.assert_array_equal(video.frames(wanted, None), truth[wanted])
    video.close()


def test_fragments_without_a_count_are_read_to_their_end(tmp_path: Path) -> None:
    video = Video(str(film(tmp_path / "a.mp4", options={"movflags": "frag_keyframe+empty_moov"})))
    assert (video.extent.count, video.extent.rate) == (COUNT, 12)
    assert numbers(video.frames([0, 13, 47], None)) == [0, 13, 47]


@pytest.mark.parametrize("first", [7, 18, 23])
def test_frames_that_an_edit_list_cuts_away_are_no_frames(tmp_path: Path, clip: Path, first: int) -> None:
    path = trimmed(tmp_path / "a.mp4", clip, first)
    video, count = Video(str(path)), COUNT - first
    assert video.stream.frames > count  # the header counts from the key frame before
    assert video.extent == Extent(count, Fraction(12))
    assert numbers(np.stack(list(decoded(path)))) == list(range(first, COUNT))
    for wanted in ([0], [count - 1], [1, 9, 20], list(range(count))):
        assert numbers(video.frames(wanted, None)) == [first + number for number in wanted]
    video.whole(thorough=True)
    video.close()


def test_open_groups_of_pictures_are_entered_where_they_can_be_decoded(tmp_path: Path) -> None:
    """With open groups, B-frames that are shown before a key frame need the group before it."""
    path = film(tmp_path / "a.mp4", gop=8, further="open-gop=1")
    truth = np.stack(list(decoded(path)))
    for wanted in range(6, 26):
        video = Video(str(path))
        np.testing.assert_array_equal(video.frames([wanted], None)[0], truth[wanted])
        video.close()


def test_with_varying_times_each_instant_shows_the_latest_frame(tmp_path: Path) -> None:
    times, at = [], 0
    for i in range(30):
        times.append(at)
        at += 1 if i < 15 else 3  # slower in its second half
    path = film(tmp_path / "a.mp4", 30, times=times, gop=7)
    video = Video(str(path))
    instants = [n / video.extent.rate for n in range(video.extent.count)]
    latest = [
        max(i for i, t in enumerate(times) if Fraction(t, 12) <= instant + Fraction(1, 1000)) for instant in instants
    ]
    assert numbers(video.frames(list(range(video.extent.count)), None)) == latest
    assert numbers(video.frames([20, 24], None)) == [latest[20], latest[24]]


def test_a_quarter_turn_is_undone_before_the_picture_is_fitted(tmp_path: Path) -> None:
    path = turned(film(tmp_path / "a.mp4", 3))
    with opened(File(str(path))) as clip:
        assert clip.size() == (48, 64)
        truth = np.stack(list(decoded(path)))
        np.testing.assert_array_equal(clip.frames([0, 1, 2], None), truth)
        assert clip.frames([1], Fit(24, 32)).shape == (1, 32, 24, 3)


def test_a_part_of_a_shard_reads_like_the_file(tmp_path: Path, clip: Path) -> None:
    tar = shard(tmp_path / "0.tar", {"x.txt": b"pad", "a.mp4": clip.read_bytes(), "a.txt": b"a film"})
    (row,) = [row for row in read_shard(tar, Shards(layout="shards", shards=(str(tar),))) if isinstance(row, Row)]
    assert isinstance(row.place, Member)
    with opened(row.place) as part, opened(File(str(clip))) as whole:
        assert part.extent == whole.extent
        np.testing.assert_array_equal(part.frames([2, 30], None), whole.frames([2, 30], None))


@pytest.mark.parametrize(("wanted", "most"), [([0, 12, 24, 36], 20), ([40, 42], 12), ([30], 12)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_only_what_lies_behind_a_key_frame_is_looked_at(
    tmp_path: Path, suffix: str, wanted: list[int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0
    plain = decoding._stretch

    def counted(*args: Any) -> decoding.Stretch:
        nonlocal seen
        stretch = plain(*args)
        seen += len(stretch.packets)
        return stretch

    monkeypatch.setattr(decoding, "_stretch", counted)
    assert numbers(Video(str(film(tmp_path / f"a{suffix}"))).frames(wanted, None)) == wanted
    assert seen <= most


def test_decord_gives_the_same_frames(clip: Path) -> None:
    pytest.importorskip("decord")
    with opened(File(str(clip)), "decord") as one, opened(File(str(clip))) as other:
        wanted = [0, 7, 21, 47]
        assert one.extent == other.extent
        assert numbers(one.frames(wanted, Fit(32, 32))) == numbers(other.frames(wanted, Fit(32, 32))) == wanted


@pytest.mark.parametrize("varying", ["jitter", "gaps"])
def test_decord_gives_the_same_frames_where_times_vary(tmp_path: Path, varying: str) -> None:
    pytest.importorskip("decord")
    draw = random.Random(1)  # of the first file's edit list, FFmpeg's own, the last frame is no part
    gaps = [70, 90, 100, 110, 130] if varying == "jitter" else [100, 100, 100, 200]
    times = list(accumulate(draw.choices(gaps, k=COUNT - 1), initial=0))
    path = str(film(tmp_path / "a.mp4", times=times, rate=3000))
    with opened(File(path), "decord") as one, opened(File(path)) as other:
        every = list(range(one.extent.count))
        assert one.extent == other.extent
        assert numbers(one.frames(every, None)) == numbers(other.frames(every, None))


def test_decord_is_kept_from_files_whose_frames_it_would_mistake(tmp_path: Path, clip: Path) -> None:
    pytest.importorskip("decord")
    path = trimmed(tmp_path / "a.mp4", clip, 18)
    with pytest.raises(InputError, match="edit list"), opened(File(str(path)), "decord"):
        pass
    path = film(tmp_path / "a.avi")  # with B-frames, and no times
    with pytest.raises(InputError, match="at other times"), opened(File(str(path)), "decord"):
        pass
    path = film(tmp_path / "a.ts")
    with pytest.raises(InputError, match="MPEG-TS with B-frames"), opened(File(str(path)), "decord"):
        pass
    path = film(tmp_path / "open.mp4", further="open-gop=1:ref=4")
    with pytest.raises(InputError, match="behind a key frame"), opened(File(str(path)), "decord"):
        pass


def test_decord_is_kept_from_files_it_would_show_lying(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = turned(film(tmp_path / "a.mp4", 3))
    with pytest.raises(InputError, match="rotation flag"), opened(File(str(path)), "decord"):
        pass


def test_a_picture_is_a_clip_of_one_frame_and_a_folder_of_pictures_one_of_several(tmp_path: Path) -> None:
    paths = [str(picture(tmp_path / f"{i}.png", i)) for i in range(12)]
    with opened(File(paths[3])) as one, opened(Series(tuple(paths), "8")) as several:
        assert (one.extent.count, several.extent.count, several.extent.rate) == (1, 12, 8)
        np.testing.assert_array_equal(several.frames([3, 9], None), [flat(3), flat(9)])
        np.testing.assert_array_equal(one.frames([0, 0], None), [flat(3), flat(3)])


def test_moving_pictures_are_shown_as_long_as_they_say(tmp_path: Path) -> None:
    pictures = [Image.fromarray(flat(i)) for i in range(3)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 100, 400])
    with opened(File(str(tmp_path / "a.gif"))) as clip:
        assert (clip.extent.count, clip.extent.rate) == (3, 5)
        assert numbers(clip.frames([0, 1, 2], None)) == [0, 2, 2]  # at 0, 0.2 and 0.4 s


def test_a_webp_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stands on its side
    lying = [Image.fromarray(np.rot90(flat(i))) for i in range(2)]
    lying[0].save(tmp_path / "a.webp", save_all=True, append_images=lying[1:], lossless=True, exif=exif)
    with opened(File(str(tmp_path / "a.webp"))) as clip:
        assert clip.size() == (64, 48)
        np.testing.assert_array_equal(clip.frames([0, 1], None), [flat(0), flat(1)])


BROKEN = {
    "empty": "the file is empty",
    "text": "no video that can be read",
    "cut": "breaks off|broken|Invalid data",
    "sound": "it has no video in it",
    "absent": "there is no file",
    "picture": "no picture that can be read",
}


@pytest.mark.parametrize("kind", list(BROKEN))
def test_what_is_no_clip_is_told_in_one_line(tmp_path: Path, clip: Path, kind: str) -> None:
    path = tmp_path / ("a.png" if kind == "picture" else "a.mp4")
    if kind == "sound":
        sound_only(path)
    elif kind == "cut":  # the header is at the end, so that nothing can be read; with the header in front see below
        path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    elif kind != "absent":
        path.write_bytes({"empty": b"", "text": b"not a film" * 50, "picture": b"\x89PNG\r\n\x1a\n" + b"0" * 20}[kind])
    with pytest.raises(InputError, match=BROKEN[kind]) as told, opened(File(str(path))) as source:
        source.frames([0], None)
    assert "\n" not in str(told.value)


def test_a_file_cut_behind_its_header_gives_what_it_has_and_repeats_nothing(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    video = Video(str(path))
    assert numbers(video.frames([0, 4, 8], None)) == [0, 4, 8]
    with pytest.raises(InputError, match=r"breaks off|broken"):
        video.frames([0, 24, 47], None)
    with pytest.raises(InputError, match=r"breaks off|broken"):
        video.whole(thorough=False)


def test_flipped_bytes_are_found_by_decoding_everything(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", size=(128, 96))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    for at in range(start + 900, start + 4000, 7):
        data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="broken"):
        Video(str(path)).whole(thorough=True)


def test_rows_come_back_as_they_were_put_in() -> None:
    rows = [
        Row("a", File('/x/é,\n"a".mp4'), ("one", "two 🎬")),
        Row("b", Member("s.tar", 512, 7, "b.mp4"), ("",)),
        Row("c", Series(("1.png", "2.png"), "25/2"), ("three",)),
    ]
    kept = Rows(rows)
    assert list(kept) == rows
    assert kept[-1] == rows[2]
    assert kept[1:] == rows[1:]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".gif", ".png"])
def test_garbled_files_are_read_or_told_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    """Whatever bytes change, a clip is read, or an InputError of one line says why not."""
    if suffix == ".gif":
        pictures = [Image.fromarray(flat(i)) for i in range(3)]
        pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    path = picture(tmp_path / "a.png") if suffix == ".png" else tmp_path / f"a{suffix}"
    if suffix in (".mp4", ".mkv", ".avi"):
        film(path, 12, size=(32, 32))
    whole, draw = path.read_bytes(), random.Random(0)
    told: list[str] = []
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 8, 200])):
            data[draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 1000))] = draw.randrange(256)
        path.write_bytes(data[: draw.choice([len(data), draw.randrange(1, len(data))])])
        try:
            with opened(File(str(path))) as clip:
                clip.whole(thorough=True)
                clip.frames([0, clip.extent.count - 1], Fit(16, 16))
        except InputError as problem:
            told.append(str(problem))
    assert told
    assert all(line and "\n" not in line for line in told)


def test_a_gif_that_is_cut_anywhere_is_read_or_told(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    pictures = [Image.fromarray(flat(i)) for i in range(3)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    whole, told = path.read_bytes(), 0
    for size in range(1, len(whole), 23):
        path.write_bytes(whole[:size])
        try:
            with opened(File(str(path))) as clip:
                clip.frames([0, clip.extent.count - 1], None)
        except InputError:
            told += 1
    assert told


def test_a_stream_without_an_index_is_jumped_through_where_gaps_are_long(tmp_path: Path) -> None:
    times = [12 * i for i in range(COUNT)]  # a frame a second
    video = Video(str(film(tmp_path / "a.ts", times=times, gop=4)))
    assert numbers(video.frames([round(n * video.extent.rate) for n in (0, 15, 31, 47)], None)) == [0, 15, 31, 47]
