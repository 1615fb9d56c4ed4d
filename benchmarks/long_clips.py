"""Peak memory of long clips on the miniature: 256 frames beside 32, weights and the finished clip aside.

    python benchmarks/long_clips.py

A clip longer than the motion module's positions runs through overlapping windows, and frames are decoded in slices, so memory should not grow with
the clip. Each length runs in a process of its own, after a call of 16 frames that warms the allocator up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from measuring import measured

from videogen.files import replacing

PROMPT = "a red circle moving right on a black background"


def main() -> None:
    """Measure every length and print the table; `--report` writes it too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", type=Path, help="docs/benchmarks_long_clips.md")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(_work(args.frames[0], args)))
        return
    table = _table([_in_process(frames, args) for frames in args.frames], args)
    print(table)
    if args.report:
        with replacing(args.report) as beside:
            beside.write_text(table + "\n", encoding="utf-8")


def _in_process(frames: int, args: argparse.Namespace) -> dict[str, float]:
    words = [sys.executable, __file__, "--worker", "--frames", str(frames), "--steps", str(args.steps)]
    words += ["--device", args.device, "--threads", str(args.threads)]
    lines = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found: dict[str, float] = json.loads(lines[-1])
    return found


def _work(frames: int, args: argparse.Namespace) -> dict[str, float]:
    import torch

    from videogen.pipeline import Pipeline

    torch.set_num_threads(args.threads)
    pipe = Pipeline.from_pretrained("shapes", device=args.device)

    def call(count: int) -> torch.Tensor:
        made: torch.Tensor = pipe(
            PROMPT, num_frames=count, num_inference_steps=args.steps, seed=0, progress=False
        ).frames
        return made

    call(16)
    figures, made = measured(lambda: call(frames), args.device)
    result = made.numel() * made.element_size() / 2**20
    return figures | {"frames": frames, "result_mib": result, "above_mib": figures["peak_mib"] - result}


def _table(rows: list[dict[str, float]], args: argparse.Namespace) -> str:
    lines = [
        "| frames | seconds | finished clip MiB | peak above weights and clip MiB | ratio to the first |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = row["above_mib"] / rows[0]["above_mib"]
        lines.append(
            f"| {row['frames']} | {row['seconds']:.1f} | {row['result_mib']:.0f} | {row['above_mib']:.0f} | {ratio:.2f} |"
        )
    command = "python " + " ".join(["benchmarks/long_clips.py", *sys.argv[1:]])
    about = f"128 x 128, {args.steps} steps with guidance, {args.device}, {args.threads} threads. Made by"
    return "\n".join([*lines, "", about, "", f"    {command}"])


if __name__ == "__main__":
    main()
