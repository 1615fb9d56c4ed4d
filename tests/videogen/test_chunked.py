"""Chunk by chunk: an edit that does nothing gives the source back, overlaps fade, memory does not grow, nothing is left half done."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.videogen.cli.calls import contents
from tests.videogen.test_streams import wide
from tests.videogen.test_video import shapes
from videogen import chunked, generation, video
from videogen.clip import Clip
from videogen.editing import Few, Job, Offer, Piece, Request
from videogen.errors import InputError
from videogen.pipeline import Motion, Pipeline
from videogen.video import open_source
from videogen.windows import Windows


def pictures(count: int, size: tuple[int, int] = (8, 16)) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(count)
    return list(torch.randint(256, (count, *size, 3), dtype=torch.uint8, generator=generator).numpy())


def nothing(clip: Tensor, first: int) -> Piece:
    return Piece(clip)


@pytest.mark.parametrize(
    ("count", "chunk", "overlap"), [(1, 8, 2), (8, 8, 2), (9, 8, 2), (23, 8, 5), (10, 4, 0), (5, 1, 0)]
)
def test_an_edit_that_does_nothing_gives_every_frame_back(count: int, chunk: int, overlap: int) -> None:
    frames = pictures(count)
    cut = Windows(chunk, overlap).cut(range(count))
    made = list(chunked.stitched(iter(frames), cut, (8, 16), nothing))
    assert all(np.array_equal(a, frame.edited) and a is frame.source for a, frame in zip(frames, made, strict=True))


def test_frames_come_out_as_soon_as_no_chunk_needs_them() -> None:
    """At most one chunk is held, however long the clip."""
    read = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal read
        for frame in pictures(64):
            read += 1
            yield frame

    cut = Windows(8, 2).cut(range(64))
    for done, _ in enumerate(chunked.stitched(counted(), cut, (8, 16), nothing)):
        assert read - done <= 8


def test_one_chunk_fades_into_the_next() -> None:
    """The k-th chunk makes everything of value k / 4: weights rise and fall in a straight line over the overlap."""
    values = iter((0.0, 0.25))
    cut = Windows(6, 3).cut(range(9))
    made = list(
        chunked.stitched(
            iter(pictures(9)), cut, (8, 16), lambda clip, first: Piece(torch.full_like(clip, next(values)))
        )
    )
    shares = [frame.edited.mean() / (0.25 * 255) for frame in made]
    assert shares == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1], abs=0.02)


@pytest.mark.parametrize(
    ("count", "chunk", "overlap", "shared"),
    [(9, 8, 2, 7), (33, 16, 4, 11), (29, 16, 4, 15), (25, 8, 0, 7), (14, 8, 2, 2)],
)
def test_the_last_chunk_fades_in_over_all_that_it_shares(count: int, chunk: int, overlap: int, shared: int) -> None:
    """It ends with the clip, so it may share nearly all of its frames: its share rises by equal steps, without a jump or a plateau."""
    cut = Windows(chunk, overlap).cut(range(count))
    last = cut[-1].frames[0]
    made = list(
        chunked.stitched(
            iter(pictures(count)), cut, (8, 16), lambda clip, first: Piece(torch.full_like(clip, float(first == last)))
        )
    )
    shares = [float(frame.edited.mean()) / 255 for frame in made]
    rising = [k / (shared + 1) for k in range(1, shared + 1)]
    assert shares == pytest.approx([0] * last + rising + [1] * (count - last - shared), abs=0.01)


def test_chunks_know_where_they_are_and_masks_fade_too() -> None:
    firsts: list[int] = []

    def masked(clip: Tensor, first: int) -> Piece:
        firsts.append(first)
        return Piece(clip, torch.full((len(clip), 1, 8, 16), float(first > 3)))

    cut = Windows(4, 2).cut(range(3, 9))
    made = list(chunked.stitched(iter(pictures(6)), cut, (8, 16), masked))
    assert firsts == [3, 5]
    assert [float(frame.mask.mean()) for frame in made] == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])


def test_frames_outside_the_range_are_copied_and_sizes_come_back(tmp_path: Path) -> None:
    video.write(tmp_path / "clip.webp", Clip(torch.from_numpy(np.stack(pictures(6))).permute(0, 3, 1, 2)))
    source, seen = open_source(tmp_path / "clip.webp"), []

    def invert(clip: Tensor, first: int) -> Piece:
        seen.append((first, tuple(clip.shape)))
        return Piece(1 - clip)

    made = list(chunked.edited(source, (2, 5), (16, 32), Windows(8, 2), invert))
    assert seen == [(2, (3, 3, 16, 32))]
    before = list(source.frames())
    same = [bool(np.array_equal(frame.edited, pixels)) for frame, pixels in zip(made, before, strict=True)]
    assert same == [True, True, False, False, False, True]
    assert {frame.edited.shape for frame in made} == {(8, 16, 3)}
    assert [float(frame.mask.mean()) for frame in made] == [0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("source", [(720, 1280), (1280, 720), (45, 67), (128, 128), (1, 4000)])
def test_the_size_worked_at_has_the_sources_aspect_and_the_models_area(source: tuple[int, int]) -> None:
    height, width = chunked.work_size(source, (512, 512), 8)
    assert height % 8 == width % 8 == 0
    exact = (512 * 512 / (source[0] * source[1])) ** 0.5
    for worked, own in ((height, source[0]), (width, source[1])):
        assert abs(worked - exact * own) <= 4 or worked == 8 * chunked.LEAST


def test_a_size_that_is_asked_for_must_fit() -> None:
    assert chunked.work_size((45, 67), (64, 64), 8, (96, 64)) == (64, 96)
    with pytest.raises(InputError, match="multiple of 8"):
        chunked.work_size((45, 67), (64, 64), 8, (90, 64))


def test_few_frames_are_spread_over_the_range(tmp_path: Path) -> None:
    video.write(tmp_path / "clip.webp", shapes(10, 16, 32))
    source = open_source(tmp_path / "clip.webp")
    whole = chunked.spread(source, 2, 8, (16, 32), 99)
    assert torch.equal(whole, video.read(tmp_path / "clip.webp").to_float()[2:8])
    assert torch.equal(chunked.spread(source, 2, 8, (16, 32), 3), whole[[0, 2, 4]])


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), InputError("no"), None])
def test_files_appear_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException | None
) -> None:
    """Broken off in the second chunk; or its second chunk is not a number."""
    video.write(tmp_path / "clip.mp4", shapes(12, 16, 32))
    before = contents(tmp_path)

    def edit(clip: Tensor, first: int) -> Piece:
        if first and problem is not None:
            raise problem
        return Piece(clip * float("nan") if first else clip)

    def begin(pipe: Pipeline, request: Request, frames: int, few: Few, progress: bool) -> Job:
        settled = dataclasses.replace(request.base, steps=1, guidance=1.0)
        return Job("nothing", dataclasses.replace(request, base=settled, method="nothing"), True, None, edit)

    request = Request(str(tmp_path / "clip.mp4"), generation.Request("a", motion="none"))
    targets = chunked.Targets((tmp_path / "e.mp4",), tmp_path / "c.gif", tmp_path / "m.mp4")
    offer = Offer(("nothing",), None, begin)  # type: ignore[arg-type]
    with pytest.raises((KeyboardInterrupt, InputError)):
        chunked.edit_file(request, targets, offer=offer)
    assert contents(tmp_path) == before


def test_chunks_and_size_are_those_of_the_model_sampled_from_and_the_picture_shown(tmp_path: Path) -> None:
    """Twelve frames of 32 x 16 pixels, each three times as wide as high; the method's own model takes all frames in one piece."""
    wide(tmp_path / "wide.mkv", Fraction(3), frames=12)
    seen = []

    def edit(clip: Tensor, first: int) -> Piece:
        seen.append(tuple(clip.shape))
        return Piece(clip)

    def begin(pipe: Pipeline, request: Request, frames: int, few: Few, progress: bool) -> Job:
        settled = dataclasses.replace(request.base, steps=1, guidance=1.0)
        motion = Motion("another", {}, 12, 12, {})
        return Job("nothing", dataclasses.replace(request, base=settled, method="nothing"), False, motion, edit)

    request = Request(str(tmp_path / "wide.mkv"), generation.Request("a", motion="none"))
    offer = Offer(("nothing",), None, begin)  # type: ignore[arg-type]
    chunked.edit_file(request, chunked.Targets((tmp_path / "e.mp4",)), offer=offer)
    ((count, _, height, width),) = seen
    assert count == 12
    assert width / height == pytest.approx(6, rel=0.1)
    made = open_source(tmp_path / "e.mp4")
    assert (made.size, made.aspect) == ((16, 32), 3)


