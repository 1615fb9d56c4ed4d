"""`videogen generate` is the pipeline, written into files that play."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests import folders
from tests.videogen.cli.calls import PROMPT, Run, error_line
from videogen import generation, recipe, video
from videogen.models.unet import UNet
from videogen.pipeline import Pipeline
from videogen.sampling import SAMPLERS


@pytest.fixture(scope="module")
def pipe(animated: Path) -> Pipeline:
    return Pipeline.from_pretrained(animated)


def frames_of(pipe: Pipeline, **options: Any) -> np.ndarray:
    """What the pipeline makes of the standing options, `f h w 3` uint8."""
    standing = {"prompt": PROMPT, "num_frames": 2, "num_inference_steps": 1, "seed": 0}
    (clip,) = pipe(**{**standing, **options}, progress=False).frames
    return np.stack([np.asarray(picture) for picture in clip])


def png(generate: Run, tmp_path: Path, name: str, *words: str | Path) -> np.ndarray:
    """The frames of a call, without loss."""
    done = generate(*words, "-o", tmp_path / f"{name}.png")
    assert done.code == 0, done.err
    return video.read(tmp_path / f"{name}.png").to_numpy()


def test_frames_are_the_pipelines(generate: Run, pipe: Pipeline, tmp_path: Path) -> None:
    words = ("--steps", "3", "--guidance", "4", "--negative", "blue", "--seed", "7", "--frames", "3", "--size", "72x40")
    made = png(generate, tmp_path, "clip", *words)
    options = {"negative_prompt": "blue", "seed": 7, "num_frames": 3, "width": 72, "height": 40}
    assert np.array_equal(made, frames_of(pipe, num_inference_steps=3, guidance_scale=4.0, **options))


def test_several_seeds_make_a_clip_each_and_each_knows_its_own(generate: Run, pipe: Pipeline, tmp_path: Path) -> None:
    target = tmp_path / "clip.png"
    done = generate("--seed", "4,7", "--steps", "1", "--frames", "1", "-o", target)
    files = [tmp_path / f"clip_seed{seed}.png" for seed in (4, 7)]
    assert (done.code, done.out.split()) == (0, [str(file) for file in files])
    assert not target.exists()
    for seed, file in zip((4, 7), files, strict=True):
        assert np.array_equal(video.read(file).to_numpy(), frames_of(pipe, num_frames=1, seed=seed))
        assert video.read_recipe(file).seed == seed


def test_several_seeds_are_explained_each_with_its_file(generate: Run, tmp_path: Path) -> None:
    told = generate("--seed", "4,7", "--explain").out.splitlines()[-1]
    assert told.split(maxsplit=1) == ["seeds", ", ".join(f"{s} in {tmp_path / f'clip_seed{s}.mp4'}" for s in (4, 7))]


@pytest.mark.parametrize("output", ["", ".", "/"])
def test_several_seeds_of_no_name_are_refused(generate: Run, output: str) -> None:
    assert "use one of .mp4" in error_line(generate("--seed", "4,7", "-o", output))


def test_several_seeds_read_the_refiner_once(
    generate: Run, animated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    load = Pipeline.from_pretrained
    monkeypatch.setattr(
        Pipeline, "from_pretrained", lambda source, **options: (read.append(source), load(source, **options))[1]
    )
    words = ("--steps", "3", "--refiner", animated, "--refiner-start", "0.5")
    assert generate("--seed", "4,7", *words).code == 0
    assert len(read) == 2  # the model and its refiner


def test_no_clip_is_made_where_one_of_several_seeds_is_refused(generate: Run, tmp_path: Path) -> None:
    assert "seed" in error_line(generate("--seed", f"4,{2**63}", "-o", tmp_path / "clip.png"))
    (tmp_path / "clip_seed7.mp4").touch()
    assert "clip_seed7.mp4 exists" in error_line(generate("--seed", "4,7", "-o", tmp_path / "clip.mp4"))
    assert [file.name for file in tmp_path.iterdir()] == ["clip_seed7.mp4"]


def test_a_refiner_that_is_the_model_itself_changes_nothing_and_is_in_the_recipe(
    generate: Run, animated: Path, tmp_path: Path
) -> None:
    plain = png(generate, tmp_path, "plain", "--steps", "3")
    refined = png(generate, tmp_path, "refined", "--steps", "3", "--refiner", animated, "--refiner-start", "0.5")
    assert np.array_equal(plain, refined)
    first = sorted(tmp_path.glob("refined*.png"))[0]
    made = video.read_recipe(first)
    assert made.models["refiner"]["source"] == str(animated)
    assert made.options["refiner_start"] == 0.5
    explained = generate(
        "--refiner", animated, "--steps", "3", "--refiner-start", "0.5", "-o", tmp_path / "x.png", "--explain"
    ).out
    assert "\nrefiner    " in explained


def test_a_compiled_network_is_in_the_recipe_and_compiled_again(
    generate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[UNet] = []
    monkeypatch.setattr("videogen.pipeline.compile_blocks", compiled.append)
    assert generate("--compile", "-o", tmp_path / "clip.png").code == 0
    made = video.read_recipe(sorted(tmp_path.glob("clip*.png"))[0])
    assert made.options["compile"] is True
    generation.load(generation.request_of(made))
    assert len(compiled) == 2


@pytest.mark.slow
def test_a_compiled_network_makes_the_same_frames(generate: Run, tmp_path: Path) -> None:
    plain, compiled = (
        png(generate, tmp_path, name, "--steps", "2", *words) for name, *words in (["a"], ["b", "--compile"])
    )
    assert np.abs(plain.astype(int) - compiled).max() <= 1


def test_one_frame_is_a_picture(generate: Run, pipe: Pipeline, tmp_path: Path) -> None:
    done = generate("--frames", "1", "-o", tmp_path / "x.png")
    assert (done.code, done.out) == (0, f"{tmp_path / 'x.png'}\n")
    with Image.open(tmp_path / "x.png") as picture:
        assert np.array_equal(np.asarray(picture), frames_of(pipe, num_frames=1)[0])


def played(path: Path) -> tuple[int, tuple[int, int], Fraction]:
    """Number, size (width, height) and rate of the frames as any player finds them."""
    if path.suffix in (".gif", ".webp"):
        with Image.open(path) as picture:
            milliseconds = []
            for frame in ImageSequence.Iterator(picture):
                frame.load()
                milliseconds.append(round(frame.info["duration"]))
            return len(milliseconds), picture.size, Fraction(1000 * len(milliseconds), sum(milliseconds))
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert isinstance(stream, av.VideoStream)
        rate = stream.average_rate
        assert rate is not None
        sizes = [(frame.width, frame.height) for frame in container.decode(stream)]
        assert len(set(sizes)) == 1
        return len(sizes), sizes[0], rate


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".gif", ".webp"])
def test_files_play(generate: Run, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"clip{suffix}"
    done = generate("--frames", "5", "--size", "72x40", "--fps", "25/2", "-o", target)
    assert (done.code, done.out, done.err) == (0, f"{target}\n", "")
    assert played(target) == (5, (72, 40), Fraction(25, 2))
    assert list(tmp_path.iterdir()) == [target]


def test_png_of_several_frames_are_numbered(generate: Run, tmp_path: Path) -> None:
    done = generate("--frames", "3", "-o", tmp_path / "x.png")
    names = [str(tmp_path / f"x_000{i}.png") for i in (1, 2, 3)]
    assert (done.code, done.out.splitlines()) == (0, names)
    assert sorted(map(str, tmp_path.iterdir())) == names


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".webp", ".png"])
def test_the_recipe_is_in_the_file(generate: Run, animated: Path, lora: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"clip{suffix}"
    words = ("--sampler", "euler", "--karras", "--guidance", "3.5", "--lora", f"{lora}:0.5", "--fps", "30000/1001")
    assert generate("--size", "72x64", "--negative", "grün", "--seed", "5", *words, "-o", target).code == 0
    made = video.read_recipe(target)
    assert (made.command, made.prompt, made.negative, made.seed) == ("generate", PROMPT, "grün", 5)
    assert (made.frames, made.width, made.height, made.fps) == (2, 72, 64, "30000/1001")
    assert (made.sampler, made.steps, made.guidance, made.device) == ("euler", 1, 3.5, "cpu float32")
    assert made.options == {"karras": True, "lora": [[str(lora), 0.5]]}
    assert made.models == {
        "model": {"source": str(animated), "sha256": recipe.hash_path(animated)},
        "lora.0": {"source": str(lora), "sha256": recipe.hash_path(lora)},
    }
    assert made.versions == recipe.versions()
    assert made.threads >= 1


def test_an_empty_prompt_is_allowed(run: Run, animated: Path, pipe: Pipeline, tmp_path: Path) -> None:
    words = ("--model", animated, "--frames", "2", "--steps", "1", "--quiet", "-o", tmp_path / "x.png")
    assert run("generate", "", *words).code == 0
    assert np.array_equal(video.read(tmp_path / "x.png").to_numpy(), frames_of(pipe, prompt=""))


def test_prompts_by_frame_from_json_or_lines(run: Run, animated: Path, pipe: Pipeline, tmp_path: Path) -> None:
    prompts = {0: "a red circle", 3: "a blue square: small"}
    lines = "\ufeff0: a red circle\n\n 3 : a blue square: small\n"
    expected = frames_of(pipe, prompt=prompts, num_frames=4)
    for name, text in (("map.json", json.dumps(prompts)), ("map.txt", lines)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        target = tmp_path / f"{name}.png"
        words = ("--model", animated, "--frames", "4", "--steps", "1", "--quiet", "-o", target)
        assert run("generate", "--prompt-map", tmp_path / name, *words).code == 0
        assert np.array_equal(video.read(target).to_numpy(), expected)
        assert video.read_recipe(target).prompt == {str(frame): text for frame, text in prompts.items()}


def test_a_lora_acts_at_its_weight(generate: Run, lora: Path, tmp_path: Path) -> None:
    plain, off, on, twice = (
        png(generate, tmp_path, f"x{i}", *(("--lora", entry) if entry else ()))
        for i, entry in enumerate(("", f"{lora}:0", f"{lora}", f"{lora}:2"))
    )
    assert np.array_equal(plain, off)
    assert not np.array_equal(plain, on)
    assert not np.array_equal(on, twice)


def test_layers_of_the_text_encoder_are_skipped(generate: Run, pipe: Pipeline, tmp_path: Path) -> None:
    made = png(generate, tmp_path, "x", "--clip-skip", "1")
    assert np.array_equal(made, frames_of(pipe, clip_skip=1))
    assert not np.array_equal(made, frames_of(pipe))
    assert video.read_recipe(tmp_path / "x.png").options == {"clip_skip": 1}


def test_second_prompts_are_for_sdxl(run: Run, generate: Run, tmp_path: Path) -> None:
    words = ("--prompt-2", "a cat", "--negative-2", "grey")
    assert "one text encoder" in error_line(generate(*words))
    folders.stable_diffusion_xl(tmp_path / "sdxl")
    standing = ("--model", tmp_path / "sdxl", "--frames", "1", "--steps", "1", "--quiet", "-o", tmp_path / "x.png")
    done = run("generate", PROMPT, *standing, *words)
    assert done.code == 0, done.err
    options = {"prompt_2": "a cat", "negative_prompt_2": "grey", "num_frames": 1}
    expected = frames_of(Pipeline.from_pretrained(tmp_path / "sdxl"), **options)
    assert np.array_equal(video.read(tmp_path / "x.png").to_numpy(), expected)
    assert video.read_recipe(tmp_path / "x.png").options == {"prompt_2": "a cat", "negative_2": "grey"}


def test_explain_says_what_would_run_and_runs_nothing(
    generate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UNet, "forward", lambda *_: pytest.fail("the network was asked"))
    done = generate("--explain", "--frames", "20", "--sampler", "euler")
    assert (done.code, done.err) == (0, "")
    told = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert told["sampler"].startswith("euler")
    assert told["windows"].startswith("2 of 16 frames")
    assert not list(tmp_path.iterdir())
    for words in (("--size", "20x64"), ("--window", "99"), ("--steps", "1001"), ("-o", tmp_path / "x.avi")):
        error_line(generate("--explain", *words))


def test_output_is_replaced_when_told(generate: Run, tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"old")
    assert generate("--overwrite").code == 0
    assert len(video.read(target)) == 2


def test_progress_goes_to_stderr_alone(generate: Run, run: Run, animated: Path, lora: Path, tmp_path: Path) -> None:
    """Without --quiet: what was loaded, a bar, and that a long clip runs in windows."""
    words = ("--model", animated, "--lora", lora, "--frames", "20", "--steps", "2", "-o", tmp_path / "a.webp")
    done = run("generate", PROMPT, *words)
    assert (done.code, done.out) == (0, f"{tmp_path / 'a.webp'}\n")
    assert "AnimateDiffPipeline" in done.err
    assert "rank 2, changes unet 1 layers" in done.err
    assert "20 frames in windows of 16" in done.err
    assert "2/2" in done.err
    assert generate().err == ""


def test_help_names_every_sampler(run: Run) -> None:
    said = run("generate", "--help").out.replace(",", " ").replace(".", " ").split()
    assert set(SAMPLERS) <= set(said)
