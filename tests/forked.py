"""Children forked from a parent that has imported everything: cheap enough to kill one at every step, or to have several that talk."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver") if "forkserver" in multiprocessing.get_all_start_methods() else None
if CONTEXT is not None:
    CONTEXT.set_forkserver_preload(["tests.toy", "videogen.training.loop"])


def child(work: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """A started child that does `work` with these variables set."""
    assert CONTEXT is not None
    process = CONTEXT.Process(target=_with, args=(environment, work, arguments))
    process.start()
    return process


def _with(environment: dict[str, str], work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    work(*arguments)


def alone(work: Callable[..., Any], *arguments: Any) -> int:
    """Do `work` in a child; its exit code, below 0 where a signal ended it."""
    process = child(work, *arguments)
    process.join(60)
    return process.exitcode


def together(count: int, work: Callable[..., Any], *arguments: Any) -> list[int]:
    """Do `work` in so many children, as a launcher starts the processes of one run; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [child(work, *arguments, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(count)]
    for process in ranks:
        process.join(60)
    for process in ranks:
        process.kill()
    return [process.exitcode for process in ranks]
