"""Peak memory of long clips on the miniature: 256 frames beside 32, weights and the finished clip aside.

    python benchmarks/long_clips.py

A clip longer than the motion module's positions runs through overlapping windows, and frames are decoded in slices, so memory should not grow with
the clip. Each length runs in a process of its own, after a call of 16 frames that warms the allocator up.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from measuring import alone, machine_options, made_by, published, serve

PROMPT = "a red circle moving right on a black background"


def main() -> None:
    """Measure every length and print the table; `--report` writes it too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--steps", type=int, default=4)
    machine_options(parser, "docs/benchmarks_long_clips.md")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _work(args.frames[0], args)
        return
    published(_table([_in_process(frames, args) for frames in args.frames], args), args.report)


def _in_process(frames: int, args: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as holder:
        made = Path(holder) / "frames.pt"
        words = [__file__, "--worker", str(made), "--frames", str(frames), "--steps", str(args.steps)]
        figures = alone([*words, "--device", args.device, "--threads", str(args.threads)], warm=True)
        clip = torch.load(made, weights_only=True, mmap=True)
        result = clip.numel() * clip.element_size() / 2**20
    return figures | {"frames": frames, "result_mib": result, "above_mib": figures["peak_mib"] - result}


def _work(frames: int, args: argparse.Namespace) -> None:
    from videogen.pipeline import Pipeline

    torch.set_num_threads(args.threads)
    pipe = Pipeline.from_pretrained("shapes", device=args.device)

    def call(count: int) -> torch.Tensor:
        made: torch.Tensor = pipe(
            PROMPT, num_frames=count, num_inference_steps=args.steps, seed=0, output_type="pt", progress=False
        ).frames
        return made

    serve(lambda: call(frames), args.device, args.worker, warm=lambda: call(16))


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
    about = f"128 x 128, {args.steps} steps with guidance, {args.device}, {args.threads} threads"
    return "\n".join([*lines, *made_by(about)])


if __name__ == "__main__":
    main()
