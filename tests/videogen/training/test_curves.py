"""Loss curves: what is read from a log, and a picture of it."""

import json
from pathlib import Path

import pytest

from videogen.errors import InputError
from videogen.training.curves import draw, read_log, series

LINES = [
    {"step": 1, "seconds": 0.0, "a.loss": 2.0, "a.norm": 9.0, "rate": 0.1},
    {"step": 2, "seconds": 60.0, "a.loss": 1.0, "rate": 0.2},
    {"step": 2, "seconds": 90.0, "judged": {"right": 0.5}},
    {"step": 3, "seconds": 120.0, "a.loss": None},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return tmp_path


def test_losses_and_judged_figures_over_minutes(run: Path) -> None:
    assert series(read_log(run)) == {"a.loss": ([0.0, 1.0], [2.0, 1.0]), "right": ([1.5], [0.5])}


def test_a_folder_without_a_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no log\.jsonl"):
        read_log(tmp_path)


def test_the_picture_is_a_png(run: Path) -> None:
    pytest.importorskip("matplotlib")
    draw([run], run / "curves.png")
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
