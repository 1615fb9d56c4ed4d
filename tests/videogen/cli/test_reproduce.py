"""`videogen reproduce` makes a file again from itself, and measures what it compares."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.videogen.cli.calls import Run, contents, error_line
from videogen import pictures, video
from videogen.clip import Clip
from videogen.pipeline import Pipeline


@pytest.fixture
def made(generate: Run, tmp_path: Path) -> Path:
    """A png of one frame."""
    target = tmp_path / "made.png"
    assert generate("--frames", "1", "-o", target).code == 0
    return target


CALLS = {
    "mp4": ["-o", "clip.mp4"],
    "webm": ["-o", "clip.webm"],
    "gif": ["-o", "clip.gif"],
    "webp": ["-o", "clip.webp"],
    "one picture": ["-o", "clip.png", "--frames", "1"],
    "numbered pictures": ["-o", "clip.png", "--frames", "3"],
    "odd rate and size": ["-o", "clip.mp4", "--fps", "23.976", "--size", "40x72"],
    "a name that FFmpeg could take for an address": ["-o", "12:30.mp4"],
    "windows by themselves": ["-o", "clip.webp", "--frames", "20"],
    "windows asked for": ["-o", "clip.webp", "--frames", "8", "--window", "6", "--overlap", "2"],
    "FreeNoise": ["-o", "clip.webp", "--frames", "20", "--free-noise"],
    "FreeInit": ["-o", "clip.webp", "--free-init", "2"],
    "fresh noise, weaker motion": ["-o", "clip.webp", "--steps", "3", "--eta", "0.7", "--motion-scale", "0.5"],
    "another sampler": ["-o", "clip.webp", "--steps", "3", "--sampler", "dpmpp_2m", "--karras", "--rescale", "0.5"],
    "negative prompt, seed": ["-o", "clip.webp", "--negative", "blue", "--seed", "-3", "--guidance", "2"],
    "no motion modules": ["-o", "clip.webp", "--motion", "none"],
    "half precision": ["-o", "clip.webp", "--dtype", "bfloat16"],
}


@pytest.mark.parametrize("name", list(CALLS))
def test_the_same_again(generate: Run, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert generate(*CALLS[name]).code == 0
    before = contents(tmp_path)
    done = run("reproduce", CALLS[name][1], "--quiet")
    assert (done.code, done.out, done.err) == (0, "largest difference: 0\n", "")
    assert contents(tmp_path) == before


def test_a_refiner_is_found_again_and_missed_where_it_has_changed(
    generate: Run, run: Run, animated: Path, tmp_path: Path
) -> None:
    made, refiner = tmp_path / "clip.webp", tmp_path / "refiner"
    shutil.copytree(animated, refiner)
    assert generate("-o", made, "--steps", "3", "--refiner", refiner, "--refiner-start", "0.5").code == 0
    assert run("reproduce", made, "--quiet").out == "largest difference: 0\n"
    (refiner / "unet" / "config.json").write_bytes((refiner / "unet" / "config.json").read_bytes() + b"\n")
    assert "refiner" in run("reproduce", made, "--quiet").err


def test_a_lora_and_motion_modules_of_their_own(
    generate: Run, run: Run, animated: Path, lora: Path, tmp_path: Path
) -> None:
    target = tmp_path / "clip.webp"
    words = ("--motion", animated / "motion_adapter", "--lora", f"{lora}:0.5", "--lora", f"{lora}:-0.25")
    assert generate(*words, "-o", target).code == 0
    assert set(video.read_recipe(target).models) == {"model", "motion", "lora.0", "lora.1"}
    assert run("reproduce", target, "--quiet").out == "largest difference: 0\n"


def test_a_travelling_prompt(run: Run, animated: Path, tmp_path: Path) -> None:
    target = tmp_path / "clip.gif"
    (tmp_path / "map.txt").write_text("0: a red circle\n3: a blue square\n")
    words = ("--model", animated, "--frames", "4", "--steps", "2", "-o", target)
    assert run("generate", "--prompt-map", tmp_path / "map.txt", *words).code == 0
    (tmp_path / "map.txt").unlink()  # the recipe holds the prompts themselves
    assert run("reproduce", target).out.splitlines()[-1] == "largest difference: 0"


def test_the_difference_is_measured(run: Run, made: Path) -> None:
    """One value of one pixel 9 higher or lower, under the same recipe."""
    recipe, frames = video.read_recipe(made), video.read(made).frames.clone()
    value = int(frames[0, 1, 10, 20])
    frames[0, 1, 10, 20] = value - 9 if value > 99 else value + 9
    video.write(made, Clip(frames), recipe, overwrite=True)
    assert run("reproduce", made, "--quiet").out == "largest difference: 9\n"


def test_what_is_made_can_be_kept(run: Run, made: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.png"
    assert run("reproduce", made, "-o", kept).code == 0
    assert video.read(kept).frames.equal(video.read(made).frames)
    assert video.read_recipe(kept) == video.read_recipe(made)
    assert "--overwrite" in error_line(run("reproduce", made, "-o", kept))
    assert run("reproduce", made, "-o", kept, "--overwrite").code == 0


@pytest.mark.parametrize("name", ["clip.webp", "clip.png"])
def test_what_is_compared_is_not_written_over(generate: Run, run: Run, tmp_path: Path, name: str) -> None:
    """A file that took the place of the one it is compared with would always be found equal."""
    assert generate("-o", tmp_path / name).code == 0
    (tmp_path / "again").symlink_to(tmp_path)
    before = contents(tmp_path)
    for output in (tmp_path / name, tmp_path / "again" / name):
        assert "choose another name" in error_line(run("reproduce", tmp_path / name, "-o", output, "--overwrite"))
    assert contents(tmp_path) == before


def test_progress_goes_to_stderr_alone(run: Run, made: Path) -> None:
    done = run("reproduce", made)
    assert done.out == "largest difference: 0\n"
    assert "1/1" in done.err


def test_another_version_is_told(run: Run, made: Path) -> None:
    recipe = video.read_recipe(made)
    older = dataclasses.replace(recipe, versions={**recipe.versions, "torch": "1.0"})
    video.write(made, video.read(made), older, overwrite=True)
    done = run("reproduce", made, "--quiet")
    assert done.out == "largest difference: 0\n"
    assert "torch was 1.0" in done.err


@pytest.mark.parametrize("part", ["model", "lora"])
@pytest.mark.parametrize("fate", ["has changed", "is not there"])
def test_models_that_are_no_longer_the_same(
    generate: Run, run: Run, animated: Path, lora: Path, tmp_path: Path, part: str, fate: str
) -> None:
    model, style, target = tmp_path / "model", tmp_path / "style.safetensors", tmp_path / "clip.png"
    shutil.copytree(animated, model)
    shutil.copy(lora, style)
    assert generate("--model", model, "--lora", style, "--frames", "1", "-o", target).code == 0
    weights = style if part == "lora" else model / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state[min(state)] += 1
    save_file(state, weights)
    if fate == "is not there":
        weights.unlink() if part == "lora" else shutil.rmtree(model)
    line = error_line(run("reproduce", target))
    assert fate in line
    assert f"{part}.0" in line or part == "model"
    assert str(style if part == "lora" else model) in line


@pytest.mark.parametrize("name", ["missing.mp4", "text.mp4", "cut.mp4", "empty.gif", "foreign.png", ""])
def test_a_file_that_is_no_clip_of_ours(generate: Run, run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.gif").touch()
    video.write(tmp_path / "foreign.png", Clip(torch.zeros(1, 3, 8, 8)))
    if name == "cut.mp4":
        assert generate("--frames", "9").code == 0
        (tmp_path / name).write_bytes((tmp_path / "clip.mp4").read_bytes()[:-700])
    assert name in error_line(run("reproduce", tmp_path / name))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"command": "edit"}, "videogen edit"),
        ({"models": {}}, "damaged"),
        ({"fps": "fast"}, "damaged"),
        *[
            (change, "damaged")
            for change in (
                {"threads": -1},
                {"threads": 10**12},
                {"threads": "two"},
                {"steps": "x"},
                {"steps": 1e3},
                {"guidance": None},
                {"seed": []},
                {"seed": "x"},
                {"sampler": []},
                {"device": None},
                {"models": "x"},
                {"models": {"model": 3}},
                {"versions": None},
                {"command": []},
                {"prompt": 3},
                {"prompt": {"0": 3}},
                {"prompt": {"a": "x"}},
                {"negative": 3},
                {"options": {"lora": [["a"]]}},
                {"options": {"rescale": "x"}},
                {"options": {"window": "x"}},
                {"options": {"motion_scale": []}},
                {"options": {"prompt_2": 3}},
            )
        ],
        ({"prompt": {}}, "empty"),
        ({"options": {"mystery": 1}}, "mystery"),
        ({"frames": 3}, "1 frames"),
    ],
)
def test_a_recipe_that_cannot_be_followed(run: Run, made: Path, change: dict[str, object], says: str) -> None:
    recipe = dataclasses.replace(video.read_recipe(made), **change)
    video.write(made, video.read(made), recipe, overwrite=True)
    assert says in error_line(run("reproduce", made))


def test_a_folder_of_pictures_is_the_clip(generate: Run, run: Run, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    assert generate("-o", tmp_path / "frames" / "f.png").code == 0
    assert run("reproduce", tmp_path / "frames", "--quiet").out == "largest difference: 0\n"
    inside = run("reproduce", tmp_path / "frames", "-o", tmp_path / "frames" / "f.png", "--overwrite")
    assert "choose another name" in error_line(inside)


def test_a_file_of_a_kind_that_is_not_written_is_refused_at_once(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("what cannot be written must not be computed")

    monkeypatch.setattr(Pipeline, "__call__", never)
    exif = Image.Exif()
    with Image.open(made) as picture:
        exif[pictures.DESCRIPTION] = pictures.note_of(picture)
        picture.convert("RGB").save(made.with_suffix(".jpg"), exif=exif)
    assert "made.jpg has no extension that can be written" in error_line(run("reproduce", made.with_suffix(".jpg")))


def test_one_of_several_pictures_is_not_the_clip(generate: Run, run: Run, tmp_path: Path) -> None:
    assert generate("-o", tmp_path / "x.png").code == 0
    assert "NAME.png" in error_line(run("reproduce", tmp_path / "x_0001.png"))
