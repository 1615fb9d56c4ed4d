"""Killed anywhere and resumed, a run is the run that was never stopped: weights, optimizer, average, and the batches that come."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.forked import CONTEXT, alone
from tests.toy import Toy, ToySettings
from videogen.training import Offer, checkpoints, train
from videogen.training.progress import Journal

pytestmark = pytest.mark.skipif(CONTEXT is None, reason="needs children that are forked")

STEPS = 12
Point = tuple[str, int]


def die() -> None:
    """As when the machine takes the process away."""
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal(Toy):
    """Dies where it is told, and keeps every batch it was fed with in a file of its own."""

    def __init__(self, settings: ToySettings, seen: Path, point: Point) -> None:
        super().__init__(settings)
        self.seen, (self.where, self.when), self.made = seen, point, 0

    def batches(self, draws):  # type: ignore[no-untyped-def]
        def noted():  # type: ignore[no-untyped-def]
            for draw in draws:
                self.draw = draw
                yield draw

        for batch in super().batches(noted()):
            save_file({"batch": batch.clone()}, self.seen / f"{self.draw.step}-{self.draw.part}.safetensors")
            yield batch

    def losses(self, batch):  # type: ignore[no-untyped-def]
        for number, (group, thunk) in enumerate(super().losses(batch)):
            yield group, lambda thunk=thunk, number=number: self.dying(thunk, number)

    def dying(self, thunk: Callable[[], dict[str, torch.Tensor]], number: int) -> dict[str, torch.Tensor]:
        self.made += 1
        call = (self.made - 1) % 4  # two losses, each of two micro-batches, one after the other
        if self.draw.step == self.when and (self.where, call) in (("step", 0), ("accumulation", 1), ("between", 2)):
            die()
        return thunk()

    def judge(self) -> dict[str, float]:
        if self.where == "judgement" and self.draw.step + 1 == self.when:
            die()
        return super().judge()

    def validate(self, folder: Path) -> dict[str, float]:
        figures = super().validate(folder)
        if (self.where, self.when) == ("validation", int(folder.name.partition("-")[2])):
            die()
        return figures


def run(config: Path, out: Path, point: Point = ("nowhere", 0)) -> None:
    """The run, or what is left of it; points called `write` and `remove` are the n-th file of a checkpoint, and the n-th old one half removed,
    those called `tell` the line that tells of a validation.
    """
    seen, writes, removals = out.with_name(out.name + "-seen"), 0, 0
    seen.mkdir(exist_ok=True)
    save, rmtree, tell = checkpoints.save_file, shutil.rmtree, Journal.write

    def dying(tensors: dict[str, torch.Tensor], path: Path) -> None:
        nonlocal writes
        writes += 1
        if point == ("write", writes):
            path.write_bytes(b"half")
            die()
        save(tensors, path)

    def removing(path: Path, *args: Any, **how: Any) -> None:
        nonlocal removals
        if (old := Path(path)).name.endswith("-removed") and old.is_dir():
            removals += 1
            if point == ("remove", removals):
                (old / "weights.safetensors").unlink()
                die()
        rmtree(path, *args, **how)

    def telling(journal: Journal, line: dict[str, Any]) -> None:
        if "validated" in line and point == ("tell", line["step"]):
            die()
        tell(journal, line)

    checkpoints.save_file, checkpoints.shutil.rmtree = dying, removing  # type: ignore[attr-defined]
    Journal.write = telling  # type: ignore[method-assign]
    resume = "latest" if checkpoints.complete(out) else None
    offers = {"toy": lambda: Offer(ToySettings, lambda settings: Mortal(settings, seen, point))}
    train(config, [f"out={out}"], resume, offers=offers)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("killed") / "toy.yaml"
    path.write_text(
        f"recipe: toy\nout: nowhere\nbudget: {{steps: {STEPS}}}\nthreads: 1\naccumulate: 2\ncheckpoints_total_limit: 2\n"
        "every: {log: 1, checkpoint: 3, validate: 4, judge: 3}\noptimization: {average: 0.9, schedule: linear, warmup: 2}\nsettings: {rows: 4}\n"
    )
    return path


@pytest.fixture(scope="module")
def whole(config: Path) -> Path:
    out = config.parent / "whole"
    assert alone(run, config, out) == 0
    return out


def tensors(folder: Path, pattern: str) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(folder)}/{name}": tensor
        for file in sorted(folder.glob(pattern))
        for name, tensor in load_file(file).items()
    }


def steps_of(log: Path, kind: str) -> list[int]:
    """The steps of the lines that tell of this."""
    return [line["step"] for line in map(json.loads, log.read_text().splitlines()) if kind in line]


def assert_the_same_run(config: Path, whole: Path, out: Path, point: Point) -> None:
    assert alone(run, config, out, point) == -signal.SIGKILL
    assert alone(run, config, out) == 0
    for first, second, pattern in (
        (whole, out, "checkpoint-*/*.safetensors"),
        (whole, out, "validation-*/*.safetensors"),
        (whole.with_name("whole-seen"), out.with_name(out.name + "-seen"), "*.safetensors"),
    ):
        expected, found = tensors(first, pattern), tensors(second, pattern)
        assert expected.keys() == found.keys()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    for kind in ("rate", "judged", "validated"):
        told = [steps_of(path / "log.jsonl", kind) for path in (whole, out)]
        assert told[0] == told[1]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())


@pytest.mark.parametrize(
    "point", [("accumulation", 7), ("judgement", 6), ("validation", 8), ("tell", 12), ("write", 8)], ids=str
)
def test_killed_and_resumed(config: Path, whole: Path, tmp_path: Path, point: Point) -> None:
    assert_the_same_run(config, whole, tmp_path / "out", point)


EVERYWHERE = (
    [(where, step) for where in ("step", "accumulation", "between") for step in range(STEPS)]
    + [(where, step) for where in ("validation", "tell") for step in (4, 8, 12)]
    + [("judgement", step) for step in (3, 6, 9)]
    + [("write", file) for file in range(1, 13)]
    + [("remove", old) for old in (1, 2)]
)


@pytest.mark.slow
@pytest.mark.parametrize("point", EVERYWHERE, ids=str)
def test_killed_anywhere_and_resumed(config: Path, whole: Path, tmp_path: Path, point: Point) -> None:
    assert_the_same_run(config, whole, tmp_path / "out", point)
