"""Figures are the counts, verdicts follow the intervals, and the section lives beside other evidence."""

import json
from pathlib import Path

import pytest
from PIL import Image

from editors.evidence import section
from editors.evidence.figures import all_figures, bounds, figures, targets
from editors.evidence.methods import METHODS
from editors.evidence.runs import Key, Plan, Row, Rows, run
from editors.evidence.sheets import verdict, write_sheet
from editors.evidence.trials import trial
from tests.editors.evidence import stubs
from videogen.metrics import document

STAYED = ("position", "motion", "shape", "style", "background", "count")


def row(method: str, number: int, done: bool | None, kept: bool, edit: str = "colour", **values: float) -> Row:
    stayed = dict.fromkeys(STAYED, True) | {"position": kept}
    return Row(method, edit, number, "one object", "a", "b", 0, done, stayed, {"seconds": 1.0, **values}, None)


def rows(*some: Row) -> dict[Key, Row]:
    return {one.key: one for one in some}


def compared(ours: list[tuple[bool, bool]], plain: list[tuple[bool, bool]]) -> bool | None:
    """Whether a method with these (done, kept) is better than the plain way with those."""
    some = [
        row(m, n, *flags) for m, part in (("sdedit", ours), ("ddim_inversion", plain)) for n, flags in enumerate(part)
    ]
    found = figures(rows(*some), Plan(("sdedit",)), "sdedit", "colour")
    assert found is not None
    return found.better


def test_better_is_up_in_one_and_not_down_in_the_other() -> None:
    good, lazy, wild, bad = (True, True), (False, True), (True, False), (False, False)
    assert compared([good] * 24, [lazy] * 24)
    assert compared([good] * 24, [wild] * 24)
    assert not compared([good] * 24, [good] * 24)
    assert not compared([wild] * 24, [lazy] * 24)  # up in one, down in the other
    assert not compared([lazy] * 24, [wild] * 24)
    assert not compared([good], [bad])  # one clip proves nothing
    assert compared([good] * 20 + [lazy] * 4, [bad] * 24)


def test_without_the_plain_way_on_the_same_clips_nothing_is_compared() -> None:
    found = figures(
        rows(row("sdedit", 0, True, True), row("ddim_inversion", 1, True, True)), Plan(("sdedit",)), "sdedit", "colour"
    )
    assert found is not None
    assert found.better is None
    assert found.plain_done is None
    assert figures({}, Plan(("sdedit",)), "sdedit", "colour") is None


def test_figures_are_the_counts() -> None:
    flags = [(True, True), (True, False), (False, True), (True, True)]
    some = [row("sdedit", n, *f, change=0.02 * n, distance=1.0) for n, f in enumerate(flags)]
    some += [row("source", n, False, True, change=0.01) for n in range(4)]
    found = figures(rows(*some), Plan(("sdedit",), colour=8), "sdedit", "colour")
    assert found is not None
    assert found.done is not None
    assert (found.done.hits, found.done.of, found.asked) == (3, 4, 8)
    assert (found.kept.hits, found.stayed["position"].hits, found.stayed["motion"].hits) == (3, 3, 4)
    assert [found.change.value, found.change_of_vae.value] == pytest.approx([0.03, 0.01])
    assert not found.velocity.of


@pytest.mark.parametrize(
    ("done", "change", "near", "verdicts"),
    [
        (58, 0.049, 58, ["met", "met", "met"]),
        (57, 0.05, 57, ["missed", "missed", "missed"]),  # 57 of 64 are fewer than nine tenths
        (0, 1.0, 0, ["missed", "missed", "missed"]),
    ],
)
def test_targets_of_the_colour_edit_do_not_bend(done: int, change: float, near: int, verdicts: list[str]) -> None:
    plan = Plan(("sdedit",))
    some = [row("sdedit", n, n < done, n < near, change=change) for n in range(64)]
    found = targets(all_figures(rows(*some), plan), plan, 50)
    assert [t.verdict for t in found] == verdicts
    fewer = targets(all_figures(rows(*some[:12]), plan), plan, 50)
    assert {t.verdict for t in fewer} <= {"met so far", "missed so far"}


