"""Key lists of the field's checkpoints: name -> {key: shape}."""

import gzip
import json
from pathlib import Path

import pytest

LISTS = next(p for p in Path(__file__).parents if p.name == "tests") / "manifests" / "manifests.json.gz"


@pytest.fixture(scope="session")
def manifests() -> dict[str, dict[str, list[int]]]:
    with gzip.open(LISTS) as file:
        return json.load(file)
