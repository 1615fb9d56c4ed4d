"""Checkpoints: folders `checkpoint-N` of safetensors and JSON, written whole or not at all.

A folder holds `weights`, `average` and `optimizer` (.safetensors) and `state.json` (step, seconds, configuration, versions). Random states are
not in it because there are none to keep: every draw is a function of (seed, step), see `recipe.Draw`.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from videogen.errors import InputError
from videogen.files import replacing

Optimizers = Mapping[str, torch.optim.Optimizer]
NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on. `optimizer` is keyed `optimizer/parameter/entry`; its scalars are tensors too."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def write(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder/checkpoint-N`, N being the state's step, then remove all but the newest `keep`."""
    target = folder / f"checkpoint-{checkpoint.state['step']}"
    with replacing(target) as beside:
        beside.mkdir()
        for name in ("weights", "average", "optimizer"):
            tensors = {key: t.detach().cpu().contiguous() for key, t in getattr(checkpoint, name).items()}
            save_file(tensors, beside / f"{name}.safetensors")
        (beside / "state.json").write_text(json.dumps(checkpoint.state, indent=1))
    for old in complete(folder)[:-keep]:
        shutil.rmtree(old)
    return target


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
    """Every optimizer's state as flat tensors."""
    return {
        f"{title}/{names[parameter]}/{entry}": torch.as_tensor(value)
        for title, optimizer in optimizers.items()
        for parameter, entries in optimizer.state.items()
        for entry, value in entries.items()
    }


def restore_optimizers(optimizers: Optimizers, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`: each entry back in place, on its parameter's device (scalars stay on the processor)."""
    by_name = {name: parameter for parameter, name in names.items()}
    for key, tensor in tensors.items():
        title, name, entry = key.split("/")
        parameter = by_name[name]
        placed = tensor.to(parameter.device) if tensor.ndim else tensor
        if tensor.shape == parameter.shape and tensor.ndim == 4:
            placed = torch.empty_like(parameter, dtype=tensor.dtype).copy_(placed)
        optimizers[title].state[parameter][entry] = placed
