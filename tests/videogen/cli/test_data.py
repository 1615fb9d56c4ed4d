"""`videogen data check|cache` from a configuration to a report and a cache; every mistake is one line."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from tests import folders
from tests.videogen.cli.calls import Run, contents, error_line, one_error_line
from tests.videogen.data.films import film, picture
from videogen.errors import InputError
from videogen.training import built


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films, one of them broken, and a still."""
    folder = tmp_path_factory.mktemp("corpus") / "films"
    for i in range(3):
        film(folder / f"{i}.mp4", 30)
        (folder / f"{i}.txt").write_text("a film 🎬" if i else "a film that goes right")
    (folder / "broken.mp4").write_bytes(b"")
    (folder / "broken.txt").write_text("nothing")
    picture(folder / "still.png")
    (folder / "still.txt").write_text("a still")
    return folder


def config(folder: Path, films: Path, **values: Any) -> Path:
    """A training's configuration with its data under `settings`."""
    section = {
        "sources": [{"layout": "pairs", "folder": str(films)}],
        "frames": 4,
        "stride": 2,
        "size": "32x32",
        "store": str(folder / "store"),
    }
    path = folder / "config.yaml"
    run = {"recipe": "lora", "seed": 3, "out": str(folder / "run"), "budget": {"steps": 1}}
    path.write_text(yaml.safe_dump(run | {"settings": {"model": "none", "data": section | values}}))
    return path


def test_check_writes_a_report_of_everything(run: Run, films: Path, tmp_path: Path) -> None:
    done = run("data", "check", config(tmp_path, films, broken=0.5), "-o", tmp_path / "report", "--quiet")
    assert (done.code, done.err) == (0, "")
    (found,) = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (found["rows"], found["usable"], found["windows"], found["sided"]) == (5, 3, 3 * 24, 1)
    assert found["shapes"] == {"4 x 32 x 32": 3}
    assert found["spread"]["seconds"]["median"] == 2.5
    assert (found["spread"]["width"]["least"], found["spread"]["height"]["least"]) == (64, 48)
    with (tmp_path / "report" / "rejected.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["key"]: row["reason"] for row in csv.DictReader(file)}
    assert rows == {"broken.mp4": "the file is empty", "still.png": "it has 1 frame, 4 are needed for a window of 4"}
    with Image.open(tmp_path / "report" / "samples.png") as sheet:
        assert sheet.height > 3 * 128
    assert "3 of 5 rows can be used" in done.out


def test_check_ends_with_an_error_above_the_limit_and_its_report_is_there(
    run: Run, films: Path, tmp_path: Path
) -> None:
    done = run("data", "check", config(tmp_path, films), "-o", tmp_path / "report", "--quiet", "--quick")
    assert done.code == 2
    assert done.err.startswith("error: 2 of 5 rows of pairs ")
    assert (tmp_path / "report" / "rejected.csv").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("settings.data.framez=3", "did you mean"),
        ("settings.data.sources=[{layout: pairs, folder: nowhere}]", "nowhere does not exist"),
        ("settings.data.sources=[{layout: webvid, csv: nowhere.csv, videos: .}]", "nowhere.csv does not exist"),
        ("settings={}", "no section data"),
    ],
)
def test_a_wrong_configuration_is_one_line(run: Run, films: Path, tmp_path: Path, override: str, message: str) -> None:
    path = config(tmp_path, films)
    before = contents(tmp_path)
    assert message in error_line(run("data", "check", path, override, "-o", tmp_path / "report", "--quiet"))
    assert contents(tmp_path) == before


