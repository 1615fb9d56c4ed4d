"""Checkpoints: folders `checkpoint-N` of safetensors and JSON, written whole or not at all.

A folder holds `weights`, `average` and `optimizer` (.safetensors) and `state.json` (step, seconds, configuration, digests of the clips and the frozen
weights, versions). Random states are not in it because there are none to keep: every draw is a function of (seed, step), see `recipe.Draw`.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from videogen.errors import InputError, reason
from videogen.files import BEFORE, replacing
from videogen.training.shards import full, like

Optimizers = Mapping[str, torch.optim.Optimizer]
NAME = re.compile(r"checkpoint-(\d+)")
HALF = (".checkpoint-*", ".validation-*", ".log-*")
"""Names of what is being written; left behind only by a run that was killed."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on. `optimizer` is keyed `optimizer/parameter/entry`; its scalars are tensors too.

    `average` is empty where none is kept.
    """

    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]

    @property
    def averaged(self) -> dict[str, Tensor]:
        """The weights that are judged and exported."""
        return self.average or self.weights


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within, no other run works in `folder`; it is made where it is missing, and what a killed run had half written there is cleared away.

    A checkpoint that it was about to replace has its name again, so what there is to resume is known from here on.
    The claim is a lock of the operating system, which ends with the process that holds it. Raises InputError where another run holds it.
    """
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"another run is working in {folder}; wait for it, or give another out=FOLDER") from None
    try:
        _put_back(folder)
        for pattern in HALF:
            for path in folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        lock.release()


def _put_back(folder: Path) -> None:
    """Give every checkpoint that a killed run took away, to put a new one of the step in its place, its name back."""
    for before in folder.glob(f".checkpoint-*/{BEFORE}"):
        name = NAME.match(before.parent.name.removeprefix("."))
        if name and not (folder / name[0]).exists():
            before.rename(folder / name[0])


def write(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder/checkpoint-N`, N being the state's step, then remove all but the newest `keep`.

    Later ones are of a run that was given up when this one went back behind them, and go too. Raises InputError where the disk is full or the
    folder cannot be written; the checkpoints that were there stay.
    """
    step = checkpoint.state["step"]
    target = folder / f"checkpoint-{step}"
    try:
        with replacing(target) as beside:
            beside.mkdir()
            for name in ("weights", "average", "optimizer"):
                tensors = {key: t.detach().cpu().contiguous() for key, t in getattr(checkpoint, name).items()}
                save_file(tensors, beside / f"{name}.safetensors")
            (beside / "state.json").write_text(json.dumps(checkpoint.state, indent=1))
            for file in beside.iterdir():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
    except (OSError, SafetensorError) as problem:
        raise InputError(
            f"the checkpoint {target} could not be written ({reason(problem)}); {_left(folder)}"
        ) from problem
    numbered = {int(path.name.partition("-")[2]): path for path in complete(folder)}
    kept = sorted(number for number in numbered if number <= step)[-keep:]
    for old in numbered.keys() - set(kept):
        _remove(numbered[old])
    return target


@contextlib.contextmanager
def exporting(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; each part written into it (a folder or a file) then takes its place in `folder` whole, and other parts there stay.

    What a killed export left half written there is cleared away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".export-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as beside:
        yield Path(beside)
        for part in sorted(Path(beside).iterdir()):
            with replacing(folder / part.name) as place:
                part.rename(place)


@contextlib.contextmanager
def cut_short(folder: Path) -> Iterator[None]:
    """Within, what the system refuses to a run in `folder` (a full disk, above all) is one line that says from where it can go on."""
    try:
        yield
    except OSError as problem:
        raise InputError(f"{problem.filename or folder}: {reason(problem)}; {_left(folder)}") from problem


def _left(folder: Path) -> str:
    """What a run in `folder` that broke off can go on from."""
    there = complete(folder)
    return (
        f"{there[-1]} is whole; make room and go on with --resume latest"
        if there
        else "no checkpoint was written before"
    )


def _remove(checkpoint: Path) -> None:
    """Take a checkpoint away: at once by its name, then its files, so that half of one never has the name."""
    if checkpoint.is_dir():
        away = checkpoint.with_name(f".{checkpoint.name}-removed")
        shutil.rmtree(away, ignore_errors=True)
        checkpoint.rename(away)
        shutil.rmtree(away)


def read(folder: Path) -> Checkpoint:
    """Read one checkpoint folder. Raises InputError where a file of it is missing or broken."""
    try:
        weights, average, optimizer = (
            load_file(folder / f"{name}.safetensors") for name in ("weights", "average", "optimizer")
        )
        return Checkpoint(weights, average, optimizer, json.loads((folder / "state.json").read_text()))
    except Exception as problem:
        raise InputError(f"{folder} is not a complete checkpoint: {problem}") from problem


def complete(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first. A half-written one has another name and is never among them."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / "state.json").is_file()]


def find(folder: Path, resume: str) -> Path:
    """The checkpoint that `resume` names: "latest", or the path of one. Raises InputError where there is none."""
    if resume != "latest":
        return Path(resume)
    found = complete(folder)
    if not found:
        raise InputError(f"nothing to resume: {folder} has no complete checkpoint; start without --resume")
    return found[-1]


def optimizer_tensors(optimizers: Optimizers, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """Every optimizer's state as flat, full tensors."""
    return {
        f"{title}/{names[parameter]}/{entry}": full(torch.as_tensor(value))
        for title, optimizer in optimizers.items()
        for parameter, entries in optimizer.state.items()
        for entry, value in entries.items()
    }


def restore_optimizers(optimizers: Optimizers, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`: each entry back in place, where and as its parameter is (scalars stay on the processor)."""
    by_name = {name: parameter for parameter, name in names.items()}
    for key, tensor in tensors.items():
        title, name, entry = key.split("/")
        if title not in optimizers or name not in by_name:
            raise InputError(f"the checkpoint has the optimizer state {key}, for which this run has no place")
        parameter = by_name[name]
        placed: Any = tensor
        if tensor.shape == parameter.shape and tensor.ndim:
            placed = like(tensor, parameter)
            if tensor.ndim == 4:  # channels-last kernels keep their memory's order
                placed = torch.empty_like(parameter, dtype=tensor.dtype).copy_(placed)
        elif tensor.ndim:
            placed = tensor.to(parameter.device)
        elif not tensor.is_floating_point():
            placed = int(tensor)  # the 8-bit optimizer counts its steps in a plain number
        optimizers[title].state[parameter][entry] = placed