def test_no_file_is_written_over_another(tmp_path: Path) -> None:
    video.write(tmp_path / "clip.mp4", shapes(2, 16, 16, Fraction(8)))
    source = open_source(tmp_path / "clip.mp4")
    for targets in (
        chunked.Targets((tmp_path / "clip.mp4",), overwrite=True),
        chunked.Targets((tmp_path / "a.mp4",), tmp_path / "a.mp4"),
    ):
        with pytest.raises(InputError, match="named twice, or is the source"):
            targets.check(source)


@pytest.mark.parametrize("clip", ["p.png", "p", "late"])
def test_pictures_of_the_source_are_neither_written_over_nor_taken_away(tmp_path: Path, clip: str) -> None:
    """The source as NAME.png of numbered ones, as their folder, and as a folder whose numbers begin later than those that are written."""
    for name in ("p", "late"):
        (tmp_path / name).mkdir()
        video.write(tmp_path / name / "p.png", shapes(3, 16, 16))
    for i in (1, 2, 3):
        (tmp_path / "late" / f"p_000{i}.png").rename(tmp_path / "late" / f"p_001{i}.png")
    source = open_source(tmp_path / "p" / clip if clip == "p.png" else tmp_path / clip)
    target = source.parts[0].parent / "p.png"
    with pytest.raises(InputError, match="or is the source"):
        chunked.Targets((target,), overwrite=True).check(source)
    chunked.Targets((tmp_path / "q.png", target.with_name("p.mp4"))).check(source)
    beside = chunked.Targets((target.with_name("q.png"),))
    if clip == "p.png":
        beside.check(source)
    else:  # the folder would hold six frames then, and be another source than its recipe tells of
        with pytest.raises(InputError, match="would become one of the pictures"):
            beside.check(source)
