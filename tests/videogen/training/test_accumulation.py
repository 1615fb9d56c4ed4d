"""Options of a run that must not change what is learnt: micro-batches, half precision's loss scale, recomputation, compiled blocks."""

import json
import shutil
import sys
import types
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor, nn

from tests.toy import OFFERS, Toy, ToySettings
from videogen.applied import compile_blocks, recompute_blocks
from videogen.errors import InputError
from videogen.training import Draw, Offer, checkpoints, train


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(
        f"recipe: toy\nout: {tmp_path}/run\nbudget: {{steps: 4}}\nevery: {{log: 1}}\nsettings: {{noisy: false, rows: 8}}\n"
    )
    return path


def lines(folder: Path) -> list[dict[str, float]]:
    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is not JSON")

    told = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in told if "rate" in line]


def test_micro_batches_are_one_batch(config: Path, tmp_path: Path) -> None:
    whole = checkpoints.read(train(config, [f"out={tmp_path}/whole"], offers=OFFERS))
    parts = checkpoints.read(train(config, ["accumulate=4"], offers=OFFERS))
    for name, weight in whole.weights.items():
        torch.testing.assert_close(weight, parts.weights[name], rtol=0, atol=1e-5)
    for one, other in zip(lines(tmp_path / "whole"), lines(tmp_path / "run"), strict=True):
        assert one["first.loss"] == pytest.approx(other["first.loss"], rel=1e-5)
        assert one["second.norm"] == pytest.approx(other["second.norm"], rel=1e-4)


def test_micro_batches_and_processes_share_a_batch_without_overlap() -> None:
    draws = [Draw(0, 0, 0.0, rank, 2, part, 3) for rank in range(2) for part in range(3)]
    assert [item for draw in draws for item in list(range(12))[draw.share(12)]] == list(range(12))
    for count in (0, 5, 13):  # of unequal parts the mean of the losses is not that of the batch
        with pytest.raises(InputError, match="make it a multiple of 6"):
            draws[0].share(count)


