"""Editing side by side: time and peak memory as ratios, interleaved, each side in a process of its own.

    python benchmarks/editing.py                       # SD 1.5 widths on the processor; hours
    python benchmarks/editing.py --parts zero fate     # some of the parts
    python benchmarks/editing.py --tiny                # the same code in two minutes

zero    Text2Video-Zero against diffusers' pipeline, the same latents and draws, 10 steps with its two moments scaled
fate    FateZero with the source's maps recomputed against maps stored in memory; what maps of 256 x 256 and 50 steps take is counted, not held,
        and stands beside our peak of 10 steps
tune    a step of Tune-A-Video against the plain loop whose attention writes its maps out, the same loss and AdamW; with gradient checkpointing
        (the recipe's own way) and without it; the plain loop never has it
chunks  memory of `videogen edit` on the miniature over the number of source frames, in chunks of eight

A figure is the median of the pairs' ratios; memory is the most that a call holds above what the process held before it, the resident ratio of the
same with what glibc keeps of freed blocks. Models have random weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import torch
from editing_sides import SIDES
from random_models import save_stable_diffusion

Row = dict[str, Any]
# part -> (the peer's side and ours, its targets for time and memory)
PAIRS: dict[str, tuple[tuple[str, str], str]] = {
    "zero": (("zero.diffusers", "zero.videogen"), "time 0.9, memory 0.7"),
    "fate": (("fate.memory", "fate.recomputed"), "time 1.6; memory 0.1 at 50 steps, flat in steps"),
    "tune": (("tune.plain", "tune.videogen"), "both below 1"),
}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "zero": [{"frames": 8, "side": 256, "steps": 10}],
    "fate": [
        {"frames": 8, "side": 128, "steps": 10},
        {"frames": 8, "side": 128, "steps": 50},
        {"frames": 8, "side": 256, "steps": 10},
    ],
    "tune": [{"frames": 8, "side": 256, "checkpointing": True}, {"frames": 8, "side": 256, "checkpointing": False}],
    "chunks": [{"frames": frames, "side": 128, "steps": 4} for frames in (16, 64, 128)],
}
COUNTED = {"frames": 8, "side": 256, "steps": 50}
TINY = {"side": 64, "frames": 3, "steps": 4}


def main() -> None:
    """Run the parts and print their tables; `--report` writes them too."""
    args = _arguments()
    if args.worker:
        setting = json.loads(args.setting)
        torch.set_num_threads(args.threads)
        call, warm = SIDES[args.worker](setting)
        measuring.serve(call, args.device, Path(setting["holder"]) / f"{args.worker}.pt", warm)
        return
    with tempfile.TemporaryDirectory() as holder:
        if set(args.parts) & PAIRS.keys():
            save_stable_diffusion("small" if args.tiny else "sd15", Path(holder) / "model")
        table = measuring.Rows(args, ("videogen", "motion_modules", "editors"))
        rows = [row for part in args.parts for row in _part(part, Path(holder), args, table)]
    measuring.published(_report(rows, args), args.report, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--tiny", action="store_true", help="small widths, few steps and frames: says nothing of speed")
    parser.add_argument("--pairs", type=int, default=3)
    measuring.machine_options(parser, "docs/benchmarks_editing.md; a .json is written beside it")
    measuring.Rows.option(parser)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    return parser.parse_args()


def _part(part: str, holder: Path, args: argparse.Namespace, table: measuring.Rows) -> list[Row]:
    same = {"part": part, "tiny": args.tiny, "pairs": args.pairs}
    if part == "chunks":
        frames = (8, 12) if args.tiny else tuple(setting["frames"] for setting in SETTINGS[part])
        own = [{**SETTINGS[part][0], "frames": n, **({"steps": 2} if args.tiny else {})} for n in frames]
        return [table.row({**same, **one}, partial(_alone, "chunks", one, holder, args)) for one in own]
    settings = [setting | (TINY if args.tiny else {}) for setting in SETTINGS[part]]
    some = settings[:1] if args.tiny else settings
    rows = [table.row({**same, **setting}, partial(_pairs, part, setting, holder, args)) for setting in some]
    if part == "fate":
        setting = COUNTED | (TINY if args.tiny else {})
        counted = table.row({**same, **setting, "counted": True}, partial(_counted, setting, holder, args))
        rows.append({**counted, **_against(counted["counted_mib"], setting, rows)})
    return rows


def _counted(setting: Row, holder: Path, args: argparse.Namespace) -> Row:
    _alone("fate.counted", setting, holder, args)
    return {"counted_mib": float(torch.load(holder / "fate.counted.pt", weights_only=True))}


def _against(counted: float, setting: Row, rows: Sequence[Row]) -> Row:
    """Our measured peak at that size beside what was counted; of fewer steps where no more were run, since it is flat in them."""
    ours = PAIRS["fate"][0][1]
    near = [row for row in rows if all(row[key] == setting[key] for key in ("frames", "side"))]
    row = max(near, key=lambda row: row["steps"])
    peak = row["peak_mib"][ours]
    return {"peak_mib": {ours: peak}, "peak_steps": row["steps"], "memory_ratio": peak / counted}


def _words(side: str, setting: Row, holder: Path, args: argparse.Namespace) -> list[str]:
    told = {**setting, "holder": str(holder), "folder": str(holder / "model"), "device": args.device}
    words = [__file__, "--worker", side, "--setting", json.dumps(told)]
    return [*words, "--device", args.device, "--threads", str(args.threads)]


def _alone(side: str, setting: Row, holder: Path, args: argparse.Namespace) -> dict[str, float]:
    """One side, once."""
    return measuring.alone(_words(side, setting, holder, args), warm=side == "chunks")


def _pairs(part: str, setting: Row, holder: Path, args: argparse.Namespace) -> Row:
    """What a row says: both sides started, warmed up, then asked in turn."""
    peer, ours = PAIRS[part][0]
    words = {side: _words(side, setting, holder, args) for side in (peer, ours)}
    workers = {side: measuring.Worker(told) for side, told in words.items()}
    for worker in workers.values():
        worker.ask("warm")
    runs = measuring.taken_in_turn(workers, 1 if args.tiny else args.pairs)
    theirs, own = (torch.load(holder / f"{side}.pt", weights_only=True) for side in (peer, ours))
    most = {side: measuring.held(told) for side, told in words.items()}
    return {**measuring.compared(runs, most, peer, ours), "largest_difference": float((theirs - own).abs().max())}


def _report(rows: Sequence[Row], args: argparse.Namespace) -> str:
    tables = [_table(part, [row for row in rows if row["part"] == part]) for part in args.parts]
    widths = "small widths (--tiny: says nothing of speed)" if args.tiny else "SD 1.5 widths, chunks the miniature"
    about = f"{widths}, float32, {args.device}, {args.threads} threads, PyTorch {torch.__version__}, median of pairs"
    return "\n".join(["\n\n".join(tables), *measuring.made_by(about)])


def _table(part: str, rows: Sequence[Row]) -> str:
    if part == "chunks":
        lines = ["| source frames | seconds | peak above weights MiB | ratio to the first |", "|---|---|---|---|"]
        for row in rows:
            ratio = row["peak_mib"] / max(rows[0]["peak_mib"], 1e-3)
            lines.append(f"| {row['frames']} | {row['seconds']:.1f} | {row['peak_mib']:.0f} | {ratio:.2f} |")
        return "\n".join(lines)
    (peer, ours), target = PAIRS[part]
    lines = [
        f"{part}, wanted: {target}",
        "",
        *measuring.header(["setting", *measuring.heads(peer, ours), "largest difference"]),
    ]
    for row in rows:
        what = f"{row['frames']} frames, {row['side']} x {row['side']}"
        what += f", {row['steps']} steps" if "steps" in row and part != "tune" else ""
        what += ", checkpointing" if row.get("checkpointing") else ""
        if "counted_mib" in row:
            measured = f"{row['peak_mib'][ours]:.0f} (of {row['peak_steps']} steps)"
            lines.append(
                f"| {what} | | | | {row['counted_mib']:.0f} (counted: the maps alone) | {measured} | {row['memory_ratio']:.2f} | | |"
            )
            continue
        lines.append(f"| {what} | {measuring.cells(row, peer, ours)} | {row['largest_difference']:.1e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
