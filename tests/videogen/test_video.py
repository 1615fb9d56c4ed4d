"""What is written can be read again: every format, odd sizes, fractional rates, the recipe; and nothing is left half done."""

import dataclasses
import json
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace
from PIL import Image

from videogen import movie, pictures, video
from videogen.clip import Clip, from_numpy
from videogen.data.opening import opened
from videogen.data.rows import File
from videogen.errors import InputError
from videogen.recipe import Recipe

FORMATS = (".mp4", ".mov", ".mkv", ".webm", ".gif", ".webp", ".png")
LOSSLESS = (".webp", ".png")
# H.264 at crf 18 and VP9 at crf 20: coding plus halved colour resolution. A gif has 256 colours for the whole clip.
PSNR = {".mp4": 30, ".mov": 30, ".mkv": 30, ".webm": 30, ".gif": 30}
RECIPE = Recipe(
    "generate", 'a "red" círcle\nmoving', 7, 12, 45, 67, "30000/1001", "ddim", 25, 7.5, negative="", threads=1
)


def shapes(frames: int = 12, height: int = 45, width: int = 67, fps: Fraction = Fraction(30000, 1001)) -> Clip:
    """A square that moves over a soft ramp."""
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x * 120 // width + 60, y * 120 // height + 60, (x + y) // 2 + 50], -1).astype(np.uint8)
    out = np.stack([ramp] * frames)
    for f in range(frames):
        out[f, 12:30, 4 + 2 * f : 22 + 2 * f] = (200, 110, 90)
    return from_numpy(out, fps)


def psnr(a: Clip, b: Clip) -> float:
    error = (a.to_uint8().double() - b.to_uint8().double()).square().mean()
    return float(10 * torch.log10(255**2 / error)) if error else float("inf")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("size", [(45, 67), (64, 48)])
