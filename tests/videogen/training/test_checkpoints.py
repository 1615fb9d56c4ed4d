"""Checkpoints are whole or absent, and only the newest stay."""

import shutil
from pathlib import Path

import pytest
import torch

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


def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, made(1), keep=2)
    (folder / "average.safetensors").unlink()
    with pytest.raises(InputError, match="not a complete checkpoint"):
        checkpoints.read(folder)
