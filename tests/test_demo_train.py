"""`make demo-train`: what is killed is killed, what is compared is really compared, and the whole leaves what it says."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scripts import demo_train
from videogen.errors import InputError


def checkpoint(folder: Path, **changes: torch.Tensor) -> Path:
    """Two files with a tensor each, one of them changed."""
    folder.mkdir()
    for name in ("weights", "optimizer"):
        save_file({"a": changes.get(name, torch.zeros(2))}, folder / f"{name}.safetensors")
    return folder


def test_equal_checkpoints_are_called_equal(tmp_path: Path) -> None:
    one, other = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "other")
    assert demo_train.compared(one, other) == (True, "resumed run equals uninterrupted: yes (2 tensors)")


@pytest.mark.parametrize("file", ["weights", "optimizer"])
def test_one_bit_makes_them_different(file: str, tmp_path: Path) -> None:
    last_bit = torch.nextafter(torch.zeros(2), torch.ones(2))
    one, other = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "other", **{file: last_bit})
    assert demo_train.compared(one, other) == (
        False, f"resumed run equals uninterrupted: no (1 of 2 tensors differ: {file}/a)",
    )  # fmt: skip


def test_nothing_is_not_equal_to_nothing(tmp_path: Path) -> None:
    assert not demo_train.compared(tmp_path, tmp_path)[0]


def test_a_missing_tensor_is_a_difference(tmp_path: Path) -> None:
    one, other = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "other")
    (other / "optimizer.safetensors").unlink()
    assert not demo_train.compared(one, other)[0]


def test_the_last_step_is_that_of_the_last_whole_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert demo_train.step_of(log) == 0
    log.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert demo_train.step_of(log) == 2


def test_a_run_that_ended_by_itself_was_not_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "true")
    with pytest.raises(InputError, match="has ended with code 0"):
        demo_train.kill("train", log=tmp_path / "log.jsonl", after=25)


def test_a_run_is_killed_once_its_log_is_far_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stands_for_python = tmp_path / "python"
    log = tmp_path / "log.jsonl"
    stands_for_python.write_text(f"#!/bin/sh\necho '{{\"step\": 26}}' > {log}\nexec sleep 60\n")
    stands_for_python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stands_for_python))
    demo_train.kill("train", log=log, after=25)
    assert "killed after step 26" in capsys.readouterr().out


def test_what_is_not_the_demos_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="did not make it"):
        demo_train.clear(tmp_path, tmp_path / "corpus")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "corpus.json").touch()
    demo_train.clear(tmp_path, tmp_path / "corpus")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.slow
def test_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo_train.main() == 0
    made = {path.name for path in demo_train.OUT.iterdir()}
    assert made >= {"checkpoint-25", "checkpoint-50", "motion_module.safetensors", "clip.mp4", "log.jsonl"}
    assert capsys.readouterr().out.splitlines()[-1].startswith("resumed run equals uninterrupted: yes (")
