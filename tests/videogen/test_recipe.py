"""A recipe survives JSON, and hashes tell models apart by what makes the result."""

import json
from pathlib import Path

import pytest
import torch

from videogen.errors import InputError
from videogen.recipe import Recipe, from_dict, from_json, hash_path, versions

RECIPE = Recipe(
    "generate",
    {"0": "a circle", "8": 'a "square"\n\u00e9'},
    [1, 2],
    16,
    128,
    96,
    "25/2",
    "ddim",
    25,
    7.5,
    models={"model": {"source": "shapes", "sha256": "ab"}},
    options={"lora": ["x:0.5"], "windows": None},
    versions=versions(),
    threads=2,
)


def test_json_round_trip_is_one_ascii_line() -> None:
    text = RECIPE.to_json()
    assert from_json(text) == RECIPE
    assert text.isascii()
    assert "\n" not in text


def test_fields_of_a_later_version_are_kept() -> None:
    later = from_dict({**RECIPE.to_dict(), "colour_space": "p3"})
    assert later.options == {**RECIPE.options, "colour_space": "p3"}


@pytest.mark.parametrize("text", ["", "nothing", "[]", "{}", json.dumps({"command": "generate"})])
def test_what_is_no_recipe_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as raised:
        from_json(text)
    assert "\n" not in str(raised.value)


def test_versions_name_what_a_result_depends_on() -> None:
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "machine", "diffusers"} <= versions().keys()


def test_hashes_see_weights_configs_and_places_and_nothing_else(tmp_path: Path) -> None:
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(part)
    first = hash_path(tmp_path)
    assert len(first) == 16
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "videogen.json").write_text('{"steps": 25}')
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.json").write_text("")
    assert hash_path(tmp_path) == first
    (tmp_path / "unet" / "config.json").write_text("vae")
    (tmp_path / "vae" / "config.json").write_text("unet")
    exchanged = hash_path(tmp_path)
    assert exchanged != first
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"x")
    assert hash_path(tmp_path) not in (first, exchanged)
    assert hash_path(tmp_path / "unet" / "model.safetensors") == "2d711642b726b044"  # sha256 of "x"
    with pytest.raises(InputError, match="does not exist"):
        hash_path(tmp_path / "none")
