"""How calls are measured: seconds, and the most memory held above what the process held before; each side in a process of its own, in turn.

glibc keeps freed memory in its heap as the holes lie, tens of per cent more or less from run to run. So there are two figures: what is resident in
the calls that are timed, and what is held, in a process of its own where large blocks are mapped by themselves and go back when they are freed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from videogen.files import replacing
from videogen.recipe import hash_files

NO_YES_BOTH = {"no": (False,), "yes": (True,), "both": (False, True)}
Turn = TypeVar("Turn")


def machine_options(parser: argparse.ArgumentParser, report: str) -> None:
    """The options that every side by side has: where it runs, and where its table goes; `report` says where that is wanted."""
    parser.add_argument("--device", default="cpu")
    processor_options(parser, report)


def processor_options(parser: argparse.ArgumentParser, report: str) -> None:
    """The same without a choice of device."""
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", type=Path, help=report)


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

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
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


def alone(words: Sequence[str], *, warm: bool, environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """The figures of one call in a process of its own, with or without one before it (a shorter one, where the worker has that)."""
    worker = Worker(words, environment)
    if warm:
        worker.ask("warm")
    found = worker.ask()
    worker.stop()
    return found


def held(words: Sequence[str]) -> float:
    """The MiB that a second call holds at most, without what the C library keeps of freed blocks."""
    return alone(words, warm=True, environment={"MALLOC_MMAP_THRESHOLD_": str(2**18)})["peak_mib"]


def turn(sides: Mapping[str, Callable[[], Turn]], number: int) -> dict[str, Turn]:
    """One pair of calls; the one that comes first changes from pair to pair."""
    names = list(sides)
    return {name: sides[name]() for name in (names if number % 2 == 0 else names[::-1])}


def taken_in_turn(workers: Mapping[str, Worker], pairs: int) -> list[dict[str, dict[str, float]]]:
    """So many pairs of calls, by turns; the workers end."""
    runs = [turn({name: worker.ask for name, worker in workers.items()}, i) for i in range(pairs)]
    for worker in workers.values():
        worker.stop()
    return runs


def compared(
    runs: Sequence[Mapping[str, Mapping[str, float]]], most: Mapping[str, float], peer: str, ours: str
) -> dict[str, Any]:
    """Medians of both sides, and the medians of the pairs' ratios, ours to the peer's; and what each side holds at most."""

    def ratio(key: str) -> float:
        return statistics.median(run[ours][key] / max(run[peer][key], 1e-3) for run in runs)

    medians = {
        key: {side: statistics.median(run[side][key] for run in runs) for side in (peer, ours)}
        for key in ("seconds", "peak_mib")
    }
    return {
        **medians, "held_mib": dict(most), "time_ratio": ratio("seconds"), "resident_ratio": ratio("peak_mib"),
        "memory_ratio": most[ours] / max(most[peer], 1e-3),
    }  # fmt: skip


def heads(peer: str, ours: str) -> list[str]:
    """The heads of `cells`."""
    seconds, memory = ([f"{side} {unit}" for side in (peer, ours)] for unit in ("s", "MiB"))
    return [*seconds, "time ratio", *memory, "memory ratio", "resident ratio"]


def cells(row: Mapping[str, Any], peer: str, ours: str, digits: int = 1) -> str:
    """What a table says of `compared`: seconds of both and their ratio, MiB held by both and their ratio, and the ratio of what stays resident."""
    s, m = row["seconds"], row["held_mib"]
    time_told = f"{s[peer]:.{digits}f} | {s[ours]:.{digits}f} | {row['time_ratio']:.2f}"
    return f"{time_told} | {m[peer]:.0f} | {m[ours]:.0f} | {row['memory_ratio']:.2f} | {row['resident_ratio']:.2f}"


class Rows:
    """The rows of a table; kept in the file of `--rows` (which `option` adds), where there is one, as soon as each is measured.

    packages  whose code a row stands for, besides that of the benchmarks
    """

    def __init__(self, args: argparse.Namespace, packages: Sequence[str]) -> None:
        root = Path(__file__).parents[1]
        programs = [path for package in (*packages, "benchmarks") for path in (root / package).rglob("*.py")]
        code = hash_files({path.relative_to(root).as_posix(): path for path in programs})
        self.file: Path | None = args.rows
        self.machine = {"device": args.device, "threads": args.threads, "pytorch": torch.__version__, "code": code}

    @staticmethod
    def option(parser: argparse.ArgumentParser) -> None:
        """Where rows are kept."""
        parser.add_argument("--rows", type=Path, help="a file of rows, where a run that was stopped goes on")

    def row(self, setting: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The row of an earlier run where it measured the very same, with the code as it is; else what `measure` finds, told and kept."""
        asked = {**setting, **self.machine}
        for line in self.file.read_text(encoding="utf-8").splitlines() if self.file and self.file.exists() else ():
            kept: dict[str, Any] = json.loads(line)
            if asked.items() <= kept.items():
                return kept
        row = {**asked, **measure()}
        print(json.dumps(row), flush=True)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as rows:
                rows.write(json.dumps(row) + "\n")
        return row


def command() -> str:
    """The command that is running."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def made_by(about: str) -> list[str]:
    """The lines under a table: what was measured, and the command."""
    return ["", f"{about}. Made by", "", f"    {command()}"]


def header(columns: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def published(text: str, report: Path | None, rows: Sequence[Any] | None = None) -> None:
    """Print a table; where a report is asked for, write it there, and the rows, if any, into the .json beside it."""
    print(text)
    if report is None:
        return
    contents = {report: text} | ({} if rows is None else {report.with_suffix(".json"): json.dumps(rows, indent=2)})
    for path, content in contents.items():
        with replacing(path) as beside:
            beside.write_text(content + "\n", encoding="utf-8")
