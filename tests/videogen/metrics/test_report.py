"""A report says what was measured, keeps what others wrote, and comes without matplotlib too."""

import io
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from videogen.clip import Clip
from videogen.errors import InputError
from videogen.metrics import document, pictures, report
from videogen.metrics import text_to_video as measuring
from videogen.metrics.journal import Record
from videogen.shapes.world import COLOURS

COMMAND = "videogen evaluate --count 4"
MODEL, RENDERS = "model", "true renders"


def record(number: int, colour: str, seen: str | None, source: str = MODEL) -> Record:
    """A clip of a square that is right but for its colour."""
    item = {"shape": "square", "colour": seen, "size": "small", "motion": "moving left", "unchanged": True}
    measured = {"background": "black", "style": "flat", "camera_still": None, "objects": [item]}
    agrees = dict.fromkeys(("count", "style", "unchanged", "background", "shape", "motion"), True)
    prompt = f"a {colour} square moving left on a black background"
    return Record(source, "test", number, prompt, number, measured, agrees | {"colour": seen == colour})


@pytest.fixture
def records() -> dict[str, list[Record]]:
    seen = ("red", "red", "orange", None)
    return {
        MODEL: [record(n, "red", colour) for n, colour in enumerate(seen)],
        RENDERS: [record(n, "red", "red", RENDERS) for n in range(4)],
    }


@pytest.fixture
def results(records: dict[str, list[Record]]) -> report.Results:
    tables, breakdown = measuring.figures(records), measuring.breakdown(records, MODEL)
    return report.Results(COMMAND, (MODEL, RENDERS), tables, breakdown, ["A model."], {"settings": {"count": 4}})


def test_figures_are_the_counts(results: report.Results) -> None:
    found = report.to_dict(results)
    colour = found["tables"]["one_object"]["colour"]
    assert (colour["target"], colour["met"]) == (0.95, False)
    assert {k: colour[MODEL][k] for k in ("right", "of", "share", "unknown")} == {
        "right": 2, "of": 4, "share": 0.5, "unknown": 1,
    }  # fmt: skip
    assert colour[RENDERS]["right"] == 4
    assert found["tables"]["one_object"]["everything"][MODEL]["right"] == 2
    assert found["tables"]["one_object"]["shape"]["met"] is True
    assert found["tables"]["one_object"]["other motions"][MODEL]["share"] is None
    assert found["breakdown"]["colour"]["red"]["read as"] == {"orange": 1, "unknown": 1}
    assert "two_objects" not in found["tables"]


def test_every_table_has_its_command_beneath(results: report.Results) -> None:
    text = report.markdown(results, [report.PLOT])
    blocks = text.split("\n\n")
    tables = [i for i, block in enumerate(blocks) if block.startswith(("|", "!["))]
    assert len(tables) == 4  # one object, the first target, the breakdown, the plot
    assert all(f"Made by `{COMMAND}`." in blocks[i + 1] for i in tables)
    assert "| colour | 0.95, missed | 0.500 [0.150, 0.850] | 0.250 | 1.000 [0.510, 1.000] |" in text
    assert "| other motions |  | no clips |  | no clips |" in text
    assert "| colour: red | 0.500 [0.150, 0.850] | 1.000 [0.510, 1.000] | orange 1, unknown 1 |" in text


def test_the_section_takes_the_place_of_the_last_one_and_the_rest_stays(
    results: report.Results, tmp_path: Path
) -> None:
    path = tmp_path / "results.md"
    path.write_text("# Figures\n\n## Speed\n\nFast.\n", encoding="utf-8")
    path.with_suffix(".json").write_text('{"speed": 3}')
    report.write(path, results, ())
    once = path.read_text(encoding="utf-8")
    path.write_text(once + "\n## After\n\nLast.\n", encoding="utf-8")
    assert report.write(path, results, ()) == [path, tmp_path / "results.json"]
    text = path.read_text(encoding="utf-8")
    assert text == once + "\n## After\n\nLast.\n"
    assert text.count(report.BEGIN) == text.count(report.END) == 1
    assert text.startswith("# Figures\n\n## Speed\n\nFast.\n\n")
    values = json.loads(path.with_suffix(".json").read_text())
    assert values["speed"] == 3
    assert values[report.KEY] == report.to_dict(results)


def test_a_new_report_begins_with_a_title(results: report.Results, tmp_path: Path) -> None:
    report.write(tmp_path / "results.md", results, ())
    assert (tmp_path / "results.md").read_text(encoding="utf-8").startswith("# Results\n")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("results.txt", None, "must end in .md"),
        ("missing/results.md", None, "does not exist"),
        ("results.md", "{", "no JSON file of results"),
        ("results.md", "3", "no JSON file of results"),
    ],
)
def test_what_cannot_be_written_is_refused_early(
    tmp_path: Path, name: str, content: str | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=complaint):
        document.check(tmp_path / name)


def test_summary_has_the_figures_with_targets(results: report.Results) -> None:
    assert "One object: colour 0.500 [0.150, 0.850], target 0.95, missed" in report.summary(results)
    assert len(report.summary(results)) == 5 + 3


def test_the_plot_is_a_picture_and_without_matplotlib_there_is_none(
    results: report.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    assert pictures.plot(tmp_path / "plot.png", results.sources, results.tables)
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 500
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not pictures.plot(tmp_path / "none.png", results.sources, results.tables)
    assert not (tmp_path / "none.png").exists()


def test_the_sheet_of_noise_is_small_enough(records: dict[str, list[Record]], tmp_path: Path) -> None:
    """Nothing compresses worse than noise: the sheet stays below 450 KiB all the same."""
    clips = [Clip(torch.rand(16, 3, 128, 128), Fraction(8))] * 8
    pictures.sheet(tmp_path / "sheet.png", clips, [pictures.verdict(r) for r in records[MODEL]] * 2)
    assert (tmp_path / "sheet.png").stat().st_size <= 450 * 1024


def test_a_sheet_keeps_the_colours_of_small_objects() -> None:
    """A patch of each colour of the world, a few pixels in a noisy picture of reds, is still read as that colour."""
    named = torch.tensor(list(COLOURS.values()))
    red = torch.tensor(COLOURS["red"])
    picture = (red + 25 * torch.randn(200, 200, 3, generator=torch.Generator().manual_seed(0))).clamp(0, 255)
    for i, colour in enumerate(named):
        picture[10 * i : 10 * i + 5, :5] = colour
    with Image.open(io.BytesIO(pictures.packed(Image.fromarray(picture.byte().numpy())))) as packed:
        shown = torch.from_numpy(np.array(packed.convert("RGB"))).float()
    patches = torch.stack([shown[10 * i : 10 * i + 5, :5].mean((0, 1)) for i in range(len(named))])
    assert torch.cdist(patches, named.float()).argmin(1).tolist() == list(range(len(named)))


def test_verdicts(records: dict[str, list[Record]]) -> None:
    assert [pictures.verdict(r) for r in records[MODEL]] == [
        f"{r.prompt}: {told}"
        for r, told in zip(records[MODEL], ["right", "right", "wrong colour", "wrong colour"], strict=True)
    ]
