"""Batches of clips: the position is the step's number, nothing is replaced, too many broken clips end a run."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.videogen.data.films import film, numbers, picture
from videogen.data.clips import Batch, Clips, drawn
from videogen.data.plan import Item, Shape
from videogen.data.rows import File, Row
from videogen.data.settings import Data
from videogen.data.tally import Tally
from videogen.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six films, of two aspects, and a picture."""
    folder = tmp_path_factory.mktemp("data")
    for i, size in enumerate([(64, 48), (64, 48), (48, 64), (64, 48), (48, 64), (64, 48)]):
        film(folder / f"{i}.mp4", 40 + i, size=size)
        (folder / f"{i}.txt").write_text(f"film {i}" + " to the left" * (i == 0))
    picture(folder / "p.png")
    (folder / "p.txt").write_text("a still")
    return folder


def data(folder: Path, **values: Any) -> Data:
    source = {"layout": "pairs", "folder": str(folder)}
    small = {
        "sources": [source],
        "frames": 4,
        "stride": 2,
        "size": "32x32",
        "store": str(folder.parent / "store"),
        "broken": 1.0,
    }
    return Data.model_validate(small | values)


def same(one: Batch, other: Batch) -> bool:
    tensors = all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("frames", "counts", "rates"))
    return tensors and (one.step, one.keys, one.captions) == (other.step, other.keys, other.captions)


def taken(batches: Iterator[Batch], count: int) -> list[Batch]:
    return list(islice(batches, count))


MANY = {"frames": [1, 4], "size": ["48x32", "32x48"], "batch_size": 3, "flip": True}


def test_a_run_that_begins_late_draws_what_the_whole_run_draws(folder: Path) -> None:
    clips = Clips(data(folder, **MANY), seed=3)
    whole = taken(clips.batches(), 6)
    late = taken(Clips(data(folder, **MANY), seed=3).batches(4), 2)
    assert all(same(a, b) for a, b in zip(whole[4:], late))
    assert {batch.frames.shape[1] for batch in taken(clips.batches(), 12)} == {1, 4}


@pytest.mark.filterwarnings("ignore:.*broken")
def test_any_number_of_threads_and_processes_gives_the_same_batches(folder: Path) -> None:
    one = taken(Clips(data(folder, batch_size=5, workers=1), seed=1).batches(), 3)
    several = [taken(Clips(data(folder, batch_size=5, workers=3), seed=1).batches(0, rank, 2), 3) for rank in (0, 1)]
    for whole, first, second in zip(one, *several):
        assert torch.equal(whole.frames, torch.cat([first.frames, second.frames]))
        assert whole.captions == first.captions + second.captions
        assert len(first.keys) + len(second.keys) == 5


@pytest.mark.filterwarnings("ignore:.*broken")
def test_frames_are_those_that_were_drawn(folder: Path) -> None:
    for batch in taken(Clips(data(folder, flip=False, frames=4, stride=3), seed=0).batches(), 4):
        for key, frames, count, rate in zip(batch.keys, batch.frames, batch.counts, batch.rates):
            if key == "p.png":
                assert count == 0
                continue
            found = numbers(frames.permute(0, 2, 3, 1).numpy())
            assert [n - found[0] for n in found] == [0, 3, 6, 9]
            assert rate == 4  # 12 a second, every third


def test_a_broken_clip_is_counted_and_told_and_none_stands_in_for_it(folder: Path, tmp_path: Path) -> None:
    """The picture has one frame where four are wanted; the rest of each batch stays as it is without it."""
    with pytest.warns(UserWarning, match=r"p.png is broken and left out: it has 1 frame, 4 are needed"):
        batches = taken(Clips(data(folder, batch_size=7), seed=0).batches(), 2)
    for batch in batches:
        assert sorted(batch.keys) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4", "5.mp4", "p.png"]
        place = batch.keys.index("p.png")
        assert batch.counts.tolist() == [float(i != place) for i in range(7)]
        assert batch.frames[place].eq(0).all()
        assert [wrong.key for wrong in batch.broken] == ["p.png"]


@pytest.mark.filterwarnings("ignore:.*broken")
def test_too_many_broken_clips_end_a_run(folder: Path) -> None:
    clips = Clips(data(folder, batch_size=7, broken=0.1), seed=0)
    with pytest.raises(InputError, match="11 of 77 clips were broken, more than the share broken"):
        taken(clips.batches(), 100)


@pytest.mark.filterwarnings("ignore:.*broken")
def test_one_broken_clip_at_the_start_ends_nothing() -> None:
    from videogen.data.rows import Rejected

    tally = Tally(0.05)
    tally.add(1, [Rejected("a", "cut")])
    tally.add(99, [Rejected(str(i), "cut") for i in range(4)])
    with pytest.raises(InputError, match="6 of 101"):
        tally.add(1, [Rejected("b", "cut")])


def test_a_clip_that_says_left_is_never_mirrored_others_half_of_the_time() -> None:
    item = Item(0, 0, -1, Shape(4, 32, 32))
    plain = Row("a", File("a"), ("a film", "another"))
    sided = Row("a", File("a"), ("a film", "it goes left"))
    settings = Data.model_validate({"sources": [{"layout": "pairs", "folder": "x"}], "drop": 0.25})
    draws = [drawn(settings, plain, item, 0, i) for i in range(2000)]
    assert abs(sum(one.mirrored for one in draws) / 2000 - 0.5) < 5 * (0.25 / 2000) ** 0.5
    assert abs(sum(one.caption == "" for one in draws) / 2000 - 0.25) < 5 * (0.1875 / 2000) ** 0.5
    assert {one.caption for one in draws} == {"a film", "another", ""}
    assert not any(drawn(settings, sided, item, 0, i).mirrored for i in range(200))


def test_mirroring_is_about_the_vertical_axis(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None] * 7, (32, 32, 3))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a ramp")
    found = taken(Clips(data(tmp_path, frames=1, batch_size=8), seed=0).batches(), 1)[0].frames[:, 0, 0, 0]
    ways = {tuple(row.tolist()) for row in found}
    assert ways == {tuple(ramp[0, :, 0].tolist()), tuple(ramp[0, ::-1, 0].tolist())}


def test_every_window_of_a_clip_is_a_clip_of_its_own(folder: Path) -> None:
    clips = Clips(data(folder, window="all", stride=3, frames=[1, 4], batch_size=1, flip=False), seed=0)
    assert clips.plan.count == 1 + 6 * 4  # 40 to 45 frames, ten a window


def test_facts_are_found_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from videogen.data import facts

    looked: list[object] = []
    plain = facts.look
    monkeypatch.setattr(facts, "look", lambda place: looked.append(place) or plain(place))
    settings = data(folder, **MANY, store=str(tmp_path))
    assert Clips(settings, 0).plan.buckets[0].shape == Clips(settings, 0).plan.buckets[0].shape
    assert len(looked) == 7
    (tmp_path / "facts.jsonl").write_text("broken\n")
    Clips(settings, 0)
    assert len(looked) == 14
