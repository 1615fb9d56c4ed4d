"""Spread over two processes a run has the parameters in pieces and the weights of one process, and goes on in one."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.forked import CONTEXT, together
from tests.toy import OFFERS, Toy, ToySettings
from videogen.applied import blocks
from videogen.errors import InputError
from videogen.training import Offer, checkpoints, train

pytestmark = pytest.mark.skipif(CONTEXT is None, reason="needs children that are forked")


class Stacked(Toy):
    """The toy with its first net as a list of blocks, so that there is more than one group of shards."""

    def prepare(self, device):  # type: ignore[no-untyped-def]
        super().prepare(device)
        self.root["stack"] = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        return {name: list(self.root[name].parameters()) for name in ("first", "second", "stack")}

    def losses(self, batch):  # type: ignore[no-untyped-def]
        def thunk():  # type: ignore[no-untyped-def]
            h = self.root["first"](batch)
            for block in self.root["stack"]:
                h = block(h).tanh()
            self.look()
            return {"loss": (self.root["second"](h) - 1).square().mean()}

        yield "first+second+stack", thunk

    def look(self) -> None:
        """Nothing to be seen in one process."""


class Spread(Stacked):
    """Asserts that what stands under the root between forwards is spread."""

    def batches(self, draws):  # type: ignore[no-untyped-def]
        from torch.distributed.tensor import DTensor

        for batch in super().batches(draws):
            assert all(isinstance(parameter, DTensor) for parameter in self.root.parameters())
            sizes = [parameter.to_local().numel() for parameter in self.root.parameters()]
            assert 0 < sum(sizes) < sum(parameter.numel() for parameter in self.root.parameters())
            yield batch

    def judge(self):  # type: ignore[no-untyped-def]
        assert type(self.root["stack"][0].weight.data) is torch.Tensor
        return super().judge() | {"through": float(self.root["stack"][1](torch.ones(1, 8)).sum())}


def offers(recipe: type[Toy]):  # type: ignore[no-untyped-def]
    return {"toy": lambda: Offer(ToySettings, recipe)}


def run(config: Path, *overrides: str) -> None:
    train(config, overrides, offers=offers(Spread))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(
        f"recipe: toy\nout: {tmp_path}/one\nexport: {tmp_path}/export\nbudget: {{steps: 6}}\nthreads: 1\nshards: true\n"
        "every: {log: 1, checkpoint: 3, judge: 2, validate: 4}\nsettings: {noisy: false, rows: 8}\noptimization: {average: 0.9}\n"
    )
    return path


def test_parameters_are_in_pieces_and_train_as_whole_ones_do(config: Path, tmp_path: Path) -> None:
    one = checkpoints.read(train(config, offers=offers(Stacked)))
    assert together(2, run, config, f"out={tmp_path}/two", f"export={tmp_path}/spread") == [0, 0]
    two = checkpoints.read(checkpoints.find(tmp_path / "two", "latest"))
    for part in ("weights", "average", "optimizer"):
        theirs = getattr(two, part)
        assert getattr(one, part).keys() == theirs.keys()
        for name, tensor in getattr(one, part).items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5, msg=name)
    for place in ("export/toy/model", "one/validation-4/weights"):
        whole = load_file(tmp_path / f"{place}.safetensors")
        pieces = load_file(tmp_path / f"{place.replace('export', 'spread').replace('one', 'two')}.safetensors")
        for name, tensor in whole.items():
            torch.testing.assert_close(tensor, pieces[name], rtol=0, atol=1e-5)


def test_a_spread_run_goes_on_in_one_process_and_the_other_way_round(config: Path, tmp_path: Path) -> None:
    import shutil

    whole = checkpoints.read(train(config, offers=offers(Stacked)))
    for place, first, then in (("a", True, False), ("b", False, True)):
        out = f"out={tmp_path}/{place}"
        for spread in (first, then):
            resume = None if spread == first else "latest"
            if spread:
                assert together(2, resumed, config, resume, out) == [0, 0]
            else:
                train(config, [out, "shards=false"], resume, offers=offers(Stacked))
            if resume is None:
                shutil.rmtree(tmp_path / place / "checkpoint-6")
        last = checkpoints.read(tmp_path / place / "checkpoint-6")
        for name, tensor in whole.weights.items():
            torch.testing.assert_close(tensor, last.weights[name], rtol=1e-4, atol=1e-5, msg=name)


def resumed(config: Path, resume: str | None, *overrides: str) -> None:
    train(config, overrides, resume, offers=offers(Spread))


def test_blocks_are_the_elements_of_the_outermost_lists() -> None:
    inner = nn.ModuleList([nn.Linear(2, 2)])
    block = nn.ModuleDict({"layers": inner})
    root = nn.ModuleDict(
        {"down": nn.ModuleList([block]), "mid": nn.ModuleDict({"attentions": nn.ModuleList([nn.GELU()])})}
    )
    assert list(blocks(root)) == [block, root["mid"]["attentions"][0]]


@pytest.mark.parametrize(
    ("variable", "name"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")]
)
def test_accelerates_own_ways_are_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    monkeypatch.setitem(os.environ, variable, "true")
    with pytest.raises(InputError, match=f"configured for {name}.*shards=true"):
        train(config, offers=OFFERS)
