"""What trainings brought is read from true renders as it was put in; the command holds it against what was there before."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import folders
from tests.videogen.cli.calls import one_error_line
from videogen.adapters.lora_writing import write_lora
from videogen.cli import app
from videogen.corpus import files
from videogen.corpus.films import Corpus, films
from videogen.errors import InputError
from videogen.metrics.trained import one_object
from videogen.metrics.trained_parts import SPEED, moved, panned
from videogen.metrics.trials import Trial
from videogen.models.weights import files as weights
from videogen.pipeline import Pipeline
from videogen.shapes import render, world
from videogen.training.trainable import MOTION_ATTENTION, add_changes, changes

OTHER = Corpus(paint=(("red", 240, 110, 170), ("green", 170, 230, 60), ("blue", 130, 150, 250)))
OUTLINED = Corpus(styles=("outlined",), untold=("style",))
PAN = Corpus(camera="pans right", textured=True, untold=("camera",))


def trials(count: int, key: str = "transfer", plain: bool | None = None, camera: str = "none") -> list[Trial]:
    return [one_object(number, 0, key, plain=plain, camera=camera) for number in range(count)]


def rendered(asked: Sequence[Trial]) -> Tensor:
    return render(world.concatenate([trial.scene for trial in asked])).frames


def repainted(asked: Sequence[Trial], corpus: Corpus) -> Tensor:
    """The scenes of trials as the corpus paints them."""
    scenes = world.concatenate([trial.scene for trial in asked])
    rgb = scenes.rgb.clone()
    for name, *wanted in corpus.paint:
        rgb[scenes.colour == list(world.COLOURS).index(name)] = torch.tensor(wanted) / 255
    return render(scenes.change(rgb=rgb)).frames


def test_another_palette_is_seen_where_it_is_and_nowhere_else() -> None:
    asked = [t for t in trials(24) if any(f" {name} " in t.prompt for name, *_ in OTHER.paint)][:6]
    assert len(asked) == 6
    for right, _ in moved(asked, repainted(asked, OTHER), OTHER):
        assert right["look"]
        assert right["motion"]
    for right, _ in moved(asked, rendered(asked), OTHER):
        assert not right["look"]


def test_another_style_is_seen_where_it_is_and_nowhere_else() -> None:
    asked = trials(4)
    scenes = world.concatenate([trial.scene for trial in asked])
    drawn = scenes.change(style=torch.full_like(scenes.style, world.STYLES.index("outlined")))
    assert all(right["look"] for right, _ in moved(asked, render(drawn).frames, OUTLINED))
    assert not any(right["look"] for right, _ in moved(asked, rendered(asked), OUTLINED))


def test_a_pan_that_no_prompt_names_is_read_with_its_speed_and_the_objects_as_prompted() -> None:
    asked = trials(4, "motion_lora", plain=False, camera="pans right")
    assert not any("camera" in trial.prompt for trial in asked)
    for trial, (right, numbers) in zip(asked, panned(asked, rendered(asked), PAN.camera), strict=True):
        assert right["pan"]
        assert right["objects right"]
        assert numbers[SPEED] == pytest.approx(float(trial.scene.pan[0, 0]), abs=1)
    still = trials(2, "motion_lora", plain=False)
    assert [right["pan"] for right, _ in panned(still, rendered(still), PAN.camera)] == [False, False]


def made(folder: Path, corpus: Corpus) -> Path:
    """A corpus of one short clip."""
    files.make(folder, corpus, 1)
    return folder


def test_a_corpus_in_a_folder_says_what_it_is_like(tmp_path: Path) -> None:
    corpus = Corpus(seconds=0.25, paint=OTHER.paint, styles=("outlined",), untold=("style",))
    assert files.corpus_of(made(tmp_path / "corpus", corpus)) == corpus
    with pytest.raises(InputError, match=r"corpus\.json"):
        files.corpus_of(tmp_path)


def test_captions_of_a_corpus_of_a_pan_do_not_name_it() -> None:
    assert not any("camera" in film.caption for film in films(PAN, 8, 0))


def motion_lora(model: Path, file: Path) -> Path:
    """A change of nothing yet."""
    unet = Pipeline.from_pretrained(model).parts.unet
    add_changes(unet, MOTION_ATTENTION, 2, None)
    weights.write(file, write_lora(changes(unet), "authors"), {})
    return file


def test_the_command_writes_a_section_for_each_part_and_goes_on_where_it_was(tmp_path: Path) -> None:
    model = tmp_path / "model"
    folders.animatediff(model)
    look, pan = (
        made(tmp_path / name, Corpus(seconds=0.25, paint=corpus.paint, camera=corpus.camera))
        for name, corpus in (("look", OTHER), ("pan", PAN))
    )
    words = [
        "evaluate",
        "training",
        "from_files",
        "transfer",
        "motion_lora",
        "--model",
        str(model),
        "--count",
        "2",
        "--frames",
        "2",
        "--steps",
        "1",
        "--quiet",
    ]
    words += ["--trained", str(model / "motion_adapter"), "--base", f"{look}={model}"]
    words += ["--motion-lora", f"{pan}={motion_lora(model, tmp_path / 'pan.safetensors')}"]
    words += ["--out", str(tmp_path / "run"), "--report", str(tmp_path / "results.md")]
    assert app.main(words) == 0
    lines = {path.parent.name: path.read_text() for path in (tmp_path / "run").glob("*/clips.jsonl")}
    assert {name: len(text.splitlines()) for name, text in lines.items()} == {
        "from_files": 4,
        "transfer": 6,
        "motion_lora": 6,
    }
    values, text = json.loads((tmp_path / "results.json").read_text()), (tmp_path / "results.md").read_text()
    for name in lines:
        assert f"Made by `{values[f'training_{name}']['command']}`." in text
        assert (tmp_path / "pictures" / f"training_{name}.png").is_file()
    same = values["training_from_files"]["ways"]["trained"]  # the same module: no difference
    assert {one["difference"]["value"] for one in same.values()} == {0}
    assert app.main(words) == 0
    assert (tmp_path / "results.md").read_text() == text
    assert {path.parent.name: path.read_text() for path in (tmp_path / "run").glob("*/clips.jsonl")} == lines
    for portion, count in (("2/2", 0), ("1/2", 4)):  # two clips are one block, which one process makes
        assert app.main([*words, "--out", str(tmp_path / "shared"), "--portion", portion]) == 0
        path = tmp_path / "shared" / "from_files" / "clips.jsonl"
        assert (len(path.read_text().splitlines()) if path.exists() else 0) == count


def test_a_run_judged_by_another_corpus_is_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same weights and a corpus of the same name, in which colours mean something else."""
    model = tmp_path / "model"
    folders.animatediff(model)
    words = ["evaluate", "training", "transfer", "--model", str(model), "--out", str(tmp_path / "run"), "--quiet"]
    words += ["--count", "2", "--frames", "2", "--steps", "1"]
    for place, corpus in (("one", OTHER), ("two", Corpus())):
        look = made(tmp_path / place / "look", Corpus(seconds=0.25, paint=corpus.paint))
        capsys.readouterr()
        code = app.main([*words, "--base", f"{look}={model}"])
        assert code == (0 if place == "one" else 2)
    assert "holds a run with corpora" in one_error_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["from_files"], "--trained"),
        (["transfer", "--base", "one"], "CORPUS=WEIGHTS"),
        (["transfer", "--base", "{here}=nowhere"], "nowhere does not exist"),
        (["motion_lora", "--motion-lora", "{here}={here}"], "corpus.json"),
    ],
)
def test_what_is_missing_is_told_in_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["evaluate", "training", *(word.format(here=tmp_path) for word in words)]) == 2
    assert said in one_error_line(capsys.readouterr().err)
