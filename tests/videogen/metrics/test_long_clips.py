"""Jumps and lost colours are read from true renders as they were put in; a way is held against the plain one on the same clips."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import folders
from videogen.cli import app
from videogen.metrics.long_clips import FLICKER, JUMP, MEANS, SHARES, WAYS, read
from videogen.metrics.ways import Row, figures
from videogen.shapes import measure, render, sample


@pytest.fixture(scope="module")
def clip() -> Tensor:
    """An object that moves at a steady pace."""
    generator = torch.Generator().manual_seed(3)
    scenes = sample(1, generator=generator, objects=1, plain=True, styles=("flat",), motions=("moving right",))
    return render(scenes).frames[0]


def test_a_true_render_holds_together(clip: Tensor) -> None:
    shares, means = read(clip)
    assert all(shares.values())
    assert means[JUMP] < 1
    assert means[FLICKER] == pytest.approx(100 * float(clip.diff(dim=0).abs().mean()))


def test_a_clip_put_together_from_two_jumps_by_the_frames_left_out(clip: Tensor) -> None:
    """With 9 of 16 frames left out an object at a steady pace goes ten times its way at once."""
    centres = measure(clip[None])[0].objects[0].centres
    pace = float((centres[-1] - centres[0]).norm()) / 15
    shares, means = read(torch.cat([clip[:3], clip[12:]]))
    assert all(shares.values())
    assert means[JUMP] == pytest.approx(9 * pace, abs=1)


def test_another_colour_in_some_frames_is_read(clip: Tensor) -> None:
    shares, _ = read(torch.cat([clip[:8], clip[8:].flip(1)]))
    assert not shares["same colour"]
    assert shares["one object"]


def test_nothing_to_see_is_no_jump_and_no_object(clip: Tensor) -> None:
    shares, means = read(torch.full_like(clip, 0.05))
    assert not any(shares.values())
    assert math.isnan(means[JUMP])


def test_differences_are_those_of_pairs_and_what_was_not_seen_is_left_out() -> None:
    def row(way: str, number: int, jump: float, same: bool) -> Row:
        return Row(way, number, "", 0, dict.fromkeys(SHARES, same), dict.fromkeys(MEANS, jump))

    jumps = {"row": (9.0, 7.0, math.nan), "windows": (2.0, 2.0, 1.0)}
    rows = {
        (way, number): row(way, number, jumps.get(way, (5.0, 5.0, 5.0))[number], way != "row")
        for way in WAYS
        for number in range(3)
    }
    found = {one.way.name: one for one in figures(WAYS.values(), rows, 3)}
    value, change = found["windows"].means[JUMP]
    assert value.value == pytest.approx(5 / 3)
    assert change is not None
    assert (change.value, change.of) == (-6.0, 2)
    share, more = found["windows"].shares["same colour"]
    assert (share.hits, share.of) == (3, 3)
    assert more is not None
    assert more.value == 1
    assert found["plain"].means[JUMP][1] is None


def test_the_command_writes_its_section_and_goes_on_where_it_was(tmp_path: Path) -> None:
    model = tmp_path / "model"
    folders.animatediff(model)
    words = [
        "evaluate",
        "long",
        "--model",
        str(model),
        "--count",
        "2",
        "--frames",
        "2",
        "--times",
        "2",
        "--steps",
        "1",
        "--quiet",
    ]
    words += ["--out", str(tmp_path / "run"), "--report", str(tmp_path / "results.md")]
    assert app.main(words) == 0
    made = (tmp_path / "run" / "clips.jsonl").read_text()
    assert len(made.splitlines()) == 2 * len(WAYS)
    values = json.loads((tmp_path / "results.json").read_text())["long_clips"]
    assert set(values["ways"]) == set(WAYS)
    text = (tmp_path / "results.md").read_text()
    assert f"Made by `{values['command']}`." in text
    assert (tmp_path / "pictures" / "long_clips.png").is_file()
    assert app.main(words) == 0
    assert (tmp_path / "run" / "clips.jsonl").read_text() == made
    assert (tmp_path / "results.md").read_text() == text
    shared = [*words, "--out", str(tmp_path / "shared")]
    for portion in ("2/2", "1/2"):
        assert app.main([*shared, "--portion", portion]) == 0
    lines = (tmp_path / "shared" / "clips.jsonl").read_text().splitlines()
    assert sorted(lines) == sorted(made.splitlines())
