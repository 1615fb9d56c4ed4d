"""How a call is measured: its seconds, and the most memory it held above what the process held before."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch


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
