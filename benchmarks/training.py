"""A training step of the recipe `motion` side by side with a plain loop over diffusers' UNetMotionModel: time and peak memory as ratios.

    python benchmarks/training.py                        # SD 1.5 widths, motion module v2 widths, on the processor
    python benchmarks/training.py --device cuda          # on a GPU
    python benchmarks/training.py --widths small         # the same code in a minute

Both hold the same random weights in float32 (autocast to the dtype) and train the motion modules with AdamW behind clipped gradients. Each has a
process of its own, one after the other, since both together would not fit: it makes two steps on the same latents, times, noise and text, and the
second one counts. Which comes first changes from pair to pair; a figure is the median of the pairs' ratios.
Memory is the most that a step holds above what the process held before it, so weights and optimizer state are not in it; the
resident ratio is of the same with what glibc keeps of freed blocks. The losses of the first step must be the same, but for the rounding of the dtype:
else the two are not the same training, and the program ends.
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
from random_models import WIDTHS, motion_adapter, save_stable_diffusion

LOOPS = ("diffusers", "videogen")
ROUNDING = {"float32": 1e-5, "float16": 5e-4, "bfloat16": 4e-3}
"""By how much of themselves the losses of the first step may differ."""
RATE, BETAS, DECAY, CLIP = 1e-4, (0.9, 0.999), 1e-2, 1.0


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
        rows = [
            table.row(_setting(args, dtype, on), partial(_pairs, folder, args, dtype, on))
            for on in measuring.NO_YES_BOTH[args.checkpointing]
            for dtype in args.dtypes
        ]
    measuring.published(_table(rows, args), args.report, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", choices=WIDTHS, default="sd15")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--checkpointing", choices=measuring.NO_YES_BOTH, default="both", help="gradient checkpointing")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1, help="clips")
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--pairs", type=int, default=3)
    measuring.machine_options(parser, "docs/benchmarks_training.md; a .json is written beside it")
    measuring.Rows.option(parser)
    parser.add_argument("--worker", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _setting(args: argparse.Namespace, dtype: str, recomputed: bool) -> dict[str, Any]:
    same = {name: getattr(args, name) for name in ("widths", "frames", "batch", "side", "pairs")}
    return {"dtype": dtype, "checkpointing": recomputed, **same}


def _write_model(folder: Path, widths: str) -> None:
    """A random model in diffusers' layout, and one captioned clip, since our recipe wants data to open."""
    from videogen import video
    from videogen.clip import Clip

    save_stable_diffusion(widths, folder)
    motion_adapter(widths).save_pretrained(folder / "motion_adapter")
    (folder / "clips").mkdir()
    video.write(folder / "clips" / "a.mp4", Clip(torch.zeros(16, 3, 64, 64)))
    (folder / "clips" / "a.txt").write_text("nothing")


def _pairs(folder: Path, args: argparse.Namespace, dtype: str, recomputed: bool) -> dict[str, Any]:
    """What a row says."""
    losses: dict[str, float] = {}
    words = {name: _words(name, folder, args, dtype, recomputed) for name in LOOPS}

    def second(name: str) -> dict[str, float]:
        worker = measuring.Worker(words[name])
        worker.ask()
        losses[name] = float(torch.load(folder / f"{name}.pt", weights_only=True))
        found = worker.ask()
        worker.stop()
        return found

    runs = [measuring.turn({name: partial(second, name) for name in LOOPS}, i) for i in range(args.pairs)]
    most = {name: measuring.held(told) for name, told in words.items()}
    theirs, ours = (losses[name] for name in LOOPS)
    if not abs(ours - theirs) <= ROUNDING[dtype] * theirs:  # NaN too
        raise SystemExit(
            f"error: with {dtype} the losses of the first step differ: {theirs:.6f} in diffusers, {ours:.6f} in videogen"
        )
    return {**measuring.compared(runs, most, *LOOPS), "losses": losses}


def _words(name: str, folder: Path, args: argparse.Namespace, dtype: str, recomputed: bool) -> list[str]:
    """What starts one loop in its own process."""
    words = [__file__, "--worker", name, "--folder", str(folder), "--dtypes", dtype]
    words += [
        "--checkpointing",
        "yes" if recomputed else "no",
        "--frames",
        str(args.frames),
        "--batch",
        str(args.batch),
    ]
    words += ["--side", str(args.side), "--widths", args.widths]
    return [*words, "--device", args.device, "--threads", str(args.threads)]


