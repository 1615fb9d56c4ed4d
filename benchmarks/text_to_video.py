"""Text to video side by side with diffusers' AnimateDiffPipeline: time and peak memory as ratios.

    python benchmarks/text_to_video.py                        # SD 1.5 widths, motion module v2 widths, on the processor
    python benchmarks/text_to_video.py --device cuda          # on a GPU
    python benchmarks/text_to_video.py --widths small         # the same code in a minute

Both libraries hold the same random weights, each in a process of its own, and are asked in turn for the same latents: 4 steps of DDIM with guidance.
A figure is the median of the pairs' ratios. Memory is the most that a call holds above what the process held before it; the resident ratio is of the
same with what glibc keeps of freed blocks. Outputs are compared in float32.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import torch
from random_models import WIDTHS, motion_adapter, stable_diffusion

PROMPT = "a red circle moving right"
LIBRARIES = ("diffusers", "videogen")


def main() -> None:
    """Run the pairs and print the table; `--report` writes it too."""
    args = _arguments()
    if args.worker:
        _work(args)
        return
    with tempfile.TemporaryDirectory() as holder:
        folder = Path(holder) / "model"
        _write_model(folder, args.widths)
        table = measuring.Rows(args, ("videogen", "motion_modules"))
        rows = [table.row(setting, partial(_pairs, folder, args, **setting)) for setting in _settings(args)]
    measuring.published(_table(rows, args), args.report, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", choices=WIDTHS, default="sd15")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--compiled", choices=measuring.NO_YES_BOTH, default="no")
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=3)
    measuring.machine_options(parser, "docs/benchmarks_text_to_video.md; a .json is written beside it")
    measuring.Rows.option(parser)
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _settings(args: argparse.Namespace) -> list[dict[str, Any]]:
    same = {"widths": args.widths, "side": args.side, "steps": args.steps, "pairs": args.pairs}
    return [
        {"frames": frames, "dtype": dtype, "compiled": compiled, **same}
        for compiled in measuring.NO_YES_BOTH[args.compiled]
        for dtype in args.dtypes
        for frames in args.frames
    ]


def _write_model(folder: Path, widths: str) -> None:
    """A random model in diffusers' layout."""
    from diffusers import AnimateDiffPipeline

    parts = stable_diffusion(widths)
    AnimateDiffPipeline(**parts, motion_adapter=motion_adapter(widths)).save_pretrained(folder)


def _pairs(
    folder: Path, args: argparse.Namespace, *, frames: int, dtype: str, compiled: bool, **_: object
) -> dict[str, Any]:
    """One row: both libraries started, warmed up, then asked in turn."""
    words = {name: _words(name, folder, args, frames, dtype, compiled) for name in LIBRARIES}
    workers = {name: measuring.Worker(told) for name, told in words.items()}
    first = {name: worker.ask() for name, worker in workers.items()}
    runs = measuring.taken_in_turn(workers, args.pairs)
    outputs = [torch.load(folder / f"{name}.pt", weights_only=True) for name in LIBRARIES]
    most = {name: measuring.held([*told, "--steps", "1"]) for name, told in words.items()}  # every step holds the same
    return {
        **measuring.compared(runs, most, *LIBRARIES), "first_seconds": {name: first[name]["seconds"] for name in LIBRARIES},
        "largest_difference": float((outputs[0] - outputs[1]).abs().max()), "largest_value": float(outputs[0].abs().max()),
    }  # fmt: skip


def _words(name: str, folder: Path, args: argparse.Namespace, frames: int, dtype: str, compiled: bool) -> list[str]:
    """What starts one library in its own process."""
    words = [__file__, "--worker", name, "--folder", str(folder), "--frames", str(frames), "--dtypes", dtype]
    words += ["--compiled", "yes" if compiled else "no", "--side", str(args.side), "--steps", str(args.steps)]
    return [*words, "--device", args.device, "--threads", str(args.threads)]


def _work(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    frames, dtype = args.frames[0], getattr(torch, args.dtypes[0])
    latents = torch.randn(1, frames, 4, args.side // 8, args.side // 8, generator=torch.Generator().manual_seed(0))
    build = _diffusers if args.worker == "diffusers" else _videogen
    measuring.serve(build(args, dtype, latents), args.device, args.folder / f"{args.worker}.pt")


def _diffusers(args: argparse.Namespace, dtype: torch.dtype, latents: torch.Tensor) -> Callable[[], torch.Tensor]:
    from diffusers import AnimateDiffPipeline

    pipe = AnimateDiffPipeline.from_pretrained(args.folder, torch_dtype=dtype, local_files_only=True).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    if args.compiled == "yes":
        pipe.unet = torch.compile(pipe.unet)
    theirs = latents.transpose(1, 2).to(args.device, dtype)

    def call() -> torch.Tensor:
        with torch.no_grad():
            out = pipe(
                PROMPT, num_frames=latents.shape[1], height=args.side, width=args.side, num_inference_steps=args.steps,
                guidance_scale=7.5, latents=theirs, output_type="latent",
            ).frames  # fmt: skip
        return out.transpose(1, 2).float().cpu()

    return call


def _videogen(args: argparse.Namespace, dtype: torch.dtype, latents: torch.Tensor) -> Callable[[], torch.Tensor]:
    from videogen.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(args.folder, dtype=dtype, device=args.device)
    if args.compiled == "yes":
        pipe.compile()

    def call() -> torch.Tensor:
        return pipe(
            PROMPT, num_frames=latents.shape[1], height=args.side, width=args.side, num_inference_steps=args.steps,
            guidance_scale=7.5, latents=latents, output_type="latent", progress=False,
        ).frames.cpu()  # fmt: skip

    return call


def _table(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    lines = measuring.header(["frames", "dtype", "compiled", *measuring.heads(*LIBRARIES), "largest difference"])
    for row in rows:
        lines.append(
            f"| {row['frames']} | {row['dtype']} | {'yes' if row['compiled'] else 'no'} | {measuring.cells(row, *LIBRARIES)} "
            f"| {row['largest_difference']:.1e} |"
        )
    about = f"{args.widths} widths, {args.side} x {args.side}, {args.steps} steps with guidance, {args.device}, {args.threads} threads, "
    about += f"PyTorch {torch.__version__}, median of {args.pairs} pairs"
    return "\n".join([*lines, *measuring.made_by(about)])


if __name__ == "__main__":
    main()
