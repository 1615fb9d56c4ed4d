"""A run makes every clip once, goes on where it was stopped, and measures the same whichever way."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from editors.edited import Edited
from editors.evidence.methods import Workshop
from editors.evidence.runs import Row, Rows, of, psnr, run
from editors.evidence.trials import Trial, source_clip, trial
from tests.editors.evidence import stubs
from videogen.errors import InputError
from videogen.shapes import render

FEW = ("colour", "reconstruction")


def lines(folder: Path) -> list[dict[str, object]]:
    """The lines without what a clock says."""
    found = [json.loads(line) for line in (folder / "edits.jsonl").read_text().splitlines()]
    for line in found:
        del line["values"]["seconds"]
    return found


def test_the_true_edit_is_done_and_kept_and_the_source_is_kept_alone(tmp_path: Path) -> None:
    methods = stubs.table(good=stubs.truth)
    plan, rows = stubs.plan(methods, 3, edits=FEW), stubs.rows(tmp_path, methods)
    assert run(stubs.shop(), plan, rows)
    assert len(rows.rows) == len(plan.clips()) == 2 * 3 * 4
    for row in rows.rows.values():
        assert row.kept, row
        wanted = None if row.edit == "reconstruction" else row.method in ("good", "truth")
        assert row.done is wanted
    again = of(rows.rows, plan, "good", "reconstruction")
    asked = trial("reconstruction", 0)
    file = source_clip(asked, tmp_path / "sources", stubs.FRAMES, 128)
    drawn = render(asked.scene, stubs.FRAMES, 128).frames[0]
    assert again[0].values["psnr"] == pytest.approx(psnr(drawn, file))  # against the file, which H.264 made
    assert {rows.rows["plain", "reconstruction", n].values["psnr"] for n in range(3)} == {120.0}
    assert again[0].measured == {"told": 3.0}
    assert rows.shown(("good", "colour", 1), mask=True).exists()
    assert not rows.shown(("good", "colour", 2)).exists()


def test_an_interrupted_run_goes_on_and_gives_the_same_rows(tmp_path: Path) -> None:
    calls = []

    def tired(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
        calls.append(trial.number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return stubs.truth(shop, trial, clip)

    methods = stubs.table(good=tired)
    plan = stubs.plan(methods, 3, edits=("colour",))
    with pytest.raises(KeyboardInterrupt):
        run(stubs.shop(), plan, stubs.rows(tmp_path / "cut", methods))
    before = lines(tmp_path / "cut")
    assert len(before) == 4 + 4 + 3  # of the third trial all but the method's own
    assert run(stubs.shop(), plan, stubs.rows(tmp_path / "cut", methods))
    assert lines(tmp_path / "cut")[: len(before)] == before
    assert len(calls) == 3 + 1  # what was lost is made again, and nothing else
    assert run(stubs.shop(), plan, stubs.rows(tmp_path / "whole", methods))
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_rows_are_read_again_as_they_were(tmp_path: Path) -> None:
    methods = stubs.table(good=stubs.truth)
    rows = stubs.rows(tmp_path, methods)
    run(stubs.shop(), stubs.plan(methods, 1, edits=FEW), rows)
    assert stubs.rows(tmp_path, methods).rows == rows.rows


def test_when_the_time_is_up_no_clip_is_begun_and_trials_come_number_by_number(tmp_path: Path) -> None:
    methods = stubs.table(good=stubs.truth)
    plan, rows = stubs.plan(methods, 2, edits=FEW), stubs.rows(tmp_path, methods)
    assert run(stubs.shop(), plan, rows, seconds=0) is False
    assert not rows.rows
    assert [number for _, _, number in plan.clips()] == [0] * 8 + [1] * 8
    assert [name for name, _, _ in plan.clips()][:4] == ["source", "truth", "plain", "good"]


def test_what_other_code_made_is_made_again_and_nothing_else(tmp_path: Path) -> None:
    before, after = stubs.table(good=stubs.truth, other=stubs.truth), stubs.table(good=stubs.stills, other=stubs.truth)
    plan = stubs.plan(before, 1, edits=("colour",))
    run(stubs.shop(), plan, stubs.rows(tmp_path, before))
    rows = stubs.rows(tmp_path, after)
    assert rows.outdated == 1
    made: list[Row] = []
    run(stubs.shop(), dataclasses.replace(plan, table=after), rows, tick=made.append)
    assert [row.key for row in made] == [("good", "colour", 0)]
    fresh = stubs.rows(tmp_path, after)
    assert (fresh.outdated, len(fresh.rows)) == (0, 5)


def test_a_refusal_names_its_clip(tmp_path: Path) -> None:
    def never(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
        raise InputError("no such word")

    methods = stubs.table(bad=never)
    with pytest.raises(InputError, match=r"bad, colour 0 \('a green circle .*'\): no such word"):
        run(stubs.shop(), stubs.plan(methods, 1), stubs.rows(tmp_path, methods))


def test_another_setting_is_refused_and_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    methods = stubs.table(good=stubs.truth)
    plan = stubs.plan(methods, 1, edits=("colour",))
    run(stubs.shop(), plan, stubs.rows(tmp_path, methods))
    whole = lines(tmp_path)
    with pytest.raises(InputError, match="holds a run with frames 8, this one has 16"):
        Rows(tmp_path, {"seed": 0, "frames": 16}, methods)
    path = tmp_path / "edits.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    run(stubs.shop(), plan, stubs.rows(tmp_path, methods))
    assert lines(tmp_path) == whole


def test_every_method_brings_its_bounds_and_what_it_is_held_against() -> None:
    methods = stubs.table(good=stubs.truth)
    plan = stubs.plan(methods, edits=("motion",))
    assert {name for name, _, _ in plan.clips()} == {
        "truth",
        "plain",
        "good",
    }  # no source where there is no source clip
    some = dataclasses.replace(plan, edits=("colour", "style"), colour=3, others=1)
    assert len(some.clips()) == 4 * (3 + 1)


def test_what_is_found_for_a_clip_is_found_once() -> None:
    shop, made = stubs.shop(), []
    for key in (1, 1, 2, 2, 1):
        assert shop.once("tuned", key, lambda key=key: made.append(key) or key) == key
        shop.once("nulls", 0, lambda: made.append("nulls"))
    assert made == [1, "nulls", 2, 1]


def test_psnr_of_a_known_difference() -> None:
    import torch

    frames = torch.zeros(2, 3, 4, 4)
    assert psnr(frames + 0.1, frames) == pytest.approx(20, abs=1e-3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless it is moved."""
    now = [0.0]
    monkeypatch.setattr("editors.evidence.methods.time.monotonic", lambda: now[0])
    return now


