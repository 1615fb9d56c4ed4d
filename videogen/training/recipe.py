"""What one training differs in from another: what trains, on which draws, against which losses.

Everything random in a step (data, noise, the times drawn) is a function of the step's `Draw`, so a resumed run needs no stored random
state to be the same run, and processes agree on the global batch before each takes its share of it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Thunk = Callable[[], dict[str, Tensor]]
"""Computes the losses when called; `"loss"` is what is minimised, the other entries are logged."""

JUDGE_SEED = 1_000_003
"""Held-out data are drawn with this seed, which no run has."""


@dataclass(frozen=True)
class Draw:
    """The address of one step's randomness.

    `progress` is the spent share of the budget, 0 to 1: curricula and learning rates are functions of it.
    """

    seed: int
    step: int
    progress: float = 0.0
    rank: int = 0
    ranks: int = 1

    def number(self, name: str) -> int:
        """A 63-bit seed that depends on (seed, step, name), the same in every process."""
        digest = hashlib.blake2b(f"{self.seed}/{self.step}/{name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    def generator(self, name: str) -> torch.Generator:
        """A generator on the processor for the draw called `name`; the same in every process."""
        return torch.Generator().manual_seed(self.number(name))

    def share(self, count: int) -> slice:
        """This process's part of a global batch of `count` items; every item belongs to exactly one process."""
        return slice(count * self.rank // self.ranks, count * (self.rank + 1) // self.ranks)


class Recipe(Protocol):
    """A training. The loop calls `prepare` once, then draws batches and steps through the losses of each.

    All that trains hangs under `root`, so that one wrapped forward (DDP) covers any number of calls in a loss.
    """

    @property
    def root(self) -> nn.Module:
        """What `prepare` built."""

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        """Build `root` on `device`; return the parameters that train, by group. The loop freezes all others."""

    def batches(self, draws: Iterator[Draw]) -> Iterator[Any]:
        """One batch (this process's share) for each draw, in order. Pulling is lazy."""

    def losses(self, batch: Any) -> Iterator[tuple[str, Thunk]]:
        """(group, thunk) pairs. The loop runs a thunk, goes backward, steps that group, then resumes the generator.

        `"a+b"` steps the groups a and b with one backward pass.
        """

    def judge(self) -> dict[str, float]:
        """Figures on held-out data with the weights as they are (the loop puts the averaged ones in)."""

    def export(self, folder: Path) -> None:
        """Write the weights as they are into the empty `folder`: one folder a part, in diffusers' or transformers' layout."""
