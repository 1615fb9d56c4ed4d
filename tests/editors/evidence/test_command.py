"""`videogen evaluate editing` from the command line, on a tiny random model."""

import inspect
import json
from pathlib import Path

import pytest

import editors
from editors.evidence.command import SILENT, editing, told
from editors.evidence.methods import LOCAL, SHARES
from tests import folders
from tests.videogen.cli.calls import one_error_line
from videogen.cli import app
from videogen.metrics import document


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folders.animatediff(folder)
    return folder


def run(model: Path, out: Path, *more: str) -> int:
    few = [
        "--method",
        "sdedit",
        "--edit",
        "colour",
        "--colour",
        "2",
        "--frames",
        "4",
        "--steps",
        "2",
        "--guidance",
        "1",
    ]
    return app.main(["evaluate", "editing", "--model", str(model), "--out", str(out), *few, "--quiet", *more])


def test_a_run_reports_goes_on_and_makes_nothing_anew(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, report = tmp_path / "run", tmp_path / "results.md"
    assert run(model, out, "--minutes", "0") == 2
    assert "no clip was made yet" in capsys.readouterr().err
    assert run(model, out) == 0
    assert "SDEdit: colour: done" in capsys.readouterr().out
    values = json.loads((out / "results.json").read_text())["editing"]
    assert values["command"].startswith(
        f"videogen evaluate editing --method sdedit --edit colour --colour 2 --model {model}"
    )
    assert values["methods"]["sdedit"]["colour"]["clips"] == 2
    assert values["settings"]["steps"] == 2
    assert sorted(path.name for path in (out / "sources").iterdir()) == ["0000.mp4", "0001.mp4"]

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a finished run must make no clip")

    monkeypatch.setattr(editors, "sdedit", never, raising=False)
    report.write_text("# Results\n\nOther.\n", encoding="utf-8")
    report.with_suffix(".json").write_text('{"text_to_video": 1}')
    assert run(model, out, "--report", str(report)) == 0
    again = json.loads(report.with_suffix(".json").read_text())
    assert again["text_to_video"] == 1
    assert again["editing"]["methods"] == values["methods"]
    assert "Other." in report.read_text(encoding="utf-8")
    assert (tmp_path / "pictures" / "editing_sdedit.png").exists()


def test_processes_share_the_trials_of_a_folder(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for portion, numbers in (("2/2", {1}), ("1/2", {0, 1})):
        assert run(model, out, "--portion", portion) == 0
        lines = [json.loads(line) for line in (out / "edits.jsonl").read_text().splitlines()]
        assert {line["number"] for line in lines} == numbers
        assert not (out / "results.md").exists()
    assert len({(line["method"], line["number"]) for line in lines}) == len(lines) == 8
    assert run(model, out, "--minutes", "0") == 0
    assert (out / "results.md").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--portion", "3/2"], "--portion 3/2"),
        (["--method", "magic"], "--method magic: choose from ddim_inversion"),
        (["--edit", "size"], "--edit size: choose from colour"),
        (["--dtype", "float16"], "cannot be done in float16"),
        (["--report", "results.txt"], "must end in .md"),
        (["--steps", "0"], "steps"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    model: Path, tmp_path: Path, options: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert run(model, tmp_path / "run", *options) == 2
    assert complaint in one_error_line(capfd.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_the_command_names_what_decides_on_the_figures() -> None:
    options = {name: parameter.default for name, parameter in inspect.signature(editing).parameters.items()}

    def spelt(**more: object) -> str:
        return document.command_line(["videogen", "evaluate", "editing"], editing, options | more, SILENT)

    assert spelt() == "videogen evaluate editing"
    assert spelt(method=["sdedit", "fatezero"], colour=4, out=Path("x"), minutes=3.0) == (
        "videogen evaluate editing --method sdedit --method fatezero --colour 4"
    )


def test_the_report_says_which_settings_are_measured() -> None:
    """Those that are not the command line's own, and what counts as not worse."""
    settings = {
        "model": "m", "frames": 16, "steps": 20, "strength": 0.64, "reconstruction_steps": 50, "guidance": 4.0, "dtype": "float32",
        "device": "cpu", "tuning_steps": 200, "seed": 0,
    }  # fmt: skip
    text = " ".join(told("shapes", settings))
    for edit, (cross, selfs) in SHARES.items():
        assert f"{edit} {cross:g} and {selfs:g}" in text
    for words in (
        "noun, before and after",
        ", ".join(LOCAL),
        "`t0` and `t1`",
        "a flow in the direction",
        "of -0.10 or more",
    ):
        assert words in text
