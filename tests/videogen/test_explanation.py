"""What is explained is what happens."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest

from tests import folders
from videogen import generation
from videogen.errors import InputError
from videogen.explanation import explain
from videogen.generation import Request
from videogen.pipeline import Pipeline
from videogen.windows import Windows

REQUEST = Request("a red circle", frames=20, size=(64, 48), steps=3, guidance=5.0, negative="blue", fps=Fraction(5, 2))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("models") / "animated"
    folders.animatediff(folder)
    return Pipeline.from_pretrained(folder)


def told(pipe: Pipeline, **changes: object) -> dict[str, str]:
    return dict(explain(pipe, dataclasses.replace(REQUEST, **changes)))


def test_times_and_windows_are_those_of_the_call(pipe: Pipeline) -> None:
    lines = told(pipe, sampler="dpmpp_2m")
    result = pipe("a", num_frames=20, num_inference_steps=3, sampler="dpmpp_2m", output_type="latent", progress=False)
    assert f"3 steps from t = {result.times[0]:g} to {result.times[-1]:g}" in lines["sampler"]
    assert lines["windows"].endswith(", ".join(f"{window[0]}-{window[-1]}" for window in result.windows))
    assert lines["each step"].startswith(
        f"{len(result.windows)} calls of 2 x {len(result.windows[0])} frames of 4 x 6 x 8 "
    )
    assert lines["clip"].startswith("20 frames of 64 x 48 pixels, 8 s at 2.5 frames per second")
    assert (lines["guidance"], lines["prompt"]) == ("5", "'a red circle', against 'blue': 1 x 77 tokens")


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"prompt_2": "a cat"}, "one text encoder"), ({"clip_skip": 99}, "cannot be skipped"), ({"steps": 2000}, "steps")],
)
def test_what_the_call_refuses_is_refused_here(pipe: Pipeline, changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        told(pipe, **changes)


def test_what_does_not_act_is_said(pipe: Pipeline) -> None:
    lines = told(pipe, frames=1, guidance=1.0)
    assert lines["motion"].startswith("left out")
    assert lines["guidance"] == "none, so the negative prompt has no effect"
    assert lines["windows"].startswith("none")
    assert lines["each step"] == "1 call of 1 x 1 frames of 4 x 6 x 8 numbers; order: given"


def test_free_noise_is_one_call_with_windows_inside(pipe: Pipeline) -> None:
    lines = told(pipe, free_noise=True)
    cut = Windows(16, 12).cut(range(20))
    assert lines["windows"].startswith(f"{len(cut)} of 16 frames, inside the motion modules")
    assert lines["each step"].startswith("1 call of 2 x 20 frames")


def test_weights_are_counted(pipe: Pipeline) -> None:
    modules = (pipe.parts.unet, pipe.parts.vae, pipe.parts.text)
    size = sum(value.numel() * value.element_size() for part in modules for value in part.state_dict().values())
    assert told(pipe)["memory"].startswith(f"weights {size / 2**20:.1f} MiB, the finished clip 0.7 MiB")


@pytest.mark.parametrize(
    "change",
    [
        {"window": 99},
        {"size": (20, 64)},
        {"steps": 1001},
        {"free_noise": True, "frames": 0},
        {"refiner": "MODEL", "refiner_start": 0.9999},
    ],
)
def test_what_the_call_refuses_is_refused(pipe: Pipeline, change: dict[str, object], tmp_path: Path) -> None:
    said = []
    if "refiner" in change:
        change = {**change, "refiner": str(tmp_path)}
        pipe.save_pretrained(tmp_path)
    for act in (explain, generation.make):
        with pytest.raises(InputError) as caught:
            act(pipe, dataclasses.replace(REQUEST, **change))
        said.append(str(caught.value))
    assert said[0] == said[1]
