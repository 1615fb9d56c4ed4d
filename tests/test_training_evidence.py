"""scripts/training_evidence.py goes on where it was: nothing that is done is done again, nothing half done is taken for done."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import training_evidence as script
from scripts.training_evidence import TRAININGS, TRY, commands, measurement, result

DOCUMENT = Path(__file__).parents[1] / "docs" / "training_evidence.md"
Words = list[str]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Words]:
    """The commands that are run, in an empty folder; a training leaves its result."""
    monkeypatch.chdir(tmp_path)
    found: list[Words] = []

    def run(words: Words) -> int:
        found.append(words)
        for training in TRAININGS.values():
            if words[:2] == ["train", f"training/{training.config}"]:
                result(training, None).mkdir(parents=True)
        return 0

    monkeypatch.setattr(script, "videogen", run)
    return found


def test_everything_is_made_once_and_then_only_measured(asked: list[Words]) -> None:
    assert script.made(None) == 0
    assert [words[0] for words in asked] == [*["shapes", "data", "train"] * 4, "evaluate"]
    asked.clear()
    assert script.made(None) == 0
    assert asked == [measurement(None)]


@pytest.mark.parametrize("name", TRAININGS)
def test_an_export_that_was_killed_is_made_again_from_the_last_checkpoint(name: str, asked: list[Words]) -> None:
    script.made(None)
    asked.clear()
    result(TRAININGS[name], None).rmdir()
    (Path("out") / TRAININGS[name].export).mkdir(parents=True, exist_ok=True)  # is made first, and was left empty
    (Path("runs") / TRAININGS[name].config / "checkpoint-5").mkdir(parents=True)
    assert script.made(None) == 0
    assert asked[2:] == [["train", f"training/{TRAININGS[name].config}", "--resume", "latest"], measurement(None)]


@pytest.mark.parametrize("code", [0, 2])
def test_what_stops_or_fails_ends_it_all(code: int, asked: list[Words], monkeypatch: pytest.MonkeyPatch) -> None:
    run: Callable[[Words], int] = script.videogen
    monkeypatch.setattr(script, "videogen", lambda words: code if words[0] == "train" else run(words))
    assert script.made(None) == (code or script.STOPPED)
    assert [words[0] for words in asked] == ["shapes", "data"]


def test_the_document_has_the_commands_that_are_run(asked: list[Words]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8").replace("\\\n", "")
    told = [shlex.split(line)[1:] for line in re.findall(r"^    (videogen .*)$", text, re.MULTILINE)]
    for training in TRAININGS.values():
        corpus, *rest = commands(training, None)
        assert corpus in told
        assert [[word.replace(training.config, "shapes_pan") for word in words] for words in rest] == [
            words for words in told if words[0] in ("data", "train")
        ]
    whole = measurement(None)
    for words in (words for words in told if words[0] == "evaluate"):
        assert set(words) <= set(whole)
    assert {word for words in told for word in words} >= set(whole)


def test_a_try_touches_nothing_of_the_real_runs(asked: list[Words]) -> None:
    words = [word for training in TRAININGS.values() for command in commands(training, TRY) for word in command]
    assert not [
        word for word in [*words, *measurement(TRY)] if re.search(r"\bruns/|docs/|(?<!try/)\bout/(?!try/)", word)
    ]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_configurations_head_names_the_same_commands(name: str, asked: list[Words]) -> None:
    path = Path(__file__).parents[1] / "configs" / "training" / f"{TRAININGS[name].config}.yaml"
    head = path.read_text(encoding="utf-8").replace("\\\n#", "")
    told = [shlex.split(line) for line in re.findall(r"^#   videogen (.*)$", head, re.M)]
    assert [words for words in commands(TRAININGS[name], None) if words not in told] == []
