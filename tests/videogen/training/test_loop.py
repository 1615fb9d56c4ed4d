"""Law 5: after k steps exactly the declared parameters changed, and a resumed run is the same run."""

import json
import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.toy import OFFERS, Toy, ToySettings
from videogen.errors import InputError
from videogen.training import Offer, checkpoints, train
from videogen.training.config import RunConfig
from videogen.training.loop import Loop
from videogen.training.recipe import Draw
from videogen.training.schedules import rate


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(f"recipe: toy\nout: {tmp_path}/run\nbudget: {{steps: 7}}\nevery: {{log: 1}}\nsettings: {{}}\n")
    return path


def tensors(folder: Path) -> dict[str, Tensor]:
    return {f"{file.stem}/{name}": t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(config: Path, tmp_path: Path, stop: int) -> None:
    whole = tensors(train(config, [f"out={tmp_path}/whole"], offers=OFFERS))
    # The schedule belongs to the budget of seven steps, so the interruption is a stop, not another budget.
    interrupted(config, stop)
    parts = tensors(train(config, resume="latest", offers=OFFERS))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def interrupted(config: Path, stop: int) -> Path:
    class Stopping(Toy):
        def losses(self, batch: Tensor):  # type: ignore[no-untyped-def]
            self.count = getattr(self, "count", 0) + 1
            if self.count == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            yield from super().losses(batch)

    return train(config, offers={"toy": lambda: Offer(ToySettings, Stopping)})


def test_a_signal_ends_the_run_after_the_step_in_hand_with_a_checkpoint(config: Path) -> None:
    folder = interrupted(config, 3)
    assert folder.name == "checkpoint-3"
    assert checkpoints.read(folder).state["step"] == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_exactly_the_declared_parameters_change(config: Path, tmp_path: Path) -> None:
    values = {"recipe": "toy", "out": tmp_path / "run", "budget": {"steps": 3}, "settings": {}}
    loop = Loop(RunConfig[ToySettings].model_validate(values), Toy(ToySettings()))
    before = {name: p.detach().clone() for name, p in loop.recipe.root.named_parameters()}
    loop.run()
    changed = {name for name, p in loop.recipe.root.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"first.weight", "first.bias", "second.weight", "second.bias"} == set(loop.trained)


def test_the_log_says_which_parameter_never_gets_a_gradient(config: Path, tmp_path: Path) -> None:
    class Idle(Toy):
        def losses(self, batch: Tensor):  # type: ignore[no-untyped-def]
            yield "first", lambda: {"loss": (batch @ self.root["first"].weight.T).square().mean()}

    train(config, offers={"toy": lambda: Offer(ToySettings, Idle)})
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["without gradient"] == ["first.bias"]


def test_a_time_budget_stops_and_counts_over_parts(config: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    minutes = ["budget={minutes: 0.01}", "every.log=1000000"]
    folder = train(config, minutes, offers=OFFERS)
    assert 0.6 <= time.monotonic() - began < 10
    seconds = checkpoints.read(folder).state["seconds"]
    assert seconds >= 0.6
    assert train(config, minutes, resume="latest", offers=OFFERS) == folder


def test_a_time_budget_counts_the_last_step_where_that_had_a_checkpoint_of_its_own(config: Path) -> None:
    minutes = ["budget={minutes: 0.003}", "every.checkpoint=1", "every.log=1000000"]
    folder = train(config, minutes, offers=OFFERS)
    assert checkpoints.read(folder).state["seconds"] >= 0.18
    assert train(config, minutes, resume="latest", offers=OFFERS) == folder


def test_one_log_line_a_step_also_after_a_resume(config: Path, tmp_path: Path) -> None:
    train(config, ["every.checkpoint=2", "checkpoints_total_limit=9"], offers=OFFERS)
    train(config, ["every.checkpoint=2"], resume=str(tmp_path / "run" / "checkpoint-4"), offers=OFFERS)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "rate" in line] == [1, 2, 3, 4, 5, 6, 7]


def test_the_export_holds_the_averaged_weights(config: Path, tmp_path: Path) -> None:
    folder = train(config, [f"export={tmp_path}/made"], offers=OFFERS)
    exported, average = load_file(tmp_path / "made" / "toy" / "model.safetensors"), checkpoints.read(folder).average
    assert torch.equal(exported["weight"], average["first.weight"])
    assert not torch.equal(exported["weight"], checkpoints.read(folder).weights["first.weight"])


def test_without_an_average_no_second_copy_is_kept_and_the_weights_are_exported(config: Path, tmp_path: Path) -> None:
    none = ["optimization.average=0", "every.checkpoint=4", "checkpoints_total_limit=9"]
    whole = checkpoints.read(train(config, [*none, f"export={tmp_path}/made"], offers=OFFERS))
    assert whole.average == {}
    exported = load_file(tmp_path / "made" / "toy" / "model.safetensors")
    assert torch.equal(exported["weight"], whole.weights["first.weight"])
    middle = str(tmp_path / "run" / "checkpoint-4")
    again = checkpoints.read(train(config, none, middle, offers=OFFERS))
    assert all(torch.equal(again.weights[name], weight) for name, weight in whole.weights.items())
    kept = ["optimization.average=0.9", "accept=[optimization.average]", *none[1:]]
    assert train(config, [*kept, f"out={tmp_path}/other"], middle, offers=OFFERS).name == "checkpoint-7"
    ours, start = (checkpoints.read(path) for path in (tmp_path / "other" / "checkpoint-7", Path(middle)))
    for name, average in ours.average.items():  # it begins as the weights that the checkpoint had
        moved = (average - start.weights[name]).abs().max()
        assert 0 < float(moved) < float((ours.weights[name] - start.weights[name]).abs().max())


def test_what_a_killed_export_left_is_cleared_away_and_other_parts_stay(config: Path, tmp_path: Path) -> None:
    (tmp_path / "made" / ".export-killed").mkdir(parents=True)
    (tmp_path / "made" / "other").write_text("stays")
    train(config, [f"export={tmp_path}/made"], offers=OFFERS)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["other", "toy"]


def test_an_earlier_run_is_not_overwritten_and_another_configuration_not_resumed(config: Path) -> None:
    train(config, offers=OFFERS)
    with pytest.raises(InputError, match="--resume latest"):
        train(config, offers=OFFERS)
    with pytest.raises(InputError, match=r"settings\.rows: 4 -> 8"):
        train(config, ["settings.rows=8"], resume="latest", offers=OFFERS)
    train(
        config, ["settings.rows=8", "accept=[settings.rows, budget]", "budget.steps=8"], resume="latest", offers=OFFERS
    )


@pytest.mark.parametrize("key", ["out", "export"])
@pytest.mark.parametrize("below", ["", "/a/b"])
def test_a_file_where_a_folder_is_to_be_is_told_before_anything_is_built(
    config: Path, tmp_path: Path, key: str, below: str
) -> None:
    class Unbuilt(Toy):
        def prepare(self, device: torch.device) -> NoReturn:
            raise AssertionError("nothing is to be built")

    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"^{key}: .*/file is a file; give a folder$"):
        train(config, [f"{key}={tmp_path}/file{below}"], offers={"toy": lambda: Offer(ToySettings, Unbuilt)})


