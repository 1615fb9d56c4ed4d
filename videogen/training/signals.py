"""Ctrl-C and SIGTERM as a wish: what is in hand is brought to its end first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def heard(stop: Callable[[], None]) -> Iterator[None]:
    """Within, either signal calls `stop` and does nothing else. Only the main thread can hear them; in another nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
