"""A wrong key names its path and the nearest right one; overrides go where they say; every shipped configuration is valid."""

from pathlib import Path

import pytest

from motion_modules.training import offer
from videogen.errors import InputError
from videogen.training import recipes
from videogen.training.config import RunConfig, load, validate

OFFERS = {**recipes(), "shapes_motion": offer}
CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "miniature").glob("*.yaml"))


@pytest.fixture
def vae() -> Path:
    return Path(__file__).parents[3] / "configs" / "miniature" / "vae.yaml"


def validated(path: Path, *overrides: str) -> RunConfig:
    values = load(path, overrides)
    return validate(RunConfig[OFFERS[values["recipe"]]().settings], values)  # type: ignore[misc]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid_and_says_its_command(path: Path) -> None:
    assert validated(path).recipe in OFFERS
    assert f"videogen train miniature/{path.stem}" in path.read_text().replace("-m videogen", "videogen")


def test_overrides_are_yaml_at_an_address(vae: Path) -> None:
    config = validated(vae, "budget={steps: 5}", "optimization.muon=0.5", "settings.widths=[8, 16]", "export=null")
    assert config.budget.steps == 5
    assert config.budget.minutes is None
    assert config.optimization.muon == 0.5
    assert config.settings.widths == (8, 16)
    assert config.export is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("settings.crops=3", r"no key settings\.crops; did you mean settings\.crop\?"),
        ("optimisation.muon=1", r"no key optimisation; did you mean optimization\?"),
        ("optimization.zzz=1", r"no key optimization\.zzz; known are optimizer, muon, adamw"),
        ("budget.steps=3", "give minutes or steps"),
        ("seed=many", "seed: Input should be a valid integer"),
        ("seed", "must look like a.b=value"),
        ("seed.x=1", "goes through seed"),
    ],
)
def test_mistakes_are_named(vae: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        validated(vae, override)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no configuration"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="mapping"):
        load(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(InputError, match="not YAML"):
        load(tmp_path / "broken.yaml")
