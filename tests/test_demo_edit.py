"""`make demo-edit`, with few frames and steps: every method that edits makes a clip, and all are on the sheet."""

from pathlib import Path

import pytest

from editors.evidence.methods import MEASURED, METHODS
from editors.evidence.trials import RECONSTRUCTION
from scripts import demo_edit


def test_every_method_that_edits_makes_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FRAMES": 4, "STEPS": 4, "TUNING_STEPS": 1, "INNER_STEPS": 1}.items():
        monkeypatch.setattr(demo_edit, name, value)
    made = demo_edit.demo(tmp_path)
    editing = {name for name in MEASURED if set(METHODS[name].edits) != {RECONSTRUCTION}}
    assert {path.stem for path in made} == {*editing, "contact_sheet"}
    assert all(path.stat().st_size > 500 for path in made)