def test_what_is_shared_is_paid_by_all_that_use_it_and_once(clock: list[float]) -> None:
    shop = stubs.shop()

    def takes(seconds: float) -> None:
        clock[0] += seconds

    def inversion() -> None:
        shop.once("inversion", 0, lambda: takes(5))

    def nulls() -> None:
        def find() -> None:
            inversion()
            takes(30)

        shop.once("nulls", 0, find)

    def edit(*uses: Callable[[], None]) -> float:
        def work() -> None:
            for use in uses:
                use()
            takes(2)

        return shop.timed(work)[1]

    assert edit() == 2
    assert edit(inversion) == 2 + 5  # which finds it
    assert edit(inversion, inversion) == 2 + 5
    assert edit(inversion, nulls) == 2 + 5 + 30
    assert edit(nulls) == 2 + 5 + 30
    assert edit() == 2
    fresh = stubs.shop()
    assert fresh.timed(lambda: fresh.once("nulls", 0, lambda: fresh.once("inversion", 0, lambda: takes(5))))[1] == 5
    assert fresh.timed(lambda: fresh.once("nulls", 0, lambda: None))[1] == 5


def test_seconds_of_a_row_hold_what_another_row_found(tmp_path: Path, clock: list[float]) -> None:
    def tuned(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
        shop.once("tuned", trial.clip_name, lambda: clock.__setitem__(0, clock[0] + 60))
        clock[0] += 4
        return stubs.truth(shop, trial, clip)

    methods = stubs.table(one=tuned, other=tuned)
    rows = stubs.rows(tmp_path, methods)
    run(stubs.shop(), stubs.plan(methods, 1, edits=("colour", "shape")), rows)
    seconds = {row.values["seconds"] for row in rows.rows.values() if row.method in ("one", "other")}
    assert seconds == {64.0}
