"""What every editor gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Edited:
    """The edited clip `f 3 H W` in [0, 1], the mask that was used `f 1 H W` in [0, 1] (None: the whole picture), and what the method measured."""

    frames: Tensor
    mask: Tensor | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