def test_round_trip(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    clip = shapes(height=size[0], width=size[1])
    path = tmp_path / f"clip{suffix}"
    video.write(path, clip, RECIPE)
    back = video.read(path)
    assert (len(back), back.height, back.width, back.fps) == (12, *size, Fraction(30000, 1001))
    assert back.audio is None
    assert video.read_recipe(path) == RECIPE
    if suffix in LOSSLESS:
        assert torch.equal(back.to_uint8(), clip.to_uint8())
    else:
        assert psnr(back, clip) > PSNR[suffix]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_recipe_of_any_length(tmp_path: Path, suffix: str) -> None:
    """A travelling prompt can be long; QuickTime's comment has 16 bits for its length."""
    recipe = dataclasses.replace(RECIPE, prompt="x" * 70_000)
    path = tmp_path / f"clip{suffix}"
    video.write(path, shapes(2), recipe)
    assert video.read_recipe(path) == recipe


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_colon_in_a_name(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes what stands before it for a protocol."""
    monkeypatch.chdir(tmp_path)
    video.write(f"12:30{suffix}", shapes(2), RECIPE)
    assert len(video.read(f"12:30{suffix}")) == 2
    assert video.read_recipe(f"12:30{suffix}") == RECIPE


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".gif", ".webp"])
@pytest.mark.parametrize(
    "fps", [Fraction(8), Fraction(24000, 1001), Fraction(25, 2), Fraction(1, 2), Fraction(50), video.SLOWEST]
)
def test_frame_rates_are_exact(tmp_path: Path, suffix: str, fps: Fraction) -> None:
    video.write(tmp_path / f"clip{suffix}", shapes(5, 16, 16, fps))
    back = video.read(tmp_path / f"clip{suffix}")
    assert (len(back), back.fps) == (5, fps)


def test_the_container_itself_has_the_exact_rate(tmp_path: Path) -> None:
    video.write(tmp_path / "clip.mp4", shapes())
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        times = [frame.pts * frame.time_base for frame in container.decode(stream)]
    assert stream.average_rate == Fraction(30000, 1001)
    assert times == [i * Fraction(1001, 30000) for i in range(12)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_h264_that_browsers_play_while_it_loads(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    video.write(path, shapes())
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.width, context.height) == (68, 46)
    boxes, data, at = [], path.read_bytes(), 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        boxes.append(name)
        at += size
    assert boxes.index(b"moov") < boxes.index(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_colours_survive(tmp_path: Path, suffix: str) -> None:
    colours = [
        (220, 50, 47),
        (60, 180, 75),
        (50, 90, 220),
        (255, 215, 0),
        (145, 60, 200),
        (12, 12, 14),
        (245, 245, 245),
    ]
    frames = np.zeros((len(colours), 32, 32, 3), np.uint8) + np.array(colours, np.uint8)[:, None, None]
    video.write(tmp_path / f"clip{suffix}", from_numpy(frames))
    back = video.read(tmp_path / f"clip{suffix}").to_numpy().astype(int)
    assert np.abs(back[:, 8:-8, 8:-8] - frames[:, 8:-8, 8:-8]).max() <= 4


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_single_frame_and_one_pixel(tmp_path: Path, suffix: str) -> None:
    clip = from_numpy(np.full((1, 1, 1, 3), 200, np.uint8))
    (path,) = video.write(tmp_path / f"one{suffix}", clip)
    assert path == tmp_path / f"one{suffix}"
    back = video.read(path)
    assert tuple(back.frames.shape) == (1, 3, 1, 1)
    assert (back.to_uint8().int() - 200).abs().max() <= 2


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png"])
@pytest.mark.parametrize("fps", [Fraction(12), Fraction(30000, 1001), Fraction(120)])
def test_frames_that_equal_each_other_stay_frames(tmp_path: Path, suffix: str, fps: Fraction) -> None:
    frames = np.zeros((9, 16, 16, 3), np.uint8)
    frames[4, 2:9, 2:9], frames[5:, 4:12, 4:12] = (220, 50, 47), (50, 90, 220)
    video.write(tmp_path / f"clip{suffix}", from_numpy(frames, fps))
    back = video.read(tmp_path / f"clip{suffix}")
    assert (len(back), back.fps) == (9, fps)
    if suffix != ".mp4":
        assert np.array_equal(back.to_numpy(), frames)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".webp"])
def test_the_same_clip_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        video.write(tmp_path / f"{name}{suffix}", shapes(), RECIPE)
    assert torch.equal(video.read(tmp_path / f"a{suffix}").frames, video.read(tmp_path / f"b{suffix}").frames)


def test_few_colours_are_exact_in_a_gif(tmp_path: Path) -> None:
    frames = np.zeros((4, 20, 20, 3), np.uint8) + np.array([12, 12, 14], np.uint8)
    for f in range(4):
        frames[f, 3:9, f : f + 6] = (220, 50, 47)
    video.write(tmp_path / "clip.gif", from_numpy(frames))
    assert np.array_equal(video.read(tmp_path / "clip.gif").to_numpy(), frames)
    with Image.open(tmp_path / "clip.gif") as picture:
        assert (picture.n_frames, picture.info["loop"]) == (4, 0)


def test_numbered_pngs(tmp_path: Path) -> None:
    written = video.write(tmp_path / "a.png", shapes(3), RECIPE)
    assert [p.name for p in written] == ["a_0001.png", "a_0002.png", "a_0003.png"]
    assert video.read_recipe(written[2]) == RECIPE
    with pytest.raises(InputError, match="exists already"):
        video.write(tmp_path / "a.png", shapes(2))
    video.write(tmp_path / "a.png", shapes(2), overwrite=True)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a_0001.png", "a_0002.png"]
    assert torch.equal(video.read(tmp_path).frames, video.read(tmp_path / "a.png").frames)


def test_pictures_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Ten come after nine, and ten thousand after 9999, though another order of letters puts them behind one."""
    for folder, names in (
        ("folder", ["f1", "f2", "f9", "f10", "f11"]),
        (".", ["a_0001", "a_1000", "a_9999", "a_10000"]),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        for i, name in enumerate(names):
            Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / folder / f"{name}.png")
    for path, count in ((tmp_path / "folder", 5), (tmp_path / "a.png", 4)):
        assert [int(frame[0, 0, 0]) for frame in video.open_source(path).frames()] == list(range(count))


@pytest.mark.parametrize(("suffix", "options"), [(".png", {"duration": 100}), (".tiff", {})])
def test_a_still_that_holds_several_pictures_is_told(tmp_path: Path, suffix: str, options: dict[str, int]) -> None:
    first, *rest = (Image.new("RGB", (4, 4), (i, i, i)) for i in range(3))
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=rest, **options)
    with pytest.warns(UserWarning, match=rf"a{suffix} holds 3 pictures; the first alone"):
        assert len(video.read(tmp_path / f"a{suffix}")) == 1


@pytest.mark.parametrize("said", [1, 5, 6, 9])
def test_colours_are_read_by_the_matrix_that_the_file_names(tmp_path: Path, said: int) -> None:
    """BT.709, BT.601 under its two numbers, and BT.2020."""
    path, colour = tmp_path / "clip.mp4", np.array([200, 40, 30])
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.width = stream.height = 64
        stream.codec_context.colorspace, stream.codec_context.color_range = said, 1
        picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), colour, np.uint8), format="rgb24")
        swscale = Colorspace({6: 5}.get(said, said))
        output.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=swscale)))
        output.mux(stream.encode(None))
    (frame,) = video.open_source(path).frames()
    assert np.abs(frame.astype(int) - colour).max() <= 3
    with opened(File(str(path))) as same:  # as training reads it
        np.testing.assert_array_equal(same.frames([0], None)[0], frame)


