"""`videogen evaluate` from the command line, on a tiny random model."""

import json
from pathlib import Path

import pytest

from tests import folders
from tests.videogen.cli.calls import one_error_line
from videogen.cli import app
from videogen.cli.evaluate import command_line
from videogen.metrics import report
from videogen.pipeline import Pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folders.animatediff(folder)
    return folder


def run(model: Path, out: Path, *more: str) -> int:
    few = ["--count", "3", "--held-out", "1", "--frames", "4", "--steps", "1", "--guidance", "1", "--quiet"]
    return app.main(["evaluate", "--model", str(model), "--out", str(out), *few, *more])


def test_a_run_reports_and_the_same_command_makes_nothing_anew(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    out, document = tmp_path / "run", tmp_path / "results.md"
    assert run(model, out) == 0
    assert "target 0.97" in capsys.readouterr().out
    values = json.loads((out / "results.json").read_text())[report.KEY]
    assert values["command"] == (
        f"videogen evaluate --model {model} --count 3 --held-out 1 --frames 4 --steps 1 --guidance 1.0"
    )
    # A random model is as bad as its VAE; the world itself is read without a fault, so the fault is theirs.
    everything = values["tables"]["one_object"]["everything"]
    assert [everything[name]["right"] for name in ("model", "true renders", "after the VAE")] == [0, 2, 0]
    assert values["tables"]["two_objects"]["count"]["model"]["of"] == 1
    assert values["tables"]["held_out_one"]["count"]["model"]["of"] == 1
    assert {path.name for path in (out / "pictures").iterdir()} == {report.PLOT, report.SHEET}
    assert len(list((out / "shown").iterdir())) == 3

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a finished run must make no clip")

    monkeypatch.setattr(Pipeline, "__call__", never)
    lines = (out / "clips.jsonl").read_bytes()
    assert run(model, out, "--report", str(document)) == 0
    assert (out / "clips.jsonl").read_bytes() == lines
    again = json.loads(document.with_suffix(".json").read_text())[report.KEY]
    assert again["tables"] == values["tables"]
    assert f"pictures/{report.SHEET}" in document.read_text(encoding="utf-8")


def test_processes_that_share_a_folder_make_each_clip_once_and_the_last_call_reports(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, shared, batch = tmp_path / "alone", tmp_path / "shared", ("--batch", "1")
    assert run(model, alone, *batch) == 0
    for portion in ("2/2", "1/2"):
        capsys.readouterr()
        assert run(model, shared, *batch, "--portion", portion) == 0
        assert capsys.readouterr().out == ""
        assert not (shared / "results.md").exists()
    lines = [sorted((folder / "clips.jsonl").read_text().splitlines()) for folder in (alone, shared)]
    assert lines[0] == lines[1]
    assert run(model, shared, *batch) == 0
    assert (shared / "results.md").read_bytes() == (alone / "results.md").read_bytes()


def test_the_recorded_prompt_and_seed_make_the_measured_clip(model: Path, tmp_path: Path) -> None:
    """Batched or alone, as `videogen generate` makes it: what is reported can be looked at."""
    from videogen import video

    out, alone = tmp_path / "run", tmp_path / "clip.webp"
    assert run(model, out) == 0
    lines = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    entry = next(line for line in lines if line["source"] == "model" and line["number"] == 1)
    options = ["--frames", "4", "--steps", "1", "--guidance", "1", "--seed", str(entry["seed"]), "--quiet"]
    assert app.main(["generate", entry["prompt"], "--model", str(model), *options, "-o", str(alone)]) == 0
    shown = video.read(out / "shown" / "test-0001.webp").to_uint8().int()
    assert (video.read(alone).to_uint8().int() - shown).abs().max() <= 1


def test_another_setting_is_refused_in_the_same_folder(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, tmp_path / "run") == 0
    capsys.readouterr()
    assert run(model, tmp_path / "run", "--steps", "2") == 2
    assert "holds a run with steps 1, this one has 2" in one_error_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--model", "no/such/model"], "does not exist"),
        (["--motion", "nothing.ckpt"], "does not exist"),
        (["--count", "0"], "count"),
        (["--steps", "0"], "steps"),
        (["--steps", "1001"], "1 to 1000"),
        (["--guidance", "nan"], "finite"),
        (["--sampler", "fastest"], "sampler 'fastest' is not known"),
        (["--dtype", "float8"], "dtype 'float8'"),
        (["--report", "results.txt"], "must end in .md"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    model: Path, tmp_path: Path, options: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert run(model, tmp_path / "run", *options) == 2
    assert complaint in one_error_line(capfd.readouterr().err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [(["--guidance", "nan"], "finite"), (["--steps", "1001"], "1 to 1000"), (["--motion", "none"], "FreeNoise")],
)
def test_a_mistake_about_long_clips_leaves_nothing_either(
    model: Path, tmp_path: Path, options: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    few = ["--count", "2", "--frames", "4", "--steps", "1", "--quiet"]
    words = ["evaluate", "long", "--model", str(model), "--out", str(tmp_path / "run"), *few, *options]
    assert app.main(words) == 2
    assert complaint in one_error_line(capfd.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_the_command_names_what_decides_on_the_figures() -> None:
    import inspect

    from videogen.cli.evaluate import evaluate

    options = {name: parameter.default for name, parameter in inspect.signature(evaluate).parameters.items()}
    assert command_line(options) == "videogen evaluate"
    some = options | {"simple": True, "held_out": 0, "batch": 2, "out": Path("x"), "report": Path("docs/a b.md")}
    assert command_line(some) == "videogen evaluate --held-out 0 --simple --report 'docs/a b.md'"
