"""One film for all tests that only read it."""

from pathlib import Path

import pytest

from tests.videogen.data.films import film


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 frames at 12 a second, a key frame a second."""
    return film(tmp_path_factory.mktemp("films") / "clip.mp4")