def test_cache_fills_and_then_finds_nothing_to_do(run: Run, films: Path, tmp_path: Path) -> None:
    folders.stable_diffusion(tmp_path / "model")
    path = config(tmp_path, films, cache={"folder": str(tmp_path / "cache")}, broken=0.5)
    words = ("data", "cache", path, f"settings.model={tmp_path / 'model'}", "--quiet")
    first, second = run(*words), run(*words)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    # two of the films are the same; the empty caption is one too
    assert "5 clips, 4 encoded now; 5 captions, 5 encoded now" in first.out
    assert "2 clips are broken" in first.out
    assert "5 clips, 0 encoded now; 5 captions, 0 encoded now" in second.out


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures."""
    folder = tmp_path / "pictures"
    for i in range(2):
        picture(folder / f"{i}.png", 5 * i)
        (folder / f"{i}.txt").write_text(f"picture {i}")
    return folder


def with_stills(path: Path, pictures: Path, **values: Any) -> dict[str, Any]:
    """The values of a configuration that reads pictures beside the clips."""
    whole = yaml.safe_load(path.read_text())
    own = {"sources": [{"layout": "pairs", "folder": str(pictures)}], "frames": 1}
    whole |= {"recipe": "joint"}
    whole["settings"] |= {"modules": {"heads": 4}}
    whole["settings"]["stills"] = whole["settings"]["data"] | own | values
    return whole


def test_check_reports_the_stills_apart(run: Run, films: Path, pictures: Path, tmp_path: Path) -> None:
    path = config(tmp_path, films, broken=0.5)
    path.write_text(yaml.safe_dump(with_stills(path, pictures)))
    words = ("data", "check", path, "-o", tmp_path / "report", "--quiet")
    done = run(*words)
    assert (done.code, done.err) == (0, "")
    assert [line for line in done.out.splitlines() if line in ("data:", "stills:")] == ["data:", "stills:"]
    reports = tmp_path / "report" / "report.json", tmp_path / "report" / "stills" / "report.json"
    (clips,), (stills,) = (json.loads(file.read_text()) for file in reports)
    assert (clips["rows"], clips["usable"]) == (5, 3)
    assert (stills["rows"], stills["usable"], stills["shapes"]) == (2, 2, {"1 x 32 x 32": 2})
    (pictures / "1.png").write_bytes(b"no picture")
    done = run(*words, "settings.stills.broken=0.1")
    assert done.code == 2
    assert done.err.startswith("error: 1 of 2 rows of pairs ")
    assert "5 rows can be used" in done.out


@pytest.mark.parametrize(("key", "value"), [("stills", "nowhere"), ("out", "file")])
def test_check_opens_no_clip_where_a_later_part_cannot_be(
    run: Run, films: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    monkeypatch.setattr("videogen.data.check.examine", None)
    path, out = config(tmp_path, films), tmp_path / "report"
    path.write_text(yaml.safe_dump(with_stills(path, tmp_path / value if key == "stills" else pictures)))
    if key == "out":
        out.write_text("a file")
    done = run("data", "check", path, "-o", out, "--quiet")
    assert done.code == 2
    assert (value if key == "stills" else "cannot be written into") in one_error_line(done.err)
    assert not out.is_dir()


@pytest.mark.parametrize("cache", ["of_stills", "cache"])
def test_cache_fills_that_of_the_stills_too_and_prunes_neither(
    run: Run, films: Path, pictures: Path, tmp_path: Path, cache: str
) -> None:
    folders.stable_diffusion(tmp_path / "model")
    path = config(tmp_path, films, cache={"folder": str(tmp_path / "cache")}, broken=0.5)
    values = with_stills(path, pictures, cache={"folder": str(tmp_path / cache)})
    values["settings"]["model"] = str(tmp_path / "model")
    path.write_text(yaml.safe_dump(values))
    lines = [run("data", "cache", path, "--quiet", *prune).out for prune in ((), ("--prune",), ())]
    assert f"{tmp_path / cache}: 2 clips, 2 encoded now" in lines[0]
    for later in lines[1:]:
        assert "5 clips, 0 encoded now" in later
        assert f"{tmp_path / cache}: 2 clips, 0 encoded now" in later
        assert "does not need" not in later
    del values["settings"]["data"]["cache"]
    path.write_text(yaml.safe_dump(values))
    assert run("data", "cache", path, "--quiet").out.startswith(f"{tmp_path / cache}: 2 clips, 0 encoded now")


def lora(path: Path, seed: int) -> str:
    """A LoRA file that changes the tiny model's text encoder."""
    path.parent.mkdir()
    layer, draw = "lora_te_text_model_encoder_layers_0_self_attn_q_proj", torch.Generator().manual_seed(seed)
    tensors = {"lora_down": torch.randn(2, 32, generator=draw), "lora_up": torch.randn(32, 2, generator=draw)}
    save_file({f"{layer}.{name}.weight": tensor for name, tensor in tensors.items()}, path)
    return str(path)


def test_a_cache_is_of_the_model_that_is_trained(run: Run, films: Path, tmp_path: Path) -> None:
    """Its LoRA files change what captions become, and may have one name; a model may be a file."""
    folders.stable_diffusion(tmp_path / "model")
    path = config(tmp_path, films, cache={"folder": str(tmp_path / "cache")}, broken=0.5)
    values = yaml.safe_load(path.read_text())
    files = [lora(tmp_path / name / "pytorch_lora_weights.safetensors", seed) for seed, name in enumerate("ab")]
    values["settings"] |= {"model": str(tmp_path / "model"), "loras": dict.fromkeys(files, 1.0)}
    path.write_text(yaml.safe_dump(values))
    assert "5 captions, 5 encoded now" in run("data", "cache", path, "--quiet").out
    recipe = built(values)[1]
    recipe.prepare(torch.device("cpu"))  # which looks everything up
    values["settings"]["loras"] = {files[0]: 1.0}
    with pytest.raises(InputError, match="lacks 5 of 5"):
        built(values)[1].prepare(torch.device("cpu"))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    alone = yaml.safe_dump({"model": str(tmp_path / "model.safetensors"), "data": values["settings"]["data"]})
    (tmp_path / "alone.yaml").write_text(alone)
    assert "is a single file" in error_line(run("data", "cache", tmp_path / "alone.yaml", "--quiet"))
    single = ("settings.model=" + str(tmp_path / "model.safetensors"), "settings.loras={}")
    assert "model.safetensors holds no weights" in error_line(run("data", "cache", path, *single, "--quiet"))


def test_cache_needs_a_folder_and_a_model(run: Run, films: Path, tmp_path: Path) -> None:
    path = config(tmp_path, films)
    assert "names no cache" in error_line(run("data", "cache", path, "--quiet"))
    path = config(tmp_path, films, cache={"folder": str(tmp_path / "cache")})
    assert "none does not exist" in error_line(run("data", "cache", path, "--quiet"))
