"""Key lists of the field's checkpoints, and a tiny world to train in."""

import gzip
import json
from pathlib import Path

import pytest

from tests import training_world
from tests.training_world import Worlds

LISTS = next(p for p in Path(__file__).parents if p.name == "tests") / "manifests" / "manifests.json.gz"


@pytest.fixture(scope="session")
def manifests() -> dict[str, dict[str, list[int]]]:
    """name -> {key: shape}."""
    with gzip.open(LISTS) as file:
        return json.load(file)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    """A model folder and a folder of films."""
    folder = tmp_path_factory.mktemp("world")
    return training_world.model(folder / "model"), training_world.films(folder / "films")
