"""Parts of a model that take turns on the device (diffusers' model offload), where they do not fit there together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Turns:
    """Parts that wait in main memory: `bring(part)` moves one to the device, and the one that was there away.

    A part that is called as a module comes by itself (`on_call`), the others are brought by whoever uses them.
    """

    def __init__(self, parts: Sequence[nn.Module], device: torch.device, on_call: Sequence[nn.Module] = ()) -> None:
        self.device = device
        self.there: nn.Module | None = None
        self._hooks = [part.register_forward_pre_hook(self._called) for part in on_call]
        for part in parts:
            _move(part, "cpu")

    def bring(self, part: nn.Module) -> None:
        """Let it be this part's turn."""
        if self.there is part:
            return
        if self.there is not None:
            _move(self.there, "cpu")
        _move(part, self.device)
        self.there = part

    def end(self) -> None:
        """No part comes by itself any more; each stays where it is."""
        for hook in self._hooks:
            hook.remove()

    def _called(self, part: nn.Module, args: object) -> None:
        self.bring(part)


def _move(part: nn.Module, device: torch.device | str) -> None:
    nn.Module.to(part, device)  # diffusers' own `to` warns of what it takes for mistakes