def test_nothing_to_resume_is_said(config: Path) -> None:
    with pytest.raises(InputError, match="no complete checkpoint"):
        train(config, resume="latest", offers=OFFERS)


def test_a_loss_that_is_not_finite_stops_the_run(config: Path) -> None:
    class Broken(Toy):
        def losses(self, batch: Tensor):  # type: ignore[no-untyped-def]
            yield "first", lambda: {"loss": self.root["first"](batch).sum() * math.nan}

    with pytest.raises(InputError, match="not finite at step 0"):
        train(config, offers={"toy": lambda: Offer(ToySettings, Broken)})


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    assert rate(0.0, 0.1) == 0
    assert rate(0.05, 0.1) == pytest.approx(0.5)
    assert rate(0.1, 0.1) == pytest.approx(1)
    assert rate(1.0, 0.1) == pytest.approx(0)


def test_processes_share_a_batch_without_overlap() -> None:
    shares = [list(range(12))[Draw(0, 0, 0, rank, 3).share(12)] for rank in range(3)]
    assert [item for share in shares for item in share] == list(range(12))
    assert Draw(0, 5, 0.1, 0, 3).number("x") == Draw(0, 5, 0.7, 2, 3).number("x") != Draw(0, 6).number("x")


def test_the_loop_runs_in_a_thread_too_where_signals_cannot_be_caught(config: Path, tmp_path: Path) -> None:
    thread = threading.Thread(target=train, args=(config,), kwargs={"offers": OFFERS})
    thread.start()
    thread.join()
    assert [folder.name for folder in checkpoints.complete(tmp_path / "run")] == ["checkpoint-7"]
