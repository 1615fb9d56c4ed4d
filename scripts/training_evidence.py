"""What `videogen evaluate training` measures, made from nothing: corpora, trainings, and the measurement itself. Needs no network.

    python scripts/training_evidence.py          everything, about three hours of two cores; results go into docs/results.md
    python scripts/training_evidence.py --try    the same with 8 clips a corpus, 2 steps a training and 2 clips a way, under out/try/

It can be stopped at any time: the same command goes on where it was. docs/training_evidence.md tells the commands one by one.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TRY = Path("out/try")
STOPPED = 130
PALETTE = (
    "red=f06eaa", "green=aae63c", "blue=8296fa", "yellow=fff0a0", "purple=d228c8", "orange=faa078", "white=bebec3", "cyan=78f0c8",
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """A corpus `runs/CORPUS`, and what is trained on it by `configs/training/CONFIG.yaml`.

    options  of the corpus, besides the number of its clips
    result   what the measurement takes, below the folder of the export, which is there before anything lies in it
    """

    corpus: str
    count: int
    options: tuple[str, ...]
    config: str
    export: str
    result: str


TRAININGS = {
    "from_files": Training(
        "corpus", 4000, ("--broken", "12"), "shapes_motion_from_files", "shapes_motion", "motion_module.safetensors"
    ),
    "repainted": Training(
        "repainted", 1000, tuple(word for colour in PALETTE for word in ("--colour", colour)), "shapes_repainted", "shapes_repainted", "unet"
    ),
    "outlined": Training(
        "outlined", 1000, ("--style", "outlined", "--untold", "style"), "shapes_outlined", "shapes_outlined", "lora.safetensors"
    ),
    "pan": Training(
        "pan", 50, ("--camera", "pans_right", "--textured", "--untold", "camera"), "shapes_pan", "shapes_pan", "motion_lora.safetensors"
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done yet, and return the exit code of the first command that fails or is stopped, 0 where none does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--try", dest="tried", action="store_true", help="a few minutes, to see that every command works"
    )
    return made(TRY if parser.parse_args(arguments).tried else None)


def made(tried: Path | None) -> int:
    """Everything, for good or, in a folder, to try it out."""
    for training in TRAININGS.values():
        if result(training, tried).exists():
            continue
        for words in commands(training, tried):
            if code := videogen(words):
                return code
        if not result(training, tried).exists():  # a training that a signal ends has done what it was asked to: 0
            return STOPPED
    return videogen(measurement(tried))


def commands(training: Training, tried: Path | None) -> list[list[str]]:
    """From nothing to what was trained."""
    corpus, name = folder(training, tried), f"training/{training.config}"
    changed = [] if tried is None else overrides(training, tried)
    run = (Path("runs") if tried is None else tried) / training.config
    resumed = ["--resume", "latest"] if any(run.glob("checkpoint-*")) else []
    count = training.count if tried is None else 8
    return [
        ["shapes", "corpus", str(corpus), "--count", str(count), "--usual", "0.9", *training.options],
        ["data", "cache", name, *changed],
        ["train", name, *changed, *resumed],
    ]


def overrides(training: Training, tried: Path) -> list[str]:
    """What differs where it is only tried."""
    corpus = folder(training, tried)
    return [
        f"out={tried / training.config}",
        f"export={tried / 'out' / training.export}",
        "budget={steps: 2}",
        "compile=false",
        "settings.data.batch_size=2",
        f"settings.data.sources=[{{layout: webvid, csv: {corpus}/results.csv, videos: {corpus}/videos}}]",
        f"settings.data.store={corpus}/facts",
        f"settings.data.cache.folder={corpus}/cache",
        "settings.data.broken=1",
        "settings.validation=null",
        "every.validate=0",
    ]


def measurement(tried: Path | None) -> list[str]:
    """The command that measures it all."""
    words = ["evaluate", "training", "from_files", "transfer", "motion_lora"]
    words += ["--trained", str(result(TRAININGS["from_files"], tried))]
    for name, option in (("repainted", "--base"), ("outlined", "--base"), ("pan", "--motion-lora")):
        words += [option, f"{folder(TRAININGS[name], tried)}={result(TRAININGS[name], tried)}"]
    if tried is None:
        return [*words, "--report", "docs/results.md"]
    return [
        *words,
        "--count",
        "2",
        "--steps",
        "2",
        "--out",
        str(tried / "measured"),
        "--report",
        str(tried / "results.md"),
    ]


def folder(training: Training, tried: Path | None) -> Path:
    """Where the corpus lies."""
    return (Path("runs") if tried is None else tried) / training.corpus


def result(training: Training, tried: Path | None) -> Path:
    """Where what was trained lies."""
    return (Path("out") if tried is None else tried / "out") / training.export / training.result


def videogen(words: Sequence[str]) -> int:
    """Run one command, shown as it is typed."""
    from videogen.cli.app import main

    print(f"\n$ videogen {shlex.join(words)}", flush=True)
    return main(list(words))


if __name__ == "__main__":
    sys.exit(main())
