"""What happens after each step beside sampling: a bar on stderr, and the caller's callback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor

from videogen.prediction import Prediction
from videogen.times import Times

Callback = Callable[[int, float, Tensor], Tensor | None]
After = Callable[[Tensor, float, Prediction], Tensor]


@contextlib.contextmanager
def bar(total: int, show: bool, label: str = "") -> Iterator[Callable[[], None]]:
    """Yield what is called once a step; `show` draws it as a bar on stderr, behind `label`."""
    if not show:
        yield lambda: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit="step", desc=label or None) as drawn:

        def tick() -> None:
            drawn.update()

        yield tick


def ticking(tick: Callable[[], None], then: After | None = None) -> After:
    """A sampler's `after` that ticks, and then does another's work."""

    def after(x: Tensor, t: float, pred: Prediction) -> Tensor:
        tick()
        return x if then is None else then(x, t, pred)

    return after


def after_step(times: Times, tick: Callable[[], None], callback: Callback | None) -> After:
    """A sampler's `after`: ticks, and calls `callback(step, t, x)`, whose result replaces x where it is not None."""
    steps = iter(enumerate(times.t.tolist()))

    def after(x: Tensor, reached: float, pred: Prediction) -> Tensor:
        step, t = next(steps)
        tick()
        changed = callback(step, t, x) if callback is not None else None
        return x if changed is None else changed

    return after
