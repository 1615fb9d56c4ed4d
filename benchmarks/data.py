"""Reading training clips side by side with reading them as AnimateDiff's script does: clips per second of one core, and memory over many samples.

    python benchmarks/data.py                            # 16 frames at 256 x 256 from 10 s of H.264 at 1280 x 720, GOP 24 and 250
    python benchmarks/data.py --samples 4 --seconds 2    # the same code in a minute
    python benchmarks/data.py --memory 10000             # memory while 10,000 small clips are read

The other side is the authors' way: decord opens the whole clip for every sample, gives 16 frames at full size, and torch resizes and crops
them. Both sides read the same windows of the same files with one thread, in turn; the ratio in the mean is that of clips a second over all windows.
Needs decord (`pip install decord`).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from measuring import command, published, turn
from torch import Tensor

from videogen.data.chance import uniform
from videogen.data.clips import Clips
from videogen.data.fitting import Fit
from videogen.data.opening import opened
from videogen.data.rows import File
from videogen.data.settings import Data
from videogen.data.windows import starts, window

FRAMES, STRIDE, SIDE = 16, 4, 256
RATE, SIZE = 24, (1280, 720)
CORPUS = [{"layout": "pairs", "folder": "."}]


def main() -> None:
    """Make the clips, read them, print the table; `--report` writes it too."""
    args = _arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as holder:
        if args.memory:
            lines = _memory(Path(holder), args.memory)
        else:
            pairs = {str(gop): _pairs(Path(holder), gop, args) for gop in (24, 250)}
            lines = [
                "| GOP | clips a second, videogen | decord, as the authors | ratio in the mean | median of the pairs' ratios |",
                "|---|---|---|---|---|",
                *(_row(name, some) for name, some in pairs.items()),
                _row("both", [pair for some in pairs.values() for pair in some]),
            ]
    published("\n".join([*lines, "", f"`{command()}`"]), args.report)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60, help="windows read by both sides")
    parser.add_argument("--seconds", type=int, default=10, help="length of each file")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--memory", type=int, default=0, help="read so many small clips instead, and report memory")
    parser.add_argument("--report", type=Path)
    return parser.parse_args()


def _pairs(folder: Path, gop: int, args: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds of both sides for every window."""
    files = [film(folder / f"{gop}-{i}.mp4", args.seconds * RATE, gop, SIZE, seed=i) for i in range(args.files)]
    data = Data.model_validate({"sources": CORPUS, "frames": FRAMES, "stride": STRIDE})
    pairs = []
    for sample in range(args.samples):
        path, place = files[sample % len(files)], uniform(0, gop, sample)
        sides = {"authors": partial(authors, path, place), "ours": partial(ours, path, place, data)}
        if sample < len(files):
            _same(**{name: side() for name, side in sides.items()})
        pairs.append(turn({name: partial(_seconds, side) for name, side in sides.items()}, sample))
    return pairs


def _same(ours: Tensor, authors: Tensor) -> None:
    """Both sides must read the same frames: the scene moves, so another frame is another picture."""
    off = (ours.float() / 255 - authors).abs().mean((1, 2, 3))
    others = (ours.float() / 255 - authors.roll(1, 0)).abs().mean((1, 2, 3))
    assert bool((off < others / 2).all()), (off, others)


def _row(name: str, pairs: Sequence[Mapping[str, float]]) -> str:
    ratio = statistics.median(pair["authors"] / pair["ours"] for pair in pairs)
    speed = {name: len(pairs) / sum(pair[name] for pair in pairs) for name in ("ours", "authors")}
    mean = speed["ours"] / speed["authors"]
    return f"| {name} | {speed['ours']:.2f} | {speed['authors']:.2f} | {mean:.2f} | {ratio:.2f} |"


def _seconds(read: Callable[[], Tensor]) -> float:
    begin = time.perf_counter()
    shape = tuple(read().shape)
    assert shape == (FRAMES, 3, SIDE, SIDE), shape
    return time.perf_counter() - begin


def ours(path: Path, place: float, data: Data) -> Tensor:
    """One window `f 3 h w` uint8, as a training reads it."""
    with opened(File(str(path))) as clip:
        which = int(place * len(starts(data, clip.extent, FRAMES)))
        frames = clip.frames(window(data, clip.extent, FRAMES, which), Fit(SIDE, SIDE))
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).contiguous()


def authors(path: Path, place: float) -> Tensor:
    """The same window: the file opened by decord, 16 frames at full size, then resized to cover and cropped, as torchvision does on tensors."""
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    span = min(len(reader), (FRAMES - 1) * STRIDE + 1)
    begin = int(place * (len(reader) - span + 1))
    numbers = np.linspace(begin, begin + span - 1, FRAMES, dtype=int)
    frames = torch.from_numpy(reader.get_batch(numbers).asnumpy()).permute(0, 3, 1, 2).contiguous() / 255.0
    scale = SIDE / min(frames.shape[-2:])
    size = tuple(round(side * scale) for side in frames.shape[-2:])
    frames = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return frames[:, :, top : top + SIDE, left : left + SIDE]


def film(path: Path, count: int, gop: int, size: tuple[int, int], seed: int) -> Path:
    """A file with moving texture, B-frames, and a key frame every `gop` frames."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (size[1] // 16 + 8, size[0] // 16 + 64, 3), dtype=np.uint8)
    scene = np.repeat(np.repeat(coarse, 16, axis=0), 16, axis=1)
    scene = (scene * 0.85 + draw.integers(0, 38, scene.shape)).astype(np.uint8)
    with av.open(str(path), "w") as output:
        options = {
            "g": str(gop),
            "keyint_min": str(gop),
            "sc_threshold": "0",
            "crf": "23",
            "preset": "veryfast",
            "bf": "2",
        }
        stream = output.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for i in range(count):
            top, left = i % 128, (3 * i) % 1024
            view = np.ascontiguousarray(scene[top : top + size[1], left : left + size[0]])
            frame = av.VideoFrame.from_ndarray(view, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def _memory(folder: Path, samples: int) -> list[str]:
    """The process's peak memory after a tenth of the samples and after all."""
    for i in range(8):
        film(folder / f"{i}.mp4", 72, 24, (128, 96), seed=i)
        (folder / f"{i}.txt").write_text(f"clip {i}")
    settings: dict[str, Any] = {
        "sources": [{"layout": "pairs", "folder": str(folder)}],
        "size": "64x64",
        "batch_size": 10,
    }
    batches = Clips(Data.model_validate(settings), 0).batches()
    marks = {}
    for step in range(1, samples // 10 + 1):
        next(batches)
        if step in (max(1, samples // 100), samples // 10):
            marks[step * 10] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    batches.close()  # type: ignore[attr-defined]
    return [
        "| samples | peak memory, MiB |",
        "|---|---|",
        *(f"| {count:,} | {mib:.0f} |" for count, mib in marks.items()),
    ]


if __name__ == "__main__":
    main()
