"""The measuring can pass and can fail: true renders are right, and what is broken in them, and only that, is found wrong."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.metrics import text_to_video as measuring
from videogen.metrics.journal import Journal, Record
from videogen.metrics.trials import Plan, Source, Trial, true_renders
from videogen.shapes import Scenes, parse, render, world

PLAN = Plan(count=18, held_out=6)
SIMPLE = Plan(count=12, held_out=0, simple=True)
TRUE = true_renders(world.FRAMES, world.SIZE)


def measured(
    source: Source, plan: Plan, folder: Path, after: Callable[[Record, Tensor], None] | None = None
) -> Journal:
    journal = Journal(folder, {"plan": str(plan)})
    measuring.run(source, "model", plan, journal, blocks=plan.blocks(5), after=after or (lambda record, clip: None))
    return journal


def shares(journal: Journal, table: str) -> dict[str, tuple[int, int]]:
    """Figure -> (right, of) of one table."""
    for found, rows in measuring.figures({"model": list(journal.records.values())}):
        if found.key == table:
            return {row.name: (row.shares["model"].hits, row.shares["model"].of) for row in rows}
    raise AssertionError(f"no table {table}")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return measured(TRUE, PLAN, tmp_path_factory.mktemp("truth") / "run")


@pytest.mark.parametrize("table", [table.key for table in measuring.TABLES])
def test_true_renders_are_right_in_everything(truth: Journal, table: str) -> None:
    """The measuring program may misread one clip in 200: here one of a table's at most."""
    for name, (right, of) in shares(truth, table).items():
        assert right >= of - 1, name


def test_tables_divide_the_clips_as_their_titles_say(truth: Journal) -> None:
    sizes = {table.key: max(s.of for r in rows for s in r.shares.values()) for table, rows in
             measuring.figures({"model": list(truth.records.values())})}  # fmt: skip
    simple = [parse(PLAN.trial(("test", n)).prompt) for n in range(18) if n % 3 != 2]
    plain = sum(w.style == "flat" and w.background in world.PLAIN_BACKGROUNDS for w in simple)
    assert sizes == {"one_object": 12, "simple": plain, "two_objects": 6, "held_out_one": 4, "held_out_two": 2}
    one = shares(truth, "one_object")
    assert one["direction"][1] + one["other motions"][1] == one["motion"][1] == 12
    assert one["direction"][1] == sum(w.objects[0].motion in world.DIRECTIONS for w in simple)


def colours_changed(scenes: Scenes) -> Scenes:
    """Every object in the next of the eight colours."""
    table = torch.tensor(list(world.COLOURS.values())) / 255
    return scenes.change(rgb=table[(scenes.colour + 1) % len(table)])


def ground_changed(scenes: Scenes) -> Scenes:
    """The next of the four plain backgrounds, which stand first."""
    chosen = (scenes.background + 1) % len(world.PLAIN_BACKGROUNDS)
    table = torch.tensor([world.BACKGROUNDS[name] for name in world.PLAIN_BACKGROUNDS]) / 255
    return scenes.change(background=chosen, ground=table[chosen])


def shapes_changed(scenes: Scenes) -> Scenes:
    """Another shape that has corners, so that it can still be seen to rotate."""
    return scenes.change(shape=torch.tensor([1, 2, 3, 1])[scenes.shape])


def motions_changed(scenes: Scenes) -> Scenes:
    """Time runs backwards, what rotated stands still, and what stood still grows."""
    still = scenes.motion == world.MOTIONS.index("standing still")
    growth = torch.where(still, torch.tensor(1.4), 1 / scenes.growth)
    return scenes.change(travel=-scenes.travel, turn=torch.zeros_like(scenes.turn), growth=growth)


def drawn(change: Callable[[Scenes], Scenes]) -> Source:
    """True renders of changed scenes."""

    def clips(trials: Sequence[Trial]) -> Tensor:
        return render(change(world.concatenate([trial.scene for trial in trials]))).frames

    return clips


def half(change: Callable[[Scenes], Scenes]) -> Source:
    """True renders that change in the middle."""

    def clips(trials: Sequence[Trial]) -> Tensor:
        first, second = TRUE(trials), drawn(change)(trials)
        return torch.cat([first[:, :9], second[:, 9:]], dim=1)

    return clips


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        (drawn(colours_changed), {"colour"}),
        (drawn(ground_changed), {"background"}),
        (drawn(shapes_changed), {"shape"}),
        (drawn(motions_changed), {"motion", "direction", "other motions"}),
        (half(colours_changed), {"unchanged"}),
    ],
    ids=["colour", "background", "shape", "motion", "colour in mid-clip"],
)
def test_what_is_broken_is_wrong_and_nothing_else(source: Source, wrong: set[str], tmp_path: Path) -> None:
    for name, (right, of) in shares(measured(source, SIMPLE, tmp_path / "run"), "simple").items():
        if name in wrong | {"everything"}:
            assert right == 0, name
        else:
            assert right >= of - 1, name


def test_another_shape_in_mid_clip_is_a_change(tmp_path: Path) -> None:
    plan = Plan(count=6, held_out=0, simple=True)
    assert shares(measured(half(shapes_changed), plan, tmp_path / "run"), "simple")["unchanged"] == (0, 6)


