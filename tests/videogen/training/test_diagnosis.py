"""What a run says when it must stop (a bad number and where it came from, a folder in use, a full disk), and what it tells on the way."""

import errno
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
import torch
from torch import Tensor, nn

from tests.toy import OFFERS, Toy, ToySettings
from videogen.errors import InputError
from videogen.training import Offer, checkpoints, train
from videogen.training.recipe import Draw


class Named(NamedTuple):
    rows: Tensor
    keys: tuple[str, ...]
    bad: bool


class Sick(Toy):
    """Goes bad at step 2, in one of several ways."""

    way = "output"

    def batches(self, draws):  # type: ignore[no-untyped-def]
        def noted():  # type: ignore[no-untyped-def]
            for self.draw in draws:
                yield self.draw

        for rows in super().batches(noted()):
            bad = self.draw.step == 2
            if bad and self.way == "parameter":
                with torch.no_grad():
                    self.root["second"].bias[1] = math.inf
            yield Named(rows, ("clip-7", "clip-8"), bad)

    def losses(self, batch):  # type: ignore[no-untyped-def]
        bad = batch.bad

        def thunk() -> dict[str, Tensor]:
            rows = batch.rows * math.nan if bad and self.way == "output" else batch.rows
            h = self.root["second"](self.root["first"](rows))
            grown = (h * 0).sqrt() if bad and self.way == "gradient" else h
            return {"loss": grown.square().mean() if self.way != "gradient" else grown.sum() + h.square().mean()}

        yield "first+second", thunk


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(
        f"recipe: toy\nout: {tmp_path}/run\nbudget: {{steps: 4}}\nevery: {{log: 1, checkpoint: 1}}\nsettings: {{}}\n"
    )
    return path


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("output", "loss .*; the first bad tensor is the output of first;"),
        ("parameter", "loss .*; the first bad tensor is the parameter second.bias;"),
        ("gradient", "gradient .*; the first bad tensor is the gradient of second.bias;"),
    ],
)
def test_a_number_that_is_not_finite_stops_the_run_before_it_spreads(
    config: Path, tmp_path: Path, way: str, message: str
) -> None:
    sick = type("Sick", (Sick,), {"way": way})
    with pytest.raises(InputError, match=f"{message}.*checkpoint-2 is untouched") as told:
        train(config, offers={"toy": lambda: Offer(ToySettings, sick)})
    assert "at step 2" in str(told.value)
    assert "the batch was clip-7, clip-8" in str(told.value)
    last = checkpoints.find(tmp_path / "run", "latest")
    assert last.name == "checkpoint-2"
    assert all(torch.isfinite(weight).all() for weight in checkpoints.read(last).weights.values())
    assert "stopped" in json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])


def test_a_second_run_into_a_folder_is_refused_while_the_first_is_there(config: Path, tmp_path: Path) -> None:
    with checkpoints.claimed(tmp_path / "run"), pytest.raises(InputError, match="another run is working"):
        train(config, offers=OFFERS)
    assert train(config, offers=OFFERS).name == "checkpoint-4"


