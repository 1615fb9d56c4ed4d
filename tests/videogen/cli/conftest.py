"""A command line called in this process, and tiny models on disk to call it with."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests import folders
from tests.videogen.cli.calls import PROMPT, Done, Run, contents, error_line
from videogen.cli import app


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Calls `videogen WORDS` here; what C libraries print is seen too."""

    def call(*words: str | Path) -> Done:
        capfd.readouterr()
        code = app.main([str(word) for word in words])
        return Done(code, *capfd.readouterr())

    return call


@pytest.fixture
def generate(run: Run, animated: Path, tmp_path: Path) -> Run:
    """Calls `videogen generate` for two small frames in `clip.mp4`; further words come after and win."""
    standing = ("--model", animated, "--frames", "2", "--steps", "1", "--quiet", "-o", tmp_path / "clip.mp4")
    return lambda *words: run("generate", PROMPT, *standing, *words)


@pytest.fixture
def refused(generate: Run, tmp_path: Path) -> Callable[..., str]:
    """Calls `generate`, which must refuse: exit code 2, one line on stderr, and the folder as it was. Gives the line."""

    def call(*words: str | Path) -> str:
        before = contents(tmp_path)
        line = error_line(generate(*words))
        assert contents(tmp_path) == before
        return line

    return call


@pytest.fixture(scope="session")
def animated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: a UNet of two levels for 64 x 64 pixels, and motion modules with positions for 16 frames."""
    folder = tmp_path_factory.mktemp("models") / "animated"
    folders.animatediff(folder)
    return folder


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA file for `animated`, of rank 2, in the names of peft."""
    path = tmp_path_factory.mktemp("models") / "style.safetensors"
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    draw = torch.Generator().manual_seed(0)
    shapes = {"lora_A": (2, 32), "lora_B": (32, 2)}
    save_file({f"{layer}.{side}.weight": torch.randn(shape, generator=draw) for side, shape in shapes.items()}, path)
    return path