def test_gains_are_asked_of_fifty_steps() -> None:
    plan = Plan(("fatezero", "null_text"))
    some = [row("ddim_inversion", n, None, True, "reconstruction", psnr=20.0 + n) for n in range(24)]
    some += [row("fatezero", n, None, True, "reconstruction", psnr=23.1 + n) for n in range(24)]
    some += [row("null_text", n, None, True, "reconstruction", psnr=29.9 + n) for n in range(12)]
    found = targets(all_figures(rows(*some), plan), plan, 50)
    assert [(t.method, t.verdict) for t in found] == [("fatezero", "met"), ("null_text", "missed")]
    assert targets(all_figures(rows(*some), plan), plan, 10) == []


def test_text2video_zero_is_asked_for_one_colour_in_every_clip() -> None:
    plan = Plan(("text2video_zero",))

    def told(same: bool) -> list[Row]:
        made = [row("text2video_zero", n, n > 0, True, "motion") for n in range(64)]
        return [Row(**{**vars(r), "stayed": {"one colour": same or r.number > 0, "colour": True}}) for r in made]

    for same, word in ((True, "met"), (False, "missed")):
        found = targets(all_figures(rows(*told(same)), plan), plan, 50)
        assert [(t.what, t.verdict) for t in found] == [("one colour in all frames", word), ("motion as asked", "met")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Rows]:
    methods = stubs.table(good=stubs.truth, frozen=stubs.stills)
    rows = stubs.rows(tmp_path_factory.mktemp("run"), methods)
    plan = stubs.plan(methods, 1, edits=("colour", "background", "reconstruction", "motion"))
    run(stubs.shop(), plan, rows)
    return plan, rows


def results(plan: Plan, rows: Rows, pictures: dict[str, str]) -> section.Results:
    found = all_figures(rows.rows, plan)
    return section.Results(
        "videogen evaluate editing", plan.table, found, targets(found, plan, 50), bounds(rows.rows), ["A model."], {"settings": {}}, pictures
    )  # fmt: skip


def test_the_section_lives_beside_other_evidence(made: tuple[Plan, Rows], tmp_path: Path) -> None:
    whole = results(*made, {})
    path = tmp_path / "results.md"
    path.write_text("# Results\n\n<!-- a -->\n\nOther.\n\n<!-- b -->\n", encoding="utf-8")
    path.with_suffix(".json").write_text('{"text_to_video": {"figure": 3}}')
    for _ in range(2):
        document.put(path, section.KEY, section.markdown(whole), section.to_dict(whole))
    document.put(path, "text_to_video", "<!-- a -->\n\nNew.\n\n<!-- b -->", {"figure": 4})
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Results\n\n<!-- a -->\n\nNew.\n\n<!-- b -->\n\n<!-- editing")
    assert text.count(section.BEGIN) == text.count(section.END) == 1
    values = json.loads(path.with_suffix(".json").read_text())
    assert values["text_to_video"] == {"figure": 4}
    assert values["editing"] == section.to_dict(whole)
    good = values["editing"]["methods"]["good"]["colour"]
    assert (good["done"]["share"], good["kept"]["share"], good["plain_done"]["share"]) == (1, 1, 0)
    assert values["editing"]["bounds"]["colour"]["truth kept"]["share"] == 1
    assert {line["verdict"] for line in values["editing"]["targets"]} <= {"met so far", "missed so far"}


def test_every_table_and_picture_has_its_command_beneath(made: tuple[Plan, Rows]) -> None:
    blocks = section.markdown(results(*made, {"good": "good.png"})).split("\n\n")
    shown = [i for i, block in enumerate(blocks) if block.startswith(("|", "!["))]
    assert (
        len(shown) == 1 + 2 * 2 + 1 + 3
    )  # targets, two tables a method, a picture; reconstruction, clips from text, bounds
    assert all(blocks[i + 1] == "Made by `videogen evaluate editing`." for i in shown)
    for block in blocks:
        if block.startswith("|"):
            assert len({line.count(" | ") for line in block.splitlines()}) == 1, block


