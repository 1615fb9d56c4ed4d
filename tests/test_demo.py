"""`make demo`: four clips that carry their recipe, a contact sheet and a GIF of all four, also where a demo was made before."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts import demo
from videogen import generation, video


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model in the package in one step and three frames, without a network."""
    make = generation.make

    def made(pipe: Any, request: generation.Request) -> Any:
        return make(pipe, dataclasses.replace(request, frames=3, steps=1), progress=False)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(generation, "make", made)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def test_what_it_promises_is_there(quick: None, tmp_path: Path) -> None:
    for _ in range(2):
        made = demo.demo(tmp_path / "out")
        names = ["right.mp4", "growing.mp4", "up.mp4", "two.mp4", "contact_sheet.png", "demo.gif"]
        assert made == [tmp_path / "out" / name for name in names]
        assert sorted((tmp_path / "out").iterdir()) == sorted(made)
    recipes = [video.read_recipe(path) for path in made[:4]]
    assert [recipe.prompt for recipe in recipes] == list(demo.PROMPTS.values())
    assert {recipe.models["model"]["source"] for recipe in recipes} == {"shapes"}
    clips = [video.read(path) for path in made[:4]]
    assert {(len(clip), clip.height, clip.width, clip.fps) for clip in clips} == {(3, 128, 128, 8)}
    assert len({clip.frames.numpy().tobytes() for clip in clips}) == 4
    with Image.open(made[4]) as sheet:
        assert sheet.height > 4 * 128
    with Image.open(made[5]) as gif:
        assert (gif.n_frames, gif.size) == (3, (4 * 128, 128))
