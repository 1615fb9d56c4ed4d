"""What the wheel holds, and that a program installed from it finds its files."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from videogen import video

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built by the installed hatchling, so that no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", str(ROOT)]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("videogen-*.whl")
    return path


def test_the_wheel_puts_three_packages_at_top_level_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"videogen", "motion_modules", "editors"}


def test_the_wheel_carries_configs_scripts_and_the_miniature(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for path in filter(lambda name: (ROOT / name).is_file(), tracked):
        if path.startswith(("configs/", "scripts/")):
            assert f"videogen/{path}" in names
        if path.startswith(("videogen/", "motion_modules/", "editors/")):
            assert path in names
    assert "videogen/py.typed" in names


def unpacked(wheel: Path, folder: Path, code: str) -> list[str]:
    """The lines that Python code prints where the wheel is unpacked and nothing else of ours can be found."""
    zipfile.ZipFile(wheel).extractall(folder / "site")
    run = subprocess.run(
        [sys.executable, "-P", "-c", code],  # -P and an empty folder: nothing of the checkout may help
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_the_program_runs_from_the_unpacked_wheel_and_finds_its_configs(wheel: Path, tmp_path: Path) -> None:
    code = (
        "import videogen, videogen.cli.folders as f; from videogen.cli.app import main; main(['--version']);"
        "print(f.configs_folder()); print(len(list(f.configs_folder().rglob('*.yaml'))))"
    )
    version, folder, count = unpacked(wheel, tmp_path, code)
    assert version == "videogen 0.1.0"
    assert Path(folder) == tmp_path / "site" / "videogen" / "configs"
    assert int(count) == len(list((ROOT / "configs").rglob("*.yaml")))


def test_a_clip_is_generated_from_the_unpacked_wheel(wheel: Path, tmp_path: Path) -> None:
    """The miniature travels in it, and what the packages announce to each other is found."""
    code = (
        "import sys, videogen, motion_modules; from videogen.cli.app import main; print(videogen.__file__, motion_modules.__file__);"
        "sys.exit(main(['generate', 'a red circle', '--frames', '2', '--steps', '1', '--quiet', '-o', 'clip.mp4']))"
    )
    found, written = unpacked(wheel, tmp_path, code)
    assert found.split() == [str(tmp_path / "site" / name / "__init__.py") for name in ("videogen", "motion_modules")]
    assert written == "clip.mp4"
    made = video.read_recipe(tmp_path / "clip.mp4").models
    assert made["model"]["source"] == "shapes"
    assert len(video.read(tmp_path / "clip.mp4")) == 2


def test_constraints_pin_every_requirement_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all([part.operator for part in pin.specifier] == ["=="] for pin in pins)
    pinned = {canonicalize_name(pin.name) for pin in pins}
    wanted = [Requirement(text) for text in requires("videogen") or []]
    needed = {canonicalize_name(one.name) for one in wanted if not one.marker or one.marker.evaluate({"extra": "dev"})}
    assert len(needed) > 10
    assert needed <= pinned


def test_the_pinned_versions_lie_within_the_declared_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    ranges = {canonicalize_name(one.name): one.specifier for one in map(Requirement, requires("videogen") or [])}
    for pin in pins:
        (version,) = (part.version for part in pin.specifier)
        assert version in ranges.get(canonicalize_name(pin.name), SpecifierSet()), f"{pin} against pyproject.toml"