def test_a_gradient_that_overflows_in_half_precision_costs_a_step_and_halves_the_scale(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Steep(Toy):
        def losses(self, batch: Tensor):  # type: ignore[no-untyped-def]
            yield "first", lambda: {"loss": 1e34 * (self.root["first"](batch) - 1).float().square().mean()}

    folder = train(
        config, ["precision=float16", "optimization.warmup=0"], offers={"toy": lambda: Offer(ToySettings, Steep)}
    )
    made = checkpoints.read(folder)
    assert made.state["scaler"]["scale"] == 65536 / 2**4
    assert made.optimizer == {}
    assert [line["first.norm"] for line in lines(tmp_path / "run")] == [None] * 4
    more = train(
        config,
        ["precision=float16", "optimization.warmup=0", "budget.steps=6", "accept=[budget]"],
        "latest",
        offers={"toy": lambda: Offer(ToySettings, Steep)},
    )
    assert checkpoints.read(more).state["scaler"]["scale"] == 65536 / 2**6


def test_half_precision_learns_what_full_precision_does(config: Path, tmp_path: Path) -> None:
    class Mild(Toy):
        def losses(self, batch: Tensor):  # type: ignore[no-untyped-def]
            for group, thunk in super().losses(batch):  # so small that float16's first scale leaves no step out
                yield group, lambda thunk=thunk: {"loss": thunk()["loss"].float() / 100}

    def learnt(precision: str) -> dict[str, Tensor]:
        recipe = Mild(ToySettings(noisy=False, rows=8))
        asked = [f"precision={precision}", f"out={tmp_path}/{precision}"]
        folder = train(config, asked, offers={"toy": lambda: Offer(ToySettings, lambda _: recipe)})
        torch.manual_seed(0)  # the run's
        start = Toy(recipe.settings)
        start.prepare(torch.device("cpu"))
        before = dict(start.root.named_parameters())
        return {name: weight - before[name].detach() for name, weight in checkpoints.read(folder).weights.items()}

    whole = learnt("float32")
    assert min(float(moved.abs().max()) for moved in whole.values()) > 1e-3
    for precision in ("float16", "bfloat16"):
        off = {name: moved - whole[name] for name, moved in learnt(precision).items()}
        assert max(float(difference.abs().max()) for difference in off.values()) < 5e-4


class InBytes(torch.optim.Optimizer):
    """Keeps what the 8-bit optimizer keeps: a plain number of steps, bytes like the parameter, and a table of another shape."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, **_: object) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state |= {
                        "step": 0,
                        "state1": torch.zeros_like(parameter, dtype=torch.uint8),
                        "absmax1": torch.ones(2),
                    }
                assert type(state["step"]) is int  # as foreign code takes it
                state["step"] += 1
                state["state1"] += parameter.grad.sign().to(torch.int8).view(torch.uint8)
                state["absmax1"] *= 0.5
                signs = state["state1"].view(torch.int8).sign()
                parameter -= group["lr"] * signs * (1 + 1 / state["step"] + state["absmax1"].sum())


def test_an_optimizer_whose_state_is_no_floating_point_goes_on_as_it_was(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", types.SimpleNamespace(AdamW8bit=InBytes))
    asked = ["use_8bit_adam=true", "every.checkpoint=2", "checkpoints_total_limit=9"]
    whole = checkpoints.read(train(config, [*asked, f"out={tmp_path}/whole"], offers=OFFERS))
    assert whole.optimizer["first.adamw8bit/first.weight/step"] == 4
    assert whole.optimizer["first.adamw8bit/first.weight/state1"].dtype == torch.uint8
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "run" / "checkpoint-2")
    parts = checkpoints.read(train(config, asked, "latest", offers=OFFERS))
    for name in ("weights", "optimizer"):
        expected, found = getattr(whole, name), getattr(parts, name)
        assert expected.keys() == found.keys()
        assert all(
            torch.equal(expected[key], found[key]) and expected[key].dtype == found[key].dtype for key in expected
        )


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_rates_in_the_log_follow_the_schedule_after_the_warm_up_in_steps(
    config: Path, tmp_path: Path, schedule: str
) -> None:
    train(config, ["optimization.warmup=2", f"optimization.schedule={schedule}"], offers=OFFERS)
    fall = {"constant": 1.0, "linear": 0.5, "cosine": 0.5}[schedule]
    assert [line["rate"] for line in lines(tmp_path / "run")] == pytest.approx([0, 0.5, 1, fall])


def test_the_optimizers_that_can_be_chosen(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entries(*overrides: str) -> set[str]:
        folder = train(config, [*overrides, f"out={tmp_path}/{len(overrides)}{overrides[-1]}"], offers=OFFERS)
        return {name.split("/")[0] for name in checkpoints.read(folder).optimizer}

    assert entries("optimization.optimizer=adamw") == {"first.adamw", "second.adamw"}
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(InputError, match="needs bitsandbytes"):
        train(config, ["use_8bit_adam=true"], offers=OFFERS)
    stand_in = types.SimpleNamespace(AdamW8bit=torch.optim.AdamW)
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", stand_in)
    assert entries("seed=1", "use_8bit_adam=true") == {"first.adamw8bit", "second.adamw8bit"}


def test_recomputation_is_turned_on_wherever_it_is_offered() -> None:
    class Ours(nn.Module):
        on = False

        def set_checkpointing(self, on: bool) -> None:
            self.on = on

    class Theirs(nn.Module):
        on: object = False

        def gradient_checkpointing_enable(self, how: dict[str, bool]) -> None:
            self.on = how

    root = nn.ModuleDict({"unet": Ours(), "text": nn.ModuleDict({"tower": Theirs()})})
    recompute_blocks(root)
    assert root["unet"].on
    assert root["text"]["tower"].on == {"use_reentrant": False}
    with pytest.raises(InputError, match="gradient_checkpointing"):
        recompute_blocks(nn.Linear(2, 2))


def test_gradient_checkpointing_without_a_network_that_has_it_is_refused(config: Path) -> None:
    with pytest.raises(InputError, match="gradient_checkpointing"):
        train(config, ["gradient_checkpointing=true"], offers=OFFERS)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_and_keep_their_names() -> None:
    root = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"list": nn.ModuleList([nn.Linear(4, 4)])}))
    names, x = list(root.state_dict()), torch.randn(2, 4)
    plain = root[1]["list"][0](x)
    compile_blocks(root)
    torch.testing.assert_close(root[1]["list"][0](x), plain)
    assert list(root.state_dict()) == names


@pytest.mark.slow
def test_steps_are_compiled_and_what_is_judged_is_not(config: Path) -> None:
    """Judging meets other shapes than steps do, and each would be compiled for a few calls."""
    compiled: list[int] = []

    def compiler(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        compiled.append(max(len(given) for given in inputs))
        return graph

    class Linear(nn.Linear):  # torch's own modules are not compiled by themselves
        def forward(self, rows: Tensor) -> Tensor:
            return super().forward(rows)

    class Judged(Toy):
        def prepare(self, device: torch.device):  # type: ignore[no-untyped-def]
            super().prepare(device)
            self.root["first"] = Linear(6, 8)
            self.root["first"].compile(backend=compiler, dynamic=False)
            return {name: list(self.root[name].parameters()) for name in ("first", "second")}

        def judge(self) -> dict[str, float]:
            return {"first": float(self.root["first"](torch.ones(99, 6)).sum())}

    train(config, ["compile=true", "every.judge=2"], offers={"toy": lambda: Offer(ToySettings, Judged)})
    assert compiled
    assert 99 not in compiled
