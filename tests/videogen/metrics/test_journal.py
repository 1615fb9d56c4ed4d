"""The journal keeps runs apart and survives what a kill leaves behind."""

from pathlib import Path

import pytest

from videogen.errors import InputError
from videogen.metrics.journal import Journal, Record

SETTINGS = {"steps": 25, "guidance": 7.5, "model": "0123"}


def record(number: int, source: str = "model") -> Record:
    measured = {"background": "black", "style": None, "camera_still": None, "objects": []}
    return Record(source, "test", number, "a red circle on a black background", 7, measured, {"colour": False})


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "run", SETTINGS)
    journal.append([record(0), record(1)])
    journal.append([record(1), record(2), record(0, "renders")])
    again = Journal(tmp_path / "a" / "run", SETTINGS)
    assert again.records == journal.records
    assert list(again.records) == [
        ("model", "test", 0),
        ("model", "test", 1),
        ("model", "test", 2),
        ("renders", "test", 0),
    ]
    assert again.records[("model", "test", 0)].wanted.objects[0].colour == "red"


@pytest.mark.parametrize(("name", "value"), [("steps", 10), ("guidance", 3.0), ("model", "4567"), ("eta", 1)])
def test_runs_with_other_settings_are_not_mixed(tmp_path: Path, name: str, value: object) -> None:
    Journal(tmp_path, SETTINGS).append([record(0)])
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(InputError, match=f"holds a run with {name} .*, this one has {value}"):
        Journal(tmp_path, {**SETTINGS, name: value})
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_lines_without_settings_are_refused(tmp_path: Path) -> None:
    Journal(tmp_path, SETTINGS).append([record(0)])
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match=r"without the run\.json"):
        Journal(tmp_path, SETTINGS)


@pytest.mark.parametrize("line", [b"{}\n", b"[1]\n", b"what\n", b'{"source": "model"\n'])
def test_a_foreign_line_is_named(tmp_path: Path, line: bytes) -> None:
    journal = Journal(tmp_path, SETTINGS)
    journal.append([record(0)])
    journal.lines.write_bytes(journal.lines.read_bytes() + line)
    with pytest.raises(InputError, match=r"line 2 of .*clips\.jsonl is no measured clip"):
        Journal(tmp_path, SETTINGS)


def test_a_damaged_note_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, SETTINGS)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        Journal(tmp_path, SETTINGS)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        Journal(tmp_path / "file" / "run", SETTINGS)