def test_the_rotation_flag_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    clip = shapes(2, 32, 48)
    video.write(path, clip)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of times, ids and volume
    assert struct.unpack(">9i", data[at : at + 36])[0] == 1 << 16
    quarter = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # a quarter turn clockwise
    data[at : at + 36] = struct.pack(">9i", *quarter)
    path.write_bytes(data)
    turned = video.read(path)
    assert (turned.height, turned.width) == (48, 32)
    assert psnr(turned, Clip(clip.frames.rot90(-1, (2, 3)))) > PSNR[".mp4"]


def test_varying_frame_times_are_told(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "1", "bf": "0"})
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for value, pts in ((10, 0), (90, 1), (170, 5), (250, 6)):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), value, np.uint8)).reformat(format="yuv420p")
            frame.pts, frame.time_base = pts, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.warns(UserWarning, match="frame times vary"):
        assert len(video.read(path)) == 4


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
@pytest.mark.parametrize("before", [False, True])
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, before: bool
) -> None:
    path = tmp_path / f"clip{suffix}"
    if before:
        video.write(path, shapes(3, 16, 16))
    there = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    calls = iter(range(100))

    def interrupted() -> None:
        if next(calls) == 4:
            raise KeyboardInterrupt

    if suffix == ".mp4":
        monkeypatch.setattr(video.movie.np, "pad", lambda x, *_, **__: interrupted() or x)
    elif suffix == ".gif":
        monkeypatch.setattr(pictures, "_durations", lambda *_, **__: [interrupted() for _ in range(9)])
    else:
        monkeypatch.setattr(video.os, "replace", lambda a, b: interrupted() or Path(a).rename(b))
    with pytest.raises(KeyboardInterrupt):
        video.write(path, shapes(5, 16, 16), overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == there


def test_bad_targets_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    for name, says in (
        ("clip.xyz", "use one of .mp4"),
        ("clip", "use one of .mp4"),
        ("none/clip.mp4", "does not exist; create it first"),
        ("file/clip.mp4", "does not exist; create it first"),
        ("there.mp4", "exists already"),
        ("folder.mp4", "is a folder"),
    ):
        with pytest.raises(InputError, match=says) as raised:
            video.check_target(tmp_path / name)
        assert "\n" not in str(raised.value)
    video.check_target(tmp_path / "there.mp4", overwrite=True)
    video.check_target(tmp_path / "CLIP.MP4")
    assert (tmp_path / "there.mp4").read_bytes() == b"x"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_rate_too_low_is_refused(tmp_path: Path, suffix: str) -> None:
    for fps in (Fraction(1, 601), Fraction(1, 1_000_000)):
        with pytest.raises(InputError, match="give 1/600 or more"):
            video.write(tmp_path / f"clip{suffix}", shapes(2, 16, 16, fps))
    assert not list(tmp_path.iterdir())


def test_a_picture_larger_than_a_webp_can_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.webp could not be written"):
        video.write(tmp_path / "a.webp", Clip(torch.zeros(2, 3, 1, 16384)))
    assert not list(tmp_path.iterdir())


def test_a_picture_that_stands_longer_than_a_gif_can_say(tmp_path: Path) -> None:
    """Frames that equal each other become one picture, whose time has 16 bits of hundredths."""
    still = Clip(torch.zeros(3, 3, 16, 16), Fraction(1, 300))
    with pytest.raises(InputError, match="how long a picture is shown"):
        video.write(tmp_path / "clip.gif", still)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(video.tempfile, "TemporaryDirectory", refused)
    with pytest.raises(InputError, match=r"cannot write into .*: Permission denied"):
        video.check_target(tmp_path / "clip.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png", "a.webp"])
