"""`make demo-train`: a training from clips to a module in use, killed on the way and resumed, all under out/train/. Needs no network."""

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from videogen.errors import InputError, exit_code

OUT = Path("out/train")
CONFIG = "training/demo"
KILLED_AFTER = 25
CLIPS = 16
PROMPT = "a red circle moving left on a gray background"


def main() -> int:
    """Make the demo and return the exit code: 1 where the resumed run is another run than the uninterrupted one. Raises InputError."""
    start = time.perf_counter()
    same, verdict = demo(OUT)
    print(*sorted(path for path in OUT.iterdir() if not path.name.startswith(".")), sep="\n")
    print(f"{time.perf_counter() - start:.0f} s")
    print(verdict)
    return 0 if same else 1


def demo(folder: Path) -> tuple[bool, str]:
    """Every command from nothing to a clip, in `folder`, which configs/training/demo.yaml names; whether two runs agree, in a word and a line.

    Raises InputError where the folder holds something else than an earlier demo.
    """
    corpus, whole = folder / "corpus", folder / "uninterrupted"
    clear(folder, corpus)
    videogen("shapes", "corpus", str(corpus), "--count", str(CLIPS), "--quiet")
    videogen("data", "check", CONFIG, "-o", str(folder / "check"), "--quiet")
    videogen("data", "cache", CONFIG, "--quiet")
    kill("train", CONFIG, log=folder / "log.jsonl", after=KILLED_AFTER)
    videogen("train", CONFIG, "--resume", "latest")
    videogen("train", CONFIG, f"out={whole}", "export=null")
    module = folder / "motion_module.safetensors"
    videogen("generate", PROMPT, "--motion", str(module), "-o", str(folder / "clip.mp4"), "--overwrite")
    last = max(checkpoints(whole))
    return compared(folder / last[1], whole / last[1])


def clear(folder: Path, corpus: Path) -> None:
    """Take away what an earlier demo left, its clips excepted. Raises InputError where the folder is somebody else's."""
    if not folder.exists():
        return
    if not (corpus / "corpus.json").is_file():
        raise InputError(f"{folder} is there, and this demo did not make it; move it away")
    for path in folder.iterdir():
        if path.is_dir() and path != corpus:
            shutil.rmtree(path)
        elif path != corpus:
            path.unlink()


def videogen(*words: str) -> None:
    """Run one command, shown as it is typed. Raises InputError where it fails."""
    from videogen.cli.app import main

    print(f"\n$ videogen {shlex.join(words)}", flush=True)
    if code := main(list(words)):
        raise InputError(f"videogen {words[0]} ended with code {code}")


def kill(*words: str, log: Path, after: int) -> None:
    """Start a training in a process of its own and end it with SIGKILL, in the middle of whatever it does, once its log is beyond a step.

    Raises InputError where it has ended before.
    """
    print(f"\n$ videogen {shlex.join(words)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "videogen", *words])
    try:
        while step_of(log) <= after:
            if process.poll() is not None:
                raise InputError(
                    f"the run that was to be killed after step {after} has ended with code {process.returncode}"
                )
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    print(f"killed after step {step_of(log)}", flush=True)


def step_of(log: Path) -> int:
    """The last step that a log tells of, 0 where there is none; its last line may be half written."""
    whole = log.read_text(encoding="utf-8").rpartition("\n")[0] if log.is_file() else ""
    return int(json.loads(whole.splitlines()[-1])["step"]) if whole else 0


def checkpoints(folder: Path) -> list[tuple[int, str]]:
    """The steps and names of a run's checkpoints."""
    return [(int(path.name.partition("-")[2]), path.name) for path in folder.glob("checkpoint-*")]


def compared(one: Path, other: Path) -> tuple[bool, str]:
    """Whether two checkpoints hold the same tensors (weights, moving average, optimizer) to the bit, and the line that says it."""
    import torch
    from safetensors.torch import load_file

    left, right = (
        {
            f"{file.stem}/{name}": value
            for file in sorted(folder.glob("*.safetensors"))
            for name, value in load_file(file).items()
        }
        for folder in (one, other)
    )
    names = sorted(left.keys() | right.keys())
    differ = [
        name for name in names if name not in left or name not in right or not torch.equal(left[name], right[name])
    ]
    same = bool(names) and not differ
    found = (
        f"yes ({len(names)} tensors)"
        if same
        else f"no ({len(differ)} of {len(names)} tensors differ: {', '.join(differ[:3])})"
    )
    return same, f"resumed run equals uninterrupted: {found}"


if __name__ == "__main__":
    sys.exit(exit_code(main))
