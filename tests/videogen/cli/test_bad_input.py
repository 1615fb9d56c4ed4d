"""Values, prompts and outputs that cannot be: one line says what to do, with exit code 2, and nothing is written."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.videogen.cli.calls import Run, error_line
from videogen.errors import InputError
from videogen.pipeline import Pipeline

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--frames", "0"], "--frames"),
        (["--frames", "-3"], "--frames"),
        (["--frames", "many"], "--frames"),
        (["--frames", "2.5"], "--frames"),
        (["--frames", "999999999"], "do not fit into memory"),
        (["--steps", "0"], "--steps"),
        (["--steps", "-1"], "--steps"),
        (["--steps", "1001"], "1 to 1000"),
        (["--size", "20x64"], "width 20 is not a multiple of 8; the nearest is 24"),
        (["--size", "64x99"], "height 99 is not a multiple of 8; the nearest is 96"),
        (["--size", "0x0"], "multiple of 8"),
        (["--size", "1000000x1000000"], "do not fit into memory"),
        (["--size", "99999999999999999999x8"], "do not fit into memory"),
        *[
            (["--size", text], "WIDTHxHEIGHT")
            for text in ("64", "64x", "axb", "-8x8", "64x64x64", "", "8" * 5000 + "x8")
        ],
        *[(["--fps", text], "--fps") for text in ("0", "-1", "fast", "1/0", "nan", "1e9999999999", "")],
        (["--fps", "2000"], "up to 1000"),
        (["--fps", "1/700"], "give 1/600 or more"),
        (["--fps", "0.000001"], "give 1/600 or more"),
        (["--guidance", "nan"], "finite"),
        (["--guidance", "inf"], "finite"),
        (["--guidance", "strong"], "--guidance"),
        (["--guidance", "1e38"], "NaN"),
        (["--rescale", "2"], "--rescale"),
        (["--eta", "-1"], "--eta"),
        (["--eta", "2"], "--eta"),
        (["--eta", "0.5", "--sampler", "euler"], "ddim"),
        (["--motion-scale", "nan"], "finite"),
        (["--seed", "1.5"], "--seed"),
        (["--seed", "99999999999999999999"], "64 bits"),
        (["--sampler", "best"], "choose one of ddim"),
        (["--sampler", ""], "choose one of ddim"),
        (["--karras"], "Karras"),
        (["--dtype", "int8"], "choose one of float32"),
        (["--device", "toaster"], "toaster"),
        (["--device", "meta"], "meta"),
        (["--prediction", "v_prediction"], "brings its"),
        (["--tokenizer", "somewhere"], "brings its"),
        (["--window", "0"], "--window"),
        (["--window", "99"], "16 positions"),
        (["--window", "4", "--overlap", "4"], "smaller than the window"),
        (["--overlap", "4"], "--window"),
        (["--refiner-start", "0.5"], "give --refiner too"),
        (["--free-noise", "--motion", "none"], "motion"),
        (["--motion-scale", "0.5", "--motion", "none"], "none is loaded"),
        (["--free-init", "0"], "--free-init"),
        (["--free-init", "2", "--refiner", "somewhere"], "--refiner"),
        (["--lora", ""], "names no file"),
        (["--lora", ":0.5"], "names no file"),
        (["--lora", "nowhere.safetensors:0.5"], "nowhere.safetensors does not exist"),
        (["--frobnicate"], "--frobnicate"),
        (["--frame", "3"], "--frames"),
        (["surplus"], "surplus"),
        (["--size"], "--size"),
        (["--negative", "\ud800"], "UTF-8"),
    ],
)
def test_a_value_that_cannot_be(refused: Refused, words: list[str], says: str) -> None:
    assert says in refused(*words)


def test_a_lora_weight_that_is_no_number(refused: Refused, lora: Path) -> None:
    assert "'strong' is no number" in refused("--lora", f"{lora}:strong")


def test_a_prompt_of_five_thousand_words(run: Run, animated: Path, tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    done = run("generate", "word " * 5000, "--model", animated, "--frames", "2", "--quiet", "-o", target)
    assert "shorten it" in error_line(done)
    assert not list(tmp_path.iterdir())


def test_a_prompt_is_needed_once(run: Run, refused: Refused, animated: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"0": "a red circle"}')
    assert "give a prompt" in error_line(run("generate", "--model", animated, "-o", tmp_path / "clip.mp4"))
    assert "one of the two" in refused("--prompt-map", tmp_path / "map.json")


@pytest.mark.parametrize(
    "content",
    ["", "[1, 2]", "{}", '{"a": "x"}', '{"-1": "x"}', '{"0.5": "x"}', '{"0": 3}', '{"0": {"a": 1}}', '{"0": "x"',
     "no colon", "0: a\nno colon", "0: a\n00: b", "[" * 99999, '{"0": "a", "0": "b"}', b"\xff\xfe\x00", None],
)  # fmt: skip
def test_a_prompt_map_that_is_none(run: Run, animated: Path, tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "map.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    target = tmp_path / "clip.mp4"
    done = run("generate", "--prompt-map", path, "--model", animated, "-o", target)
    assert "map.txt" in error_line(done)
    assert not target.exists()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("clip.avi", ".avi has no extension|use one of .mp4"),
        ("clip", "use one of .mp4"),
        ("", "use one of .mp4"),
        ("nowhere/clip.mp4", "create it first"),
        ("there.mp4", "--overwrite"),
        ("there.png", "--overwrite"),
        ("folder.mp4", "is a folder"),
        ("x" * 300 + ".mp4", "too long"),
    ],
)
def test_an_output_that_cannot_be(refused: Refused, tmp_path: Path, target: str, says: str) -> None:
    for name in ("there.mp4", "there_0001.png"):
        (tmp_path / name).write_bytes(b"precious")
    (tmp_path / "folder.mp4").mkdir()
    assert re.search(says, refused("-o", tmp_path / target if target else ""))


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="needs a folder that not even an administrator may write to"
)
def test_an_output_folder_that_cannot_be_written(refused: Refused) -> None:
    assert "cannot write into /proc" in refused("-o", "/proc/clip.mp4")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="an administrator may write everywhere")
def test_an_output_folder_without_permission(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot write into" in refused("-o", tmp_path / "locked" / "clip.mp4")


PYTHON = {
    "no frames": {"num_frames": 0},
    "no steps": {"num_inference_steps": 0},
    "odd width": {"width": 20},
    "no height": {"height": 0},
    "endless guidance": {"guidance_scale": float("inf")},
    "unknown sampler": {"sampler": "best"},
    "too much eta": {"eta": 2.0},
    "latents of another size": {"latents": torch.zeros(1, 3, 4, 8, 8)},
    "two negative prompts": {"negative_prompt": ["a", "b"]},
    "two seeds of three": {"prompt": ["a", "b", "c"], "seed": [1, 2]},
}


@pytest.fixture(scope="module")
def pipe(animated: Path) -> Pipeline:
    return Pipeline.from_pretrained(animated)


@pytest.mark.parametrize("name", list(PYTHON))
def test_python_says_it_in_one_line_too(pipe: Pipeline, name: str) -> None:
    options = {"prompt": "a", "num_frames": 2, "num_inference_steps": 1, "seed": 0, "progress": False, **PYTHON[name]}
    with pytest.raises(InputError) as caught:
        pipe(**options)
    assert len(str(caught.value).splitlines()) == 1
