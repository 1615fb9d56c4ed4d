"""How the learning rate moves over a run: a rise, then a constant, a line or half a cosine (Loshchilov and Hutter 2017) down to 0."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]

FALLS: Mapping[Schedule, Callable[[float], float]] = {
    "constant": lambda spent: 1.0,
    "linear": lambda spent: 1.0 - spent,
    "cosine": lambda spent: 0.5 + 0.5 * math.cos(math.pi * spent),
}


def rate(progress: float, warmup: float, schedule: Schedule = "cosine") -> float:
    """The share of the full learning rate at `progress` (0 to 1): linear over the share `warmup` of the run, then what `schedule` says."""
    if progress < warmup:
        return progress / warmup
    return FALLS[schedule](min(1.0, (progress - warmup) / (1 - warmup)))
