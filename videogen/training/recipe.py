"""What one training differs in from another: what trains, on which draws, against which losses.

Everything random in a step (data, noise, the times drawn) is a function of the step's `Draw`, so a resumed run needs no stored random
state to be the same run, and processes agree on the global batch before each takes its share of it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from videogen.errors import InputError

Thunk = Callable[[], dict[str, Tensor]]
"""Computes the losses when called; `"loss"` is what is minimised, the other entries are logged."""

JUDGE_SEED = 1_000_003
"""Held-out data are drawn with this seed, which no run has."""


@dataclass(frozen=True)
class Draw:
    """The address of one step's randomness, and which part of the step's batch is asked for.

    seed, step     all that is random is a function of these two
    progress       the spent share of the budget, 0 to 1: curricula and learning rates are functions of it
    rank, ranks    which process this is, of how many
    part, parts    which micro-batch of the step this is, of how many (gradient accumulation)
    """

    seed: int
    step: int
    progress: float = 0.0
    rank: int = 0
    ranks: int = 1
    part: int = 0
    parts: int = 1

    def number(self, name: str) -> int:
        """A 63-bit seed that depends on (seed, step, name), the same in every process."""
        digest = hashlib.blake2b(f"{self.seed}/{self.step}/{name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    def generator(self, name: str) -> torch.Generator:
        """A generator on the processor for the draw called `name`; the same in every process."""
        return torch.Generator().manual_seed(self.number(name))

    @property
    def places(self) -> int:
        """Into how many micro-batches a step's batch is cut, over all processes."""
        return self.ranks * self.parts

    @property
    def place(self) -> int:
        """Which of them this is; those of a process follow each other."""
        return self.rank * self.parts + self.part

    def share(self, count: int) -> slice:
        """This micro-batch's part of a step's batch of `count` items; every item is in exactly one, a process's parts follow each other.

        Raises InputError where the parts would not be equal: the mean of their losses would not be that of the batch.
        """
        part, rest = divmod(count, self.places)
        if rest or not part:
            raise InputError(
                f"a batch of {count} cannot be shared out evenly among {self.ranks} processes with {self.parts} micro-batches each; "
                f"make it a multiple of {self.places}"
            )
        return slice(self.place * part, (self.place + 1) * part)


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
        """One batch (`draw.share` of the step's) for each draw, in order. Pulling is lazy.

        With gradient accumulation a step has several draws in a row, which differ in `part` alone. A batch may have `keys`, the names of its
        clips, which are told when a loss is not finite. A run ends where the batches end; processes agree on that step.
        """

    def losses(self, batch: Any) -> Iterator[tuple[str, Thunk]]:
        """(group, thunk) pairs. The loop runs a thunk, goes backward, steps that group, then resumes the generator.

        `"a+b"` steps the groups a and b with one backward pass.
        """

    def judge(self) -> dict[str, float]:
        """Figures on held-out data with the weights as they are (the loop puts the averaged ones in)."""

    def export(self, folder: Path) -> None:
        """Write the weights as they are into the empty `folder`: one folder a part, in diffusers' or transformers' layout."""


@runtime_checkable
class Founded(Protocol):
    """What a recipe may offer beside: what a run is a function of that its configuration only names."""

    def origin(self) -> dict[str, str]:
        """Digests of what is read from elsewhere and stays as it is (clips, frozen weights), by name. Asked once, after `prepare`."""


@runtime_checkable
class Shown(Protocol):
    """What a recipe may offer beside: something to look at every `every.validate` steps."""

    def validate(self, folder: Path) -> dict[str, float]:
        """Fill the empty `folder` (clips, a contact sheet) and return figures. The averaged weights are in, and gradients are off."""
