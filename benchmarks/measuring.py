"""How calls are measured: seconds, and the most memory held above what the process held before; each side in a process of its own, in turn."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from videogen.files import replacing


def measured(call: Callable[[], torch.Tensor], device: str) -> tuple[dict[str, float], torch.Tensor]:
    """Seconds and MiB of a call on "cpu" (Linux) or "cuda", and what it returned."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = float(torch.cuda.memory_allocated())
    else:
        _forget_peak()
        before = _status("VmRSS")
    start = time.perf_counter()
    out = call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = float(torch.cuda.max_memory_allocated()) if device.startswith("cuda") else _status("VmHWM")
    return {"seconds": seconds, "peak_mib": (peak - before) / 2**20}, out


def _forget_peak() -> None:
    """Give freed memory back and start the high-water mark anew."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return float(line.split()[1]) * 1024
    raise SystemExit(f"error: this system does not report {key}")


class Worker:
    """A command line that runs `serve`, asked over its standard input."""

    def __init__(self, words: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str = "go") -> dict[str, float]:
        """One call: its figures."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                found: dict[str, float] = json.loads(line)
                return found
        raise SystemExit(f"error: a worker ended with code {self.process.wait()}")

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(
    call: Callable[[], torch.Tensor], device: str, output: Path, warm: Callable[[], object] | None = None
) -> None:
    """A worker's side: a call for each line of standard input, its figures printed, its result in a file; at the line `warm`, `warm` instead."""
    for line in sys.stdin:
        if line.strip() == "warm" and warm is not None:
            warm()
            print("{}", flush=True)
            continue
        figures, out = measured(call, device)
        torch.save(out, output)
        print(json.dumps(figures), flush=True)


def published(text: str, rows: Sequence[Any], report: Path | None) -> None:
    """Print a table; where a report is asked for, write it there, and the rows into the .json beside it."""
    print(text)
    if report is None:
        return
    for path, content in ((report, text), (report.with_suffix(".json"), json.dumps(rows, indent=2))):
        with replacing(path) as beside:
            beside.write_text(content + "\n", encoding="utf-8")


def taken_in_turn(workers: Mapping[str, Worker], pairs: int) -> list[dict[str, dict[str, float]]]:
    """So many pairs of calls, the one that is asked first changing from pair to pair."""
    names = list(workers)
    return [{name: workers[name].ask() for name in (names if i % 2 == 0 else names[::-1])} for i in range(pairs)]
