"""From the first noise to latents as a plan says: the sampler under a bar, once, or several times over (FreeInit)."""

from __future__ import annotations

import itertools

from torch import Tensor

from videogen.free_init import FreeInit, free_init
from videogen.plan import Plan
from videogen.prediction import Denoise
from videogen.progress import Callback, after_step, bar
from videogen.sampling import Noise


def sampled(
    plan: Plan,
    denoise: Denoise,
    x: Tensor,
    noise: Noise,
    again: FreeInit | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Tensor:
    """x `b f c h w` of unit variance, or latents on their way, to where the plan's steps end.

    noise     fresh noise for the stochastic samplers
    again     FreeInit
    callback  called after each step
    """
    rounds = 1 if again is None else again.iterations
    label = "" if plan.windows is None else f"{len(plan.frames)} frames in windows of {plan.windows.length}"
    options = {"eta": plan.eta} if plan.eta else {}
    with bar(len(plan.times) * rounds, progress, label) as tick:
        repeats = itertools.count()  # each round has fresh noise of its own

        def run(first: Tensor) -> Tensor:
            repeat = next(repeats)
            after = after_step(plan.times, tick, callback)
            return plan.sampler(
                denoise,
                first * plan.times.scale,
                plan.times,
                noise=lambda draw: noise((draw[0], draw[1] + repeat)),
                after=after,
                **options,
            )

        return run(x) if again is None else free_init(run, x, lambda i: noise((-1.0, i)), plan.times.path, again)