@pytest.mark.parametrize("content", [b"", b"just text\n", bytes(range(256)) * 20])
def test_files_that_are_no_clips(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    for act in (video.read, video.read_recipe):
        with pytest.raises(InputError) as raised:
            act(tmp_path / name)
        assert "\n" not in str(raised.value)
        assert name in str(raised.value)
        assert "Errno" not in str(raised.value)


def test_a_gif_cut_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    (path,) = video.write(tmp_path / "a.gif", shapes(4, 16, 16))
    whole = path.read_bytes()
    for act in (video.read, video.read_recipe):
        sizes, refused = range(1, len(whole), 17), 0
        for size in sizes:
            path.write_bytes(whole[:size])
            try:
                act(path)
            except InputError:
                refused += 1
        assert refused > 0.9 * len(sizes)  # some cuts leave whole pictures


@pytest.mark.parametrize("suffix", [".mp4", ".png", ".webp"])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    (path,) = video.write(tmp_path / f"a{suffix}", shapes(1 if suffix == ".png" else 12))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError):
        video.read(path)


def test_a_foreign_file_cut_short_is_read_with_a_warning(tmp_path: Path) -> None:
    """Nothing but its header says how many frames it should have."""
    path = tmp_path / "a.mp4"
    movie.write_movie(path, shapes().to_numpy(), Fraction(8), "", None)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.warns(UserWarning, match=r"announces 12 frames, \d+ can be decoded"):
        back = video.read(path)
    assert 0 < len(back) < 12


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        video.read(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="holds no pictures"):
        video.read(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(InputError, match="carries no recipe"):
        video.read_recipe(tmp_path / "plain.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "wider.png")
    with pytest.raises(InputError, match="several sizes"):
        video.read(tmp_path)


def test_a_foreign_note_is_ignored(tmp_path: Path) -> None:
    for text in (
        None,
        "hello",
        "[" * 99999,
        "[1]",
        '{"videogen": 3}',
        json.dumps({"videogen": {"recipe": None, "width": "x"}}),
    ):
        assert video.note_from(text) is None


def test_stills_are_read_upright_and_in_full_depth(tmp_path: Path) -> None:
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(1, 256).repeat(4, 0)
    Image.fromarray(deep).save(tmp_path / "depth.png")
    assert video.read(tmp_path / "depth.png").to_numpy()[0, 0, :, 1].tolist() == list(range(256))
    exif = Image.Exif()
    exif[0x0112] = 6  # stands on its side
    Image.new("RGB", (6, 4)).save(tmp_path / "side.jpg", exif=exif)
    side = video.read(tmp_path / "side.jpg")
    assert (side.height, side.width) == (6, 4)


def test_a_webp_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stands on its side
    upright = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 3), np.uint8)
    lying = [Image.fromarray(np.rot90(frame)) for frame in upright]
    lying[0].save(
        tmp_path / "side.webp", save_all=True, append_images=lying[1:], lossless=True, exif=exif, duration=100
    )
    side = video.read(tmp_path / "side.webp")
    np.testing.assert_array_equal(side.to_numpy(), upright)
    assert video.open_source(tmp_path / "side.webp").size == (6, 4)


def test_a_clip_that_somebody_trimmed_without_encoding_anew(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Its edit list cuts frames away, and our note in it tells of all: it is whole, and nothing is announced that is not there."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    video.write(whole, shapes(frames=40, height=48, width=64, fps=Fraction(10)), RECIPE)
    with av.open(str(whole)) as given, av.open(str(cut), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        output.metadata.update(given.metadata)
        start = int(Fraction(13, 10) / Fraction(stream.time_base or 1))
        for packet in given.demux(stream):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
                output.mux(packet)
    clip = video.read(cut)
    assert len(clip) == 27
    assert psnr(clip, video.read(whole).cut(13, 40)) > 60
    assert not recwarn.list
