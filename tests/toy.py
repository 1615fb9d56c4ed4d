"""A recipe of two tiny nets, for tests of the loop alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from videogen.training import Offer
from videogen.training.config import Strict
from videogen.training.recipe import Draw, Thunk


class ToySettings(Strict):
    """How many rows a batch has, whether a loss draws from the process's own random state, and (rank, step) where the batches of a process end."""

    rows: int = 4
    noisy: bool = True
    ends: tuple[int, int] | None = None


class Toy:
    """Fits a linear map with one net, another with a second one; a third part never trains."""

    root: nn.ModuleDict

    def __init__(self, settings: ToySettings) -> None:
        self.settings = settings

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        parts = {"first": nn.Linear(6, 8), "second": nn.Linear(8, 5), "frozen": nn.Linear(3, 3)}
        self.root = nn.ModuleDict(parts).to(device)
        return {name: list(self.root[name].parameters()) for name in ("first", "second")}

    def batches(self, draws: Iterator[Draw]) -> Iterator[Tensor]:
        for draw in draws:
            if self.settings.ends == (draw.rank, draw.step):
                return
            yield torch.randn(self.settings.rows, 6, generator=draw.generator("rows"))[draw.share(self.settings.rows)]

    def losses(self, batch: Tensor) -> Iterator[tuple[str, Thunk]]:
        yield "first", lambda: {"loss": (self.root["first"](batch) - batch.sum(1, keepdim=True)).square().mean()}
        inner = self.root["first"](batch).detach()
        yield (
            "second",
            lambda: {"loss": (self.root["second"](inner + torch.randn(8) * self.settings.noisy) - 1).square().mean()},
        )

    def judge(self) -> dict[str, float]:
        return {"weight": float(self.root["first"].weight.sum())}

    def validate(self, folder: Path) -> dict[str, float]:
        save_file(dict(self.root["first"].state_dict()), folder / "weights.safetensors")
        return self.judge()

    def export(self, folder: Path) -> None:
        (folder / "toy").mkdir()
        save_file(dict(self.root["first"].state_dict()), folder / "toy" / "model.safetensors")


OFFERS = {"toy": lambda: Offer(ToySettings, Toy)}


if __name__ == "__main__":
    import sys

    from videogen.training import train

    train(sys.argv[1], sys.argv[2:], offers=OFFERS)
