"""Two processes with the same global batch train as one does; what data they have, they end together."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.forked import CONTEXT, together
from tests.toy import OFFERS, Toy, ToySettings
from videogen.errors import InputError
from videogen.training import Offer, checkpoints, train

ROOT = Path(__file__).parents[3]
forks = pytest.mark.skipif(CONTEXT is None, reason="needs children that are forked")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run of five steps with one random state for all processes."""
    path = tmp_path / "toy.yaml"
    path.write_text(
        f"recipe: toy\nout: {tmp_path}/one\nbudget: {{steps: 5}}\nthreads: 1\nevery: {{log: 1}}\n"
        "settings: {noisy: false, rows: 8}\n"
    )
    return path


def run(config: Path, *overrides: str) -> None:
    train(config, overrides, offers=OFFERS)


def losses(folder: Path) -> torch.Tensor:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return torch.tensor(
        [[line["first.loss"], line["second.loss"], line["first.norm"]] for line in lines if "rate" in line]
    )


@forks
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_have_the_losses_and_weights_of_one(config: Path, tmp_path: Path, accumulate: int) -> None:
    one = checkpoints.read(train(config, offers=OFFERS))
    assert together(2, run, config, f"out={tmp_path}/two", f"accumulate={accumulate}") == [0, 0]
    two = checkpoints.read(checkpoints.find(tmp_path / "two", "latest"))
    assert two.state["step"] == 5
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5, atol=1e-5)
    for name, weight in one.weights.items():
        torch.testing.assert_close(weight, two.weights[name], rtol=0, atol=1e-5, msg=name)


LAUNCHED = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "EAGER"}


def launched(config: Path, *overrides: str) -> None:
    """A run as `accelerate launch` starts it where `accelerate config` was told of half precision and compilation."""
    os.environ.update(LAUNCHED)
    run(config, *overrides)


@forks
def test_what_accelerates_own_configuration_says_of_precision_and_compilation_is_not_read(
    config: Path, tmp_path: Path
) -> None:
    for out, work in (("plain", run), ("launched", launched)):
        assert together(2, work, config, f"out={tmp_path}/{out}") == [0, 0]
    plain, other = (checkpoints.read(checkpoints.find(tmp_path / out, "latest")) for out in ("plain", "launched"))
    assert plain.weights.keys() == other.weights.keys()
    assert all(torch.equal(weight, other.weights[name]) for name, weight in plain.weights.items())


@forks
def test_data_that_end_early_in_one_process_end_the_run_in_all(config: Path, tmp_path: Path) -> None:
    assert together(2, run, config, "settings.ends=[1, 3]") == [0, 0]
    assert checkpoints.find(tmp_path / "one", "latest").name == "checkpoint-3"
    last = json.loads((tmp_path / "one" / "log.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["ended"]) == (3, "there are no more batches")


class Named(NamedTuple):
    rows: torch.Tensor
    keys: tuple[str, ...]


class Sick(Toy):
    """Its second process has a loss that is no number at step 2."""

    def batches(self, draws):  # type: ignore[no-untyped-def]
        for draw in draws:
            self.draw = draw
            yield Named(next(super().batches(iter([draw]))), (f"clip-{draw.step}-{draw.rank}",))

    def losses(self, batch):  # type: ignore[no-untyped-def]
        for group, thunk in super().losses(batch.rows):
            bad = float("nan") if (self.draw.step, self.draw.rank) == (2, 1) else 1.0
            yield group, lambda thunk=thunk, bad=bad: {"loss": thunk()["loss"] * bad}


def sick(config: Path) -> None:
    train(config, offers={"toy": lambda: Offer(ToySettings, Sick)})


@forks
def test_a_number_that_goes_bad_in_one_process_stops_all_and_the_log_has_the_clips_of_all(
    config: Path, tmp_path: Path
) -> None:
    assert together(2, sick, config) == [1, 1]
    last = json.loads((tmp_path / "one" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2
    assert "the batch was clip-2-0, clip-2-1;" in last["stopped"]


class Idle(Toy):
    """One of its parameters never gets a gradient."""

    def prepare(self, device):  # type: ignore[no-untyped-def]
        return {"first": super().prepare(device)["first"]}

    def losses(self, batch):  # type: ignore[no-untyped-def]
        yield "first", lambda: {"loss": (batch @ self.root["first"].weight.T).square().mean()}


def idle(config: Path) -> None:
    with pytest.raises(
        InputError, match=r"1 parameters that are to train never get a gradient, the first is first\.bias"
    ):
        train(config, offers={"toy": lambda: Offer(ToySettings, Idle)})


@forks
def test_what_never_gets_a_gradient_is_refused_where_processes_would_wait_for_it(config: Path) -> None:
    assert together(2, idle, config) == [0, 0]


class Partly(Idle):
    """The same beside another group."""

    def prepare(self, device):  # type: ignore[no-untyped-def]
        return Toy.prepare(self, device)


def partly(config: Path) -> None:
    train(config, offers={"toy": lambda: Offer(ToySettings, Partly)})


@forks
def test_with_several_groups_it_is_named_and_the_run_goes_on(config: Path, tmp_path: Path) -> None:
    assert together(2, partly, config) == [0, 0]
    first = json.loads((tmp_path / "one" / "log.jsonl").read_text().splitlines()[0])
    assert first["without gradient"] == ["first.bias"]
    assert checkpoints.find(tmp_path / "one", "latest").name == "checkpoint-5"


@pytest.mark.slow
def test_a_launcher_starts_two_processes(config: Path, tmp_path: Path) -> None:
    one = checkpoints.read(train(config, offers=OFFERS))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tests.toy"]
    done = subprocess.run(
        [*launch, config, f"out={tmp_path}/two"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    two = checkpoints.read(checkpoints.find(tmp_path / "two", "latest"))
    for name, weight in one.weights.items():
        torch.testing.assert_close(weight, two.weights[name], rtol=0, atol=1e-5, msg=name)
