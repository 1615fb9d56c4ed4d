"""Checkpoints are whole or absent, and only the newest stay."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.forked import CONTEXT, alone
from videogen.errors import InputError
from videogen.training import checkpoints
from videogen.training.checkpoints import Checkpoint


def made(step: int) -> Checkpoint:
    return Checkpoint(
        {"a": torch.ones(2)}, {"a": torch.zeros(2)}, {"g.adamw/a/step": torch.tensor(3.0)}, {"step": step}
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    read = checkpoints.read(checkpoints.write(tmp_path, made(4), keep=2))
    assert torch.equal(read.weights["a"], torch.ones(2))
    assert torch.equal(read.average["a"], torch.zeros(2))
    assert read.optimizer["g.adamw/a/step"] == 3
    assert read.state == {"step": 4}


def test_the_newest_stay_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (8, 9, 10, 100):
        checkpoints.write(tmp_path, made(step), keep=2)
    assert [folder.name for folder in checkpoints.complete(tmp_path)] == ["checkpoint-10", "checkpoint-100"]
    assert checkpoints.find(tmp_path, "latest").name == "checkpoint-100"


def test_an_interrupted_save_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.write(tmp_path, made(1), keep=2)
    written: list[Path] = []

    def interrupted(tensors: object, path: Path) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        path.write_bytes(b"half")

    monkeypatch.setattr(checkpoints, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(tmp_path, made(2), keep=2)
    assert written
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert checkpoints.find(tmp_path, "latest").name == "checkpoint-1"


def test_a_checkpoint_that_is_written_again_has_its_name_all_the_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.write(tmp_path, made(4), keep=2)
    removed, rmtree = [], shutil.rmtree

    def watched(path: Path, **how: bool) -> None:
        removed.append([folder.name for folder in checkpoints.complete(tmp_path)])
        rmtree(path, **how)

    monkeypatch.setattr(shutil, "rmtree", watched)
    checkpoints.write(tmp_path, made(4), keep=2)
    assert removed
    assert all(there == ["checkpoint-4"] for there in removed)


@pytest.mark.skipif(CONTEXT is None, reason="needs children that are forked")
@pytest.mark.parametrize("renamed", [1, 2])
def test_a_checkpoint_that_was_written_again_when_its_run_was_killed_is_there_at_the_next_start(
    tmp_path: Path, renamed: int
) -> None:
    checkpoints.write(tmp_path, made(4), keep=2)
    checkpoints.write(tmp_path, made(6), keep=2)
    assert alone(killed, tmp_path, renamed) == -signal.SIGKILL
    with checkpoints.claimed(tmp_path):
        assert checkpoints.find(tmp_path, "latest").name == "checkpoint-6"
        assert sorted(path.name for path in tmp_path.glob("*checkpoint*")) == ["checkpoint-4", "checkpoint-6"]
    written = renamed == 2
    assert torch.equal(checkpoints.read(tmp_path / "checkpoint-6").weights["a"], torch.ones(2) + written)


def killed(folder: Path, renamed: int) -> None:
    """Writes `checkpoint-6` again, and is killed after so many renamings."""
    rename, count = os.replace, 0

    def dying(source: Path, place: Path) -> None:
        nonlocal count
        rename(source, place)
        count += 1
        if count == renamed:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = dying  # type: ignore[assignment]
    checkpoints.write(folder, dataclasses.replace(made(6), weights={"a": torch.full((2,), 2.0)}), keep=2)


def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, made(1), keep=2)
    (folder / "average.safetensors").unlink()
    with pytest.raises(InputError, match="not a complete checkpoint"):
        checkpoints.read(folder)
