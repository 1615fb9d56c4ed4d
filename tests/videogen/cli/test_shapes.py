"""`videogen shapes corpus` from the command line; every mistake is one line and leaves the folder as it was."""

from pathlib import Path

import pytest

from tests.videogen.cli.calls import Run, contents, error_line
from videogen.cli.shapes import parse_colour
from videogen.errors import InputError

SMALL = ("--count", "3", "--size", "128", "--seconds", "0.5", "--quiet")


def test_a_corpus_is_made_once_and_told_as_a_source_of_clips(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    words = ("shapes", "corpus", folder, *SMALL, "--camera", "pans_right", "--untold", "camera", "--colour", "red=blue")
    first, second = run(*words, "--broken", "1"), run(*words, "--broken", "1")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "4 files written now" in first.out
    assert "0 files written now" in second.out
    assert f"source: {{layout: webvid, csv: {folder}/results.csv, videos: {folder}/videos}}" in first.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "129"), "even size"),
        (("--seconds", "nan"), "seconds"),
        (("--camera", "shakes"), "pans left"),
        (("--colour", "red=pinkish"), "NAME=RRGGBB"),
        (("--seed", "1"), "another seed"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_the_folder_as_it_was(
    run: Run, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    folder = tmp_path / "corpus"
    run("shapes", "corpus", folder, *SMALL)
    before = contents(tmp_path)
    assert message in error_line(run("shapes", "corpus", folder, *SMALL, *words))
    assert contents(tmp_path) == before


def test_a_folder_of_something_else_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear to me")
    assert "holds no corpus" in error_line(run("shapes", "corpus", tmp_path, *SMALL))
    (tmp_path / "corpus.json").write_text("{")
    assert "damaged" in error_line(run("shapes", "corpus", tmp_path, *SMALL))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.json", "thesis.txt"]


def test_colours_are_names_or_six_digits() -> None:
    assert parse_colour("red=blue") == ("red", 50, 90, 220)
    assert parse_colour("red=#FF88aa") == ("red", 255, 136, 170)
    with pytest.raises(InputError, match="RRGGBB"):
        parse_colour("red=12345")