def test_a_sheet_has_a_line_for_source_edit_plain_and_mask(made: tuple[Plan, Rows], tmp_path: Path) -> None:
    plan, rows = made
    assert write_sheet(tmp_path / "good.png", rows, plan, "good")
    assert write_sheet(tmp_path / "frozen.png", rows, plan, "frozen")
    with Image.open(tmp_path / "good.png") as good, Image.open(tmp_path / "frozen.png") as frozen:
        lines = {
            name: round((picture.height - 6) / (18 + 96 + 6)) for name, picture in (("good", good), ("frozen", frozen))
        }
    # colour, background, reconstruction: source, edit, plain, and a mask where the method had one; clips from text have no source
    assert lines == {"good": 3 * 4 + 3, "frozen": 3 * 3 + 2}
    assert not write_sheet(tmp_path / "none.png", stubs.rows(tmp_path / "empty", dict(plan.table)), plan, "good")


def test_verdicts() -> None:
    assert verdict(row("sdedit", 0, True, False)) == "done, lost position"
    assert verdict(row("sdedit", 0, None, True, psnr=20.04)) == "20.0 dB, all else kept"


def test_the_table_of_methods_is_whole() -> None:
    """Every method is measured, on every edit of the plan, beside a plain way that has the same edits and frames."""
    import editors

    assert {method.file for method in METHODS.values()} - {""} == {*editors.METHODS} - {
        "prompt_pair"
    }  # which makes both of its clips from text
    for method in METHODS.values():
        if method.against is not None:
            plain = METHODS[method.against]
            assert {*method.edits} <= {*plain.edits}
            assert method.every == plain.every
    edits = {*METHODS["fatezero"].edits, *METHODS["fatezero_tuned"].edits}
    assert edits == {*METHODS["null_text"].edits} == {*stubs.ALL}


@pytest.mark.parametrize(("clips", "plain", "verdict"), [(12, 3, False), (24, 4, False), (24, 2, True), (20, 2, True)])
def test_a_method_that_does_nothing_is_not_better_for_want_of_clips(clips: int, plain: int, verdict: bool) -> None:
    """It keeps all and does nothing; plain does some and keeps half: fewer by more than a tenth is worse, whatever the interval."""
    half = [(n < plain, n % 2 == 0) for n in range(clips)]
    some = [(False, True)] * clips
    assert compared(some, half) is verdict


def test_a_difference_of_a_tenth_is_within_the_margin_however_it_is_rounded() -> None:
    assert all(
        compared([(n < a, True) for n in range(20)], [(n < a + 2, n % 2 == 0) for n in range(20)]) for a in range(19)
    )


def test_a_target_is_over_the_clips_that_have_its_figure() -> None:
    plan = Plan(("tune_a_video",))
    moving = [n for n in range(12) if trial("colour", n).moves]

    def verdicts(*numbers: int) -> dict[str, str]:
        some = [
            row("tune_a_video", n, True, True, "colour", **({"change": 0.01, "velocity": 0.1} if n in numbers else {}))
            for n in range(12)
        ]
        return {t.what.removeprefix("colour: "): t.verdict for t in targets(all_figures(rows(*some), plan), plan, 50)}

    assert verdicts(0)["error of the velocity"] == verdicts(0)["change elsewhere"] == "met so far"
    assert 0 < len(moving) < 12
    assert verdicts(*moving)["error of the velocity"] == "met"  # objects that stand still have none
    assert verdicts(*moving)["change elsewhere"] == "met so far"
    assert verdicts(*range(12))["change elsewhere"] == "met"


def test_a_mean_says_of_how_many_clips_it_is_where_some_have_none() -> None:
    plan = Plan(("sdedit",), colour=4)
    some = [
        row("sdedit", n, True, True, "colour", **({"change": 0.02, "distance": 1.0} if n else {})) for n in range(4)
    ]

    def shown(*some: Row) -> str:
        found = all_figures(rows(*some), plan)
        return section.markdown(section.Results("", plan.table, found, (), {}, (), {}, {}))

    assert "| 0.0200 [0.0200, 0.0200] of 3 |" in shown(*some)
    assert "| 1.00 [1.00, 1.00] of 3 |" in shown(*some)
    assert "] of " not in shown(*some[1:])


def test_the_bounds_tell_how_often_the_source_is_taken_for_the_edit(made: tuple[Plan, Rows]) -> None:
    text = section.markdown(results(*made, {}))
    assert "| edit | clips | source: done | source: kept |" in text
    assert section.to_dict(results(*made, {}))["bounds"]["colour"]["source done"]["share"] == 0
    (line,) = [line for line in text.split("what the measuring program")[1].splitlines() if line.startswith("| colour")]
    assert line.split("|")[3].startswith(" 0.000")
