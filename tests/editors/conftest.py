"""Tiny models with random weights, as diffusers' pipelines and as ours: for pictures (`still`) and for clips (`moving`)."""

from typing import Any

import pytest
import torch

from tests import folders
from videogen.pipeline import Pipeline


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Any]:
    """Ours, and diffusers' text to image pipeline."""
    folder = tmp_path_factory.mktemp("models") / "still"
    theirs = folders.stable_diffusion(folder)
    return Pipeline.from_pretrained(folder), theirs


@pytest.fixture(scope="session")
def moving(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Any]:
    """Ours, and diffusers' AnimateDiff pipeline."""
    folder = tmp_path_factory.mktemp("models") / "moving"
    theirs = folders.animatediff(folder)
    return Pipeline.from_pretrained(folder), theirs


@pytest.fixture
def picture() -> torch.Tensor:
    """A clip of one frame: 1 3 64 64."""
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def clip() -> torch.Tensor:
    """4 3 64 64."""
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(6))
