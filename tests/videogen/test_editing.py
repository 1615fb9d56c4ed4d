"""A request survives its recipe, and seconds become frames."""

import dataclasses
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.videogen.test_video import shapes
from videogen import editing, generation, recipe, video
from videogen.editing import Request
from videogen.errors import InputError
from videogen.video import Source, open_source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """12 frames at 8 a second."""
    video.write(tmp_path / "clip.webp", shapes(12, 16, 32, Fraction(8)))
    return open_source(tmp_path / "clip.webp")


def request(source: Source, **changes: Any) -> Request:
    base = generation.Request("a blue circle", steps=3, guidance=2.0, seed=5, negative="red", motion_scale=0.5)
    return Request(str(source.path), base, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "source_prompt": "a red circle", "method": "fatezero", "preset": "style", "blend": ("circle",), "weights": {"blue": 2.0},
            "size": (96, 64), "span": (Fraction("0.5"), None), "chunk": 8, "overlap": 3, "edit": "refine",
        },
        {"method": "sdedit", "strength": 0.25, "span": (None, Fraction(1, 3))},
        {"method": "tune_a_video", "settings": {"tuning_steps": 3, "learning_rate": 0.003}},
    ],
)  # fmt: skip
def test_a_request_is_read_back_from_its_recipe(source: Source, changes: dict[str, Any]) -> None:
    asked = request(source, **changes)
    made = recipe.from_json(editing.recipe_of(asked, source).to_json())
    assert (made.command, made.frames, made.height, made.width, made.fps) == ("edit", 12, 16, 32, "8")
    again = editing.request_of(made)
    assert editing.recipe_of(again, source) == editing.recipe_of(asked, source)
    for name in changes:
        assert getattr(again, name) == getattr(asked, name)
    assert (again.prompt, again.base.seed, again.base.negative, again.base.motion_scale) == (
        "a blue circle",
        5,
        "red",
        0.5,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chunk", "x"), ("chunk", 2.5), ("size", [96, "64"]), ("strength", "half"), ("blend", "circle"), ("blend", [1]), ("weights", [2]),
        ("settings", 3), ("clip", None), ("span", [[], None]), ("sha256", None), ("colour", "red"),
    ],
)  # fmt: skip
def test_a_recipe_that_was_changed_by_hand_is_refused(source: Source, name: str, value: Any) -> None:
    made = editing.recipe_of(request(source, method="sdedit"), source)
    edit = {**made.options["edit"], name: value}
    if name == "sha256":
        del edit[name]
    with pytest.raises(InputError, match="damaged"):
        editing.request_of(dataclasses.replace(made, options={**made.options, "edit": edit}))


def test_a_source_with_other_contents_is_told(source: Source) -> None:
    made = editing.recipe_of(request(source), source)
    assert editing.changed_source(made) == []
    video.write(source.path, shapes(12, 16, 48), overwrite=True)
    assert "has changed" in editing.changed_source(made)[0]
    source.path.unlink()
    assert "is not there" in editing.changed_source(made)[0]


@pytest.mark.parametrize(
    ("span", "frames"),
    [
        ((None, None), (0, 12)), ((Fraction("0.5"), Fraction(1)), (4, 8)), ((Fraction("0.51"), None), (5, 12)),
        ((None, Fraction("0.26")), (0, 3)), ((Fraction(1), Fraction(99)), (8, 12)),
    ],
)  # fmt: skip
def test_a_range_holds_the_frames_that_begin_in_it(source: Source, span: Any, frames: tuple[int, int]) -> None:
    """Frame i begins at i / 8 seconds."""
    assert editing.span_of(request(source, span=span), source) == frames


def test_a_range_without_frames_is_refused(source: Source) -> None:
    with pytest.raises(InputError, match=r"1.5-2; the clip lasts 1.5 s"):
        editing.span_of(request(source, span=(Fraction("1.5"), Fraction(2))), source)


def test_chunks_fit_the_motion_module(source: Source) -> None:
    def length(frames: int, motion: Any, **changes: Any) -> int:
        return editing.chunks_of(request(source, **changes), motion, frames).length  # type: ignore[arg-type]

    module = SimpleNamespace(longest=24, trained=16)
    assert [length(20, module), length(25, module), length(99, None), length(99, module, chunk=5)] == [20, 16, 8, 5]
    assert (
        length(10**6, SimpleNamespace(longest=10**9, trained=10**9)) <= 32
    )  # a tuned model has no table, memory an end


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strength": 1.5}, "--strength 1.5"), ({"overlap": 2}, "--chunk"), ({"chunk": 4, "overlap": 4}, "--overlap"),
        ({"weights": {"blue": float("inf")}}, "WORD=NUMBER"),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_before_anything_is_read(
    source: Source, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        request(source, **changes).check()
    with pytest.raises(InputError, match="prompt is empty"):
        Request("clip.mp4", generation.Request(" ")).check()
