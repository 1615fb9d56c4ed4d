"""The exponential moving average of weights, which is what gets judged and exported."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Average:
    """Shadow weights: after the update of step n (from 0) each is `d * shadow + (1 - d) * weight`, d = min(decay, (1 + n) / (10 + n)).

    The ramp (as in TensorFlow's moving averages) lets short runs forget their start. At decay 0 the average is the weights themselves, and there are
    no shadows.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters = dict(parameters) if decay else {}
        self.decay = decay
        self.shadow: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the shadow towards the weights after optimizer step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self.shadow:
            torch._foreach_lerp_(list(self.shadow.values()), list(self.parameters.values()), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model has the averaged weights; afterwards its own again, bit for bit."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._put(self.shadow)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])