def test_a_checkpoint_of_another_recipe_or_size_is_one_line(config: Path, tmp_path: Path) -> None:
    class Wider(Toy):
        def prepare(self, device: torch.device):  # type: ignore[no-untyped-def]
            super().prepare(device)
            self.root["first"] = nn.Linear(6, 9)
            return {"first": list(self.root["first"].parameters()), "second": list(self.root["second"].parameters())}

    train(config, offers=OFFERS)
    with pytest.raises(InputError, match="is a checkpoint of the recipe toy, and this is other"):
        train(config, ["recipe=other"], "latest", offers={"other": OFFERS["toy"]})
    with pytest.raises(InputError, match=r"first\.weight is \(8, 6\) there and \(9, 6\) here"):
        train(config, [], "latest", offers={"toy": lambda: Offer(ToySettings, Wider)})


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits that the system sets")
def test_a_full_disk_costs_the_new_checkpoint_only(tmp_path: Path) -> None:
    import resource
    import signal

    small, large = torch.ones(2), torch.ones(100_000)
    first = checkpoints.write(tmp_path, checkpoints.Checkpoint({"a": small}, {}, {}, {"step": 1}), keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match=r"could not be written \(.*\); .*checkpoint-1 is whole"):
            checkpoints.write(tmp_path, checkpoints.Checkpoint({"a": large}, {}, {}, {"step": 2}), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert torch.equal(checkpoints.read(first).weights["a"], small)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_what_overflows_is_found_in_the_precision_of_the_run(config: Path, precision: str) -> None:
    class Steep(Toy):
        def losses(self, batch: Tensor):  # type: ignore[no-untyped-def]
            def thunk() -> dict[str, Tensor]:
                h = self.root["second"](self.root["first"](batch) * torch.finfo(getattr(torch, precision)).max)
                return {"loss": h.float().square().mean()}

            yield "first+second", thunk

    with pytest.raises(InputError, match=r"loss .*; the first bad tensor is the output of second;"):
        train(config, [f"precision={precision}"], offers={"toy": lambda: Offer(ToySettings, Steep)})


@pytest.mark.parametrize(
    ("fails", "overrides", "stays"),
    [
        ("judge", ["every.checkpoint=0"], 4),
        ("validate", ["every.checkpoint=0", "every.validate=5"], 4),
        ("validate", ["every.checkpoint=0", "every.validate=4"], 4),
        ("judge", ["every.checkpoint=2", "every.judge=2"], 2),
        ("validate", ["every.checkpoint=2", "every.validate=2"], 2),
        ("judge", ["every.checkpoint=0", "every.judge=3"], 3),
        ("validate", ["every.checkpoint=2", "every.validate=3"], 3),
    ],
)
def test_what_fails_when_a_run_is_judged_or_shown_costs_no_step(
    config: Path, tmp_path: Path, fails: str, overrides: list[str], stays: int
) -> None:
    def fail(*_: object) -> NoReturn:
        raise torch.OutOfMemoryError

    failing = type("Failing", (Toy,), {fails: fail})
    whole = checkpoints.read(train(config, [f"out={tmp_path}/whole"], offers=OFFERS))
    with pytest.raises(torch.OutOfMemoryError):
        train(config, overrides, offers={"toy": lambda: Offer(ToySettings, failing)})
    assert checkpoints.find(tmp_path / "run", "latest").name == f"checkpoint-{stays}"
    parts = checkpoints.read(train(config, overrides, "latest", offers=OFFERS))
    assert all(torch.equal(parts.weights[name], weight) for name, weight in whole.weights.items())


@pytest.mark.parametrize(
    ("step", "stays"),
    [
        (1, "no checkpoint was written before"),
        (2, "checkpoint-2 is whole; make room and go on with --resume"),
        (4, "checkpoint-4 is whole; make room and go on with --resume"),
    ],
)
def test_a_full_disk_anywhere_else_is_one_line_that_says_how_to_go_on(
    config: Path, tmp_path: Path, step: int, stays: str
) -> None:
    def write(number: int) -> None:
        if number == step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(Toy):
        def batches(self, draws: Iterator[Draw]) -> Iterator[Tensor]:
            for number, batch in enumerate(super().batches(draws)):
                if number == 1:
                    write(1)
                yield batch

        def validate(self, folder: Path) -> dict[str, float]:
            write(int(folder.name.removeprefix("validation-")))
            return super().validate(folder)

    offers, overrides = {"toy": lambda: Offer(ToySettings, Full)}, ["every.validate=2", "every.checkpoint=3"]
    with pytest.raises(InputError, match=f"run: No space left on device; .*{stays}"):
        train(config, overrides, offers=offers)


def test_validation_is_whole_and_made_with_the_averaged_weights(config: Path, tmp_path: Path) -> None:
    class Showing(Toy):
        def validate(self, folder: Path) -> dict[str, float]:
            (folder / "clip.txt").write_text("half")
            if folder.name == "validation-4":
                raise KeyboardInterrupt
            return {"weight": float(self.root["first"].weight.sum()), "training": float(self.root.training)}

    offers = {"toy": lambda: Offer(ToySettings, Showing)}
    with suppress(KeyboardInterrupt):
        train(config, ["every.validate=2", "optimization.average=0.5", "checkpoints_total_limit=9"], offers=offers)
    assert [path.name for path in (tmp_path / "run").glob("validation-*")] == ["validation-2"]
    told = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (figures,) = [line["validated"] for line in told if "validated" in line]
    saved = checkpoints.read(tmp_path / "run" / "checkpoint-2")
    assert figures["training"] == 0
    assert figures["weight"] == float(saved.average["first.weight"].sum()) != float(saved.weights["first.weight"].sum())
    assert {"clips_per_second", "memory", "left"} <= told[0].keys()


def test_validation_that_a_recipe_does_not_have_is_refused(config: Path) -> None:
    class Silent:
        def __init__(self, settings: ToySettings) -> None: ...

    with pytest.raises(InputError, match=r"every\.validate"):
        train(config, ["every.validate=2"], offers={"toy": lambda: Offer(ToySettings, Silent)})  # type: ignore[arg-type,return-value]


def test_tensorboard_gets_the_figures_where_it_is_installed(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(InputError, match="tensorboard is not installed"):
            train(config, ["report_to=tensorboard"], offers=OFFERS)
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(config, ["report_to=tensorboard"], offers=OFFERS)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("first.loss")] == [1, 2, 3, 4]
