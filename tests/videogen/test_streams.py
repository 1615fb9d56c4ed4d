"""Frame by frame is the same as all at once, for reading and for writing, and nothing is left half done."""

import tracemalloc
import warnings
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.videogen.test_video import RECIPE, shapes
from videogen import streams, video
from videogen.clip import Clip
from videogen.errors import InputError


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.gif", "clip.png", "folder"])
def test_the_frames_are_those_of_reading_whole(tmp_path: Path, name: str) -> None:
    clip = shapes(5, 33, 47, Fraction(24000, 1001))
    (tmp_path / "folder").mkdir()
    video.write(tmp_path / (name if name != "folder" else "folder/a.png"), clip)
    whole, source = video.read(tmp_path / name), video.open_source(tmp_path / name)
    assert (source.count, source.size, source.fps) == (5, (33, 47), whole.fps)
    for _ in range(2):  # as often as one likes
        assert np.array_equal(np.stack(list(source.frames())), whole.to_numpy())
    assert np.array_equal(np.stack(list(source.frames(1, 3))), whole.to_numpy()[1:3])


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.gif", "clip.webp", "clip.png"])
def test_what_is_written_is_what_writing_whole_writes(tmp_path: Path, name: str) -> None:
    clip = shapes(5, 33, 47)
    (tmp_path / "whole").mkdir()
    (tmp_path / "stream").mkdir()
    video.write(tmp_path / "whole" / name, clip, RECIPE)
    source = video.open_source(tmp_path / "whole" / name)
    with streams.writing(tmp_path / "stream" / name, source, RECIPE) as add:
        for pixels in clip.to_numpy():
            add(pixels)
    assert video.read_recipe(tmp_path / "stream" / name) == RECIPE
    a, b = video.read(tmp_path / "whole" / name), video.read(tmp_path / "stream" / name)
    assert a.fps == b.fps
    assert torch.equal(a.frames, b.frames)


@pytest.mark.parametrize("name", ["new.mp4", "new.gif"])
@pytest.mark.parametrize("problem", [KeyboardInterrupt, InputError])
def test_nothing_is_left_of_what_was_broken_off(tmp_path: Path, name: str, problem: type[BaseException]) -> None:
    video.write(tmp_path / "clip.mp4", shapes(3))
    source = video.open_source(tmp_path / "clip.mp4")

    def broken_off() -> None:
        with streams.writing(tmp_path / name, source) as add:
            add(next(source.frames()))
            raise problem

    with pytest.raises(problem):
        broken_off()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_contents_are_known_whatever_the_name(tmp_path: Path) -> None:
    for name, seed in (("a.webp", 0), ("b.webp", 0), ("c.webp", 1)):
        frames = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        video.write(tmp_path / name, Clip(frames))
    a, b, c = (video.open_source(tmp_path / name).sha256() for name in ("a.webp", "b.webp", "c.webp"))
    assert a == b != c
    video.write(tmp_path / "n.png", shapes(3, 8, 8))
    before = video.open_source(tmp_path / "n.png").sha256()
    video.write(tmp_path / "n_0002.png", Clip(torch.zeros(1, 3, 8, 8)), overwrite=True)
    assert video.open_source(tmp_path / "n.png").sha256() != before


def piece(path: Path, size: int) -> bytes:
    """A transport stream of eight frames; such streams can be joined byte by byte."""
    with av.open(str(path), "w", format="mpegts") as output:
        stream = output.add_stream("mpeg2video", rate=25)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for pixels in torch.randint(256, (8, size, size, 3), dtype=torch.uint8).numpy():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels).reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    return path.read_bytes()


def test_broken_sources_are_told_before_anything_is_done(tmp_path: Path) -> None:
    video.write(tmp_path / "clip.mp4", shapes(9))
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes()[:-700])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "sizes.ts").write_bytes(piece(tmp_path / "a.ts", 32) + piece(tmp_path / "b.ts", 64))
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        sound = output.add_stream("aac", rate=48000, layout="mono")
        part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        part.sample_rate = 48000
        output.mux(sound.encode(part))
        output.mux(sound.encode(None))
    (tmp_path / "mixed").mkdir()
    for i, side in enumerate((8, 16)):
        video.write(tmp_path / "mixed" / f"{i}.png", Clip(torch.zeros(1, 3, side, side)))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("no picture")
    told = {
        "missing.mp4": "does not exist", "text.mp4": "no video", "sizes.ts": "change size",
        "sound.mp4": "no video in it", "mixed": "several sizes", "broken": "cannot be read", "cut.mp4": "can be read",
    }  # fmt: skip
    for name, words in told.items():
        with pytest.raises(InputError, match=words):
            video.open_source(tmp_path / name)


def test_a_part_is_read_without_reading_the_rest(tmp_path: Path) -> None:
    video.write(tmp_path / "n.png", shapes(4, 8, 8))
    source = video.open_source(tmp_path / "n.png")
    (tmp_path / "n_0004.png").unlink()
    assert len(list(islice(source.frames(), 3))) == 3


def wide(path: Path, aspect: Fraction, frames: int = 4) -> Path:
    """Frames of 32 x 16 pixels, each `aspect` times as wide as high."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for pixels in shapes(frames, 16, 32).to_numpy():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels).reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".gif"])
def test_pixels_that_are_not_square_stay_so_or_it_is_told(tmp_path: Path, suffix: str) -> None:
    """DVDs have such pixels; webm, gif and stills cannot say so."""
    source = video.open_source(wide(tmp_path / "wide.mkv", Fraction(4, 3)))
    assert (source.size, source.aspect, source.shown) == ((16, 32), Fraction(4, 3), (16, 43))
    kept = suffix in streams.ASPECT
    with warnings.catch_warnings(record=True) as told, streams.writing(tmp_path / f"out{suffix}", source) as add:
        for pixels in source.frames():
            add(pixels)
    assert [str(warning.message).count("not square") for warning in told] == ([] if kept else [1])
    assert video.open_source(tmp_path / f"out{suffix}").aspect == (Fraction(4, 3) if kept else 1)
    assert kept == (suffix in (".mp4", ".mov", ".mkv"))


def test_a_turned_clip_turns_its_pixels_too(tmp_path: Path) -> None:
    with (
        av.open(str(wide(tmp_path / "wide.mp4", Fraction(2)))) as lying,
        av.open(str(tmp_path / "t.mp4"), "w") as turned,
    ):
        stream = turned.add_stream_from_template(lying.streams.video[0])
        stream.set_display_rotation(90)
        for packet in lying.demux(lying.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                turned.mux(packet)
    source = video.open_source(tmp_path / "t.mp4")
    assert (source.size, source.aspect) == ((32, 16), Fraction(1, 2))


@pytest.mark.parametrize("name", ["clip.gif", "clip.webp"])
def test_moving_pictures_are_read_one_by_one(tmp_path: Path, name: str) -> None:
    """Sixty-four frames go by in the memory of a few."""
    video.write(tmp_path / name, shapes(64, 96, 96))
    tracemalloc.start()
    try:
        count = sum(pixels.shape == (96, 96, 3) for pixels in video.open_source(tmp_path / name).frames())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 64
    assert peak < 16 * 96 * 96 * 3