def _work(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    shape, side = (args.batch, args.frames, 4), args.side // 8
    width = WIDTHS[args.widths]["cross_attention_dim"]
    drawn = {
        "x0": torch.randn(*shape, side, side, generator=generator),
        "noise": torch.randn(*shape, side, side, generator=generator),
        "times": torch.randint(1000, (args.batch,), generator=generator),
        "text": torch.randn(args.batch, 77, width, generator=generator),
    }
    build = _diffusers if args.worker == "diffusers" else _videogen
    measuring.serve(build(args, drawn), args.device, args.folder / f"{args.worker}.pt")


def _diffusers(args: argparse.Namespace, drawn: dict[str, torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The loop as people write it: the image layers frozen, everything else as the library has it."""
    from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel

    image = UNet2DConditionModel.from_pretrained(args.folder, subfolder="unet")
    unet = UNetMotionModel.from_unet2d(image, MotionAdapter.from_pretrained(args.folder, subfolder="motion_adapter"))
    del image
    unet.to(args.device).train()
    unet.freeze_unet2d_params()
    if args.checkpointing == "yes":
        unet.enable_gradient_checkpointing()
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=BETAS, weight_decay=DECAY)
    scheduler = DDIMScheduler.from_pretrained(args.folder, subfolder="scheduler")
    here = {name: value.to(args.device) for name, value in drawn.items()}
    dtype = getattr(torch, args.dtypes[0])

    def step() -> torch.Tensor:
        noisy = scheduler.add_noise(here["x0"], here["noise"], here["times"]).transpose(1, 2)
        text = here["text"].repeat_interleave(args.frames, 0)
        with torch.autocast(args.device.partition(":")[0], dtype, enabled=dtype != torch.float32):
            said = unet(noisy, here["times"], text).sample
            loss = torch.nn.functional.mse_loss(said.float(), here["noise"].transpose(1, 2))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach().cpu()

    return step


def _videogen(args: argparse.Namespace, drawn: dict[str, torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The project's loop with its recipe; the batch stands in for what its data would have given."""
    from motion_modules.recipes import motion
    from videogen.conditioning import Conditioning
    from videogen.training.config import RunConfig
    from videogen.training.denoising import Batch
    from videogen.training.loop import Loop
    from videogen.training.progress import Pace

    offer = motion()
    config = {
        "recipe": "motion", "out": args.folder / f"run-{args.dtypes[0]}-{args.checkpointing}", "budget": {"steps": 10**6},
        "precision": args.dtypes[0], "gradient_checkpointing": args.checkpointing == "yes", "threads": args.threads,
        "optimization": {
            "optimizer": "adamw", "adamw": RATE, "betas": BETAS, "weight_decay": DECAY, "schedule": "constant", "warmup": 0,
            "clip": CLIP, "average": 0,
        },
        "every": {"log": 1, "checkpoint": 0},
        "settings": {
            "model": str(args.folder), "motion": str(args.folder / "motion_adapter"),
            "data": {
                "sources": [{"layout": "pairs", "folder": args.folder / "clips"}], "frames": args.frames,
                "size": f"{args.side}x{args.side}", "batch_size": args.batch, "store": args.folder / "facts",
            },
        },
    }  # fmt: skip
    run = RunConfig[offer.settings].model_validate(config)  # type: ignore[name-defined]
    loop = Loop(run, offer.build(run))
    told: list[float] = []
    loop.journal, loop.pace = Told(told), Pace(0.0)  # type: ignore[assignment]
    here = {name: value.to(args.device) for name, value in drawn.items()}
    text, counts = Conditioning(tokens={"text": here["text"]}), torch.ones(args.batch)
    batch = Batch(("a.mp4",) * args.batch, here["x0"], here["noise"], drawn["times"], text, counts)

    def step() -> torch.Tensor:
        loop._advance([batch])
        return torch.tensor(told[-1])

    return step


class Told:
    """A journal that keeps the losses alone."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def write(self, line: dict[str, Any]) -> None:
        """One line of the log."""
        self.losses.append(line["motion.loss"])


def _table(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    lines = measuring.header(["dtype", "gradient checkpointing", *measuring.heads(*LOOPS), "losses at step 1"])
    for row in rows:
        first = " and ".join(f"{row['losses'][name]:.6f}" for name in LOOPS)
        lines.append(
            f"| {row['dtype']} | {'yes' if row['checkpointing'] else 'no'} | {measuring.cells(row, *LOOPS, digits=2)} | {first} |"
        )
    about = f"{args.widths} widths, {args.batch} clip(s) of {args.frames} frames, {args.side} x {args.side}, {args.device}, {args.threads} threads, "
    about += f"PyTorch {torch.__version__}, median of {args.pairs} pairs"
    return "\n".join([*lines, *measuring.made_by(about)])


if __name__ == "__main__":
    main()
