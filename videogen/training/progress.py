"""What a run tells while it goes: JSON lines, a line on stderr, and tensorboard's event files where they are asked for."""

from __future__ import annotations

import json
import math
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import torch

from videogen.errors import InputError
from videogen.files import replacing

LOG = "log.jsonl"


class Journal:
    """Writes a run's lines: into `folder/log.jsonl`, shortened to stderr, and to tensorboard.

    What an earlier part of the run told of steps after `step` is dropped: a run goes on from there.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        self.path = folder / LOG
        _forget_after(self.path, step)
        self.events = _events(folder, step) if tensorboard else None
        self.file: IO[str] = self.path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """One line; it has `step`. Numbers become scalars of tensorboard; those that are not finite, for which JSON has no word, are null."""
        self.file.write(json.dumps(_finite(line), allow_nan=False) + "\n")
        self.file.flush()
        print(told(line), file=sys.stderr, flush=True)
        if self.events is not None:
            for name, value in _scalars(line):
                self.events.add_scalar(name, value, line["step"])
            self.events.flush()

    def told(self, step: int) -> set[str]:
        """What the lines of a step tell of, by the names of their entries."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return {name for line in lines if _step_of(line) == step for name in json.loads(line)}

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        if self.events is not None:
            self.events.close()


def _events(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as problem:
        raise InputError(
            "report_to: tensorboard is not installed; pip install 'videogen[tensorboard]', or leave report_to out"
        ) from problem
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def _scalars(line: dict[str, Any]) -> list[tuple[str, float]]:
    pairs = [(name, value) for name, value in line.items() if name != "step"]
    nested = [(f"{name}/{key}", one) for name, value in pairs if isinstance(value, dict) for key, one in value.items()]
    return [(name, float(value)) for name, value in pairs + nested if isinstance(value, int | float)]


def _finite(value: Any) -> Any:
    """The same with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _forget_after(path: Path, step: int) -> None:
    if path.is_file():
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        with replacing(path) as beside:
            beside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a line; beyond all steps for a line that was cut short when its run was killed."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def told(line: dict[str, Any]) -> str:
    """A line of the log in short, for people."""
    words = [f"step {line['step']}, {line['progress']:.1%} of the budget"]
    words += [
        f"{name.removesuffix('.loss')} loss {value:.4g}" for name, value in line.items() if name.endswith(".loss")
    ]
    if "clips_per_second" in line:
        words.append(f"{line['clips_per_second']:.3g} clips/s")
    words += [
        f"{line[name]:.1f} GiB{where}"
        for name, where in (("memory", ""), ("device_memory", " on the device"))
        if name in line
    ]
    if "left" in line:
        words.append(f"{span(line['left'])} left")
    spoken = ("step", "seconds", "progress", "rate", "clips_per_second", "memory", "device_memory", "left")
    others = {name: value for name, value in line.items() if name not in spoken and "." not in name}
    return ", ".join(words + [f"{name}: {value}" for name, value in others.items()])


def span(seconds: float) -> str:
    """A length of time in words that fit its size."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


class Pace:
    """How fast a run goes, between one line of the log and the next."""

    def __init__(self, progress: float) -> None:
        self._begin(progress)

    def _begin(self, progress: float) -> None:
        self.items, self.since, self.progress = 0, time.monotonic(), progress

    def figures(self, progress: float) -> dict[str, float]:
        """Clips a second since the last call (where clips were counted), peak memory in GiB, seconds left; begins anew."""
        passed, gained = time.monotonic() - self.since, progress - self.progress
        told = {"clips_per_second": round(self.items / passed, 3)} if self.items and passed > 0 else {}
        told |= peak_memory()
        if gained > 0:
            told["left"] = round((1 - progress) / gained * passed, 1)
        self._begin(progress)
        return told


def peak_memory() -> dict[str, float]:
    """The most memory so far, in GiB: of this process, and on the GPU where there is one."""
    try:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    except ImportError:  # Windows
        peak = import_module("psutil").Process().memory_info().peak_wset
    told = {"memory": round(peak / 2**30, 3)}
    if torch.cuda.is_available():
        told["device_memory"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return told
