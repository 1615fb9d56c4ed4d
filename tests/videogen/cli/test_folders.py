"""A configuration is found by name or by path, and a wrong name is answered with the nearest."""

from pathlib import Path

import pytest

from videogen.cli import folders
from videogen.errors import InputError


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two configurations in a folder of their own, in place of the project's."""
    for name in ("miniature/image.yaml", "miniature/motion.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    monkeypatch.setattr(folders, "configs_folder", lambda: tmp_path)
    return tmp_path


def test_the_checkout_has_its_configs_folder() -> None:
    assert folders.configs_folder() == Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", ["miniature/image", "miniature/image.yaml", "configs/miniature/image.yaml"])
def test_a_name_is_found_with_and_without_suffix_and_folder(
    configs: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(configs / "miniature")  # where no path of that name exists
    assert folders.config_file(name) == configs / "miniature" / "image.yaml"


def test_a_path_that_exists_wins(configs: Path) -> None:
    path = configs / "miniature" / "motion.yaml"
    assert folders.config_file(str(path)) == path


def test_a_wrong_name_is_answered_with_the_nearest(configs: Path) -> None:
    with pytest.raises(InputError, match=r"no configuration 'miniature/imag'; the nearest: miniature/image"):
        folders.config_file("miniature/imag")
    with pytest.raises(InputError, match=r"there are: miniature/image, miniature/motion$"):
        folders.config_file("zzz")