def test_nothing_there_is_wrong_and_unknown(tmp_path: Path) -> None:
    """Empty backgrounds: no object, so no colour, shape or motion; only the background is right."""

    def empty(trials: Sequence[Trial]) -> Tensor:
        ground = torch.stack([trial.scene.ground[0, 0] for trial in trials])
        return ground[:, None, :, None, None].expand(-1, world.FRAMES, -1, world.SIZE, world.SIZE).clone()

    journal = measured(empty, SIMPLE, tmp_path / "run")
    ((_, rows),) = [
        (t, r) for t, r in measuring.figures({"model": list(journal.records.values())}) if t.key == "simple"
    ]
    for row in rows:
        share = row.shares["model"]
        assert share.hits == (share.of if row.name == "background" else 0), row.name
        if row.name in ("colour", "shape", "motion", "direction"):
            assert share.unknown == share.of
    reading = measuring.breakdown({"model": list(journal.records.values())}, "model")
    assert {name for row in reading["shape"] for name, _ in row.mistakes} == {"no object"}


def test_another_caption_is_right_as_often_as_the_two_agree(tmp_path: Path) -> None:
    """Each clip shows what the next prompt asks for: figures equal the counts made from the prompts alone."""
    plan = Plan(count=15, held_out=0, simple=True)

    def shifted(trials: Sequence[Trial]) -> Tensor:
        return TRUE([plan.trial(("test", (trial.number + 1) % 15)) for trial in trials])

    found = shares(measured(shifted, plan, tmp_path / "run"), "simple")
    wanted = [parse(plan.trial(("test", n)).prompt) for n in range(15)]
    pairs = list(zip(wanted, wanted[1:] + wanted[:1]))
    for name in ("colour", "shape", "motion"):
        agreeing = sum(getattr(a.objects[0], name) == getattr(b.objects[0], name) for a, b in pairs)
        assert abs(found[name][0] - agreeing) <= 1, name
        assert agreeing < 10
    assert found["background"][0] == sum(a.background == b.background for a, b in pairs)


def test_breakdown_counts_each_value_where_it_is_asked_for(truth: Journal) -> None:
    records = list(truth.records.values())
    found = measuring.breakdown({"model": records}, "model")
    assert set(found) == {"colour", "shape", "motion", "background"}
    for rows in found.values():
        assert sum(row.shares["model"].of for row in rows) == 12
    circles = next(row for row in found["shape"] if row.name == "circle")
    assert circles.shares["model"].of == sum(
        " circle " in r.prompt for r in records if r.split == "test" and r.number % 3 != 2
    )


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    def damaged(trials: Sequence[Trial]) -> Tensor:
        clips = torch.zeros(len(trials), 2, 3, 16, 16)
        clips[2, 1, 0, 3, 3] = torch.nan
        return clips

    prompt = SIMPLE.trial(("test", 2)).prompt
    with pytest.raises(InputError, match=f"{prompt}.*no numbers"):
        measured(damaged, SIMPLE, tmp_path / "run")


SHORT = Plan(count=7, held_out=3)
SMALL = true_renders(3, 64)


def stopping(after: int) -> Source:
    """True renders, until somebody presses Ctrl-C."""
    calls: Iterator[int] = iter(range(after))

    def clips(trials: Sequence[Trial]) -> Tensor:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return SMALL(trials)

    return clips


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_stopped_run_goes_on_to_the_same_end(blocks: int, tmp_path: Path) -> None:
    whole = measured(SMALL, SHORT, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        measured(stopping(blocks), SHORT, tmp_path / "stopped")
    resumed = measured(SMALL, SHORT, tmp_path / "stopped")
    assert resumed.lines.read_bytes() == whole.lines.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 0.93, 0.999])
def test_a_run_killed_while_it_writes_goes_on_to_the_same_end(share: float, tmp_path: Path) -> None:
    """The file is cut off anywhere; blocks are made again whole, as a model's rounding depends on its neighbours."""
    whole = measured(SMALL, SHORT, tmp_path / "run")
    content, records = whole.lines.read_bytes(), whole.records
    whole.lines.write_bytes(content[: int(len(content) * share)])
    blocks: list[int] = []

    def noting(trials: Sequence[Trial]) -> Tensor:
        blocks.append(len(trials))
        return SMALL(trials)

    resumed = measured(noting, SHORT, tmp_path / "run")
    assert resumed.lines.read_bytes() == content
    assert Journal(tmp_path / "run", {"plan": str(SHORT)}).records == records
    assert blocks
    assert blocks == [5, 2, 3][3 - len(blocks) :]


def test_a_finished_run_makes_nothing_and_a_longer_one_adds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", {})
    seen: list[str] = []
    for plan in (SHORT, SHORT, Plan(count=9, held_out=3)):
        measuring.run(
            SMALL,
            "model",
            plan,
            journal,
            blocks=plan.blocks(5),
            after=lambda r, clip: seen.append(f"{r.split} {r.number}"),
        )
    assert len(seen) == len(set(seen)) == 12
