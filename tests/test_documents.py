"""What the documents point at is there, and the table of systems is whole."""

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from videogen.cli.app import COMMANDS, announced, app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_and_picture_is_there(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    local = [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    missing = [target for target in local if not (document.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_test_that_is_named_is_there(document: Path) -> None:
    named = re.findall(r"(?<![\w/])(?:tests|benchmarks|configs|scripts)/[\w/.]+", document.read_text(encoding="utf-8"))
    missing = [path for path in named if not (ROOT / path.rstrip(".")).exists()]
    assert not missing


def test_the_table_of_systems_has_44_rows_with_a_status_each() -> None:
    text = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| \d+ \|", line)
    ]
    assert [int(row[0]) for row in rows] == list(range(1, 45))
    for row in rows:
        status, evidence = row[3], row[4]
        assert re.match(r"(works|begun|not started)\b", status), row
        assert evidence or not status.startswith("works"), f"{row[1]} works, and nothing shows it"


@pytest.mark.parametrize(("document", "behind"), [("systems.md", "# The systems"), ("architecture.md", "## Laws")])
def test_what_shows_a_row_can_be_run_and_selects_something(document: str, behind: str) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    text = (ROOT / "docs" / document).read_text(encoding="utf-8").partition(behind)[2]
    proofs = [
        proof
        for line in text.splitlines()
        if line.startswith("|") and "`" in line
        for proof in re.findall(r"`([^`]+)`", line.split("|")[-2])
    ]
    assert len(proofs) > 10
    for proof in proofs:
        program, *words = shlex.split(proof)
        if program == "make":
            assert set(words) <= set(targets), proof
            continue
        if program == "videogen":
            assert " ".join(words) in (*COMMANDS, *announced()), proof
            continue
        assert program == "pytest", proof
        places = [ROOT / word for word in words if word.split("/")[0] == "tests"]
        files = [file for place in places for file in ([place] if place.is_file() else place.rglob("test_*.py"))]
        assert files, proof
        texts = [f"{file.name} {file.read_text(encoding='utf-8')}" for file in files]
        for word in words[words.index("-k") + 1].split(" or ") if "-k" in words else ():
            # of a file's name, of a test's, or the name of a case
            assert any(re.search(rf'^test_\w*{word}|def test_\w*{word}|"{word}"', text) for text in texts), (
                proof,
                word,
            )


COMMAND = re.compile(r"(?:^    |`)videogen (\w+)((?:[^\n`\\]|\\\n)*)", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_option_of_a_command_that_is_shown_is_there(document: Path) -> None:
    unknown = []
    for name, words in COMMAND.findall(document.read_text(encoding="utf-8")):
        if name in ("generate", "edit", "inspect", "reproduce"):
            unknown += [
                (name, word) for word in re.findall(r"(?<=\s)--[a-z][\w-]*", words) if word not in options_of(name)
            ]
    assert not unknown


@functools.cache
def options_of(name: str) -> set[str]:
    """Every option of a command, in all its spellings."""
    command = typer.main.get_command(app).get_command(None, name)  # type: ignore[attr-defined]
    return {word for option in command.params for word in (*option.opts, *option.secondary_opts)} | {"--help"}


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def launchers() -> dict[str, Path]:
    """The command that each launcher in `scripts/` runs, and its file."""
    found = {}
    for path in sorted((ROOT / "scripts").glob("*.py")):
        if match := re.search(r'main\(\["(\w+)", \*sys.argv\[1:\]\]\)', path.read_text(encoding="utf-8")):
            found[match[1]] = path
    return found


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_launcher(name: str) -> None:
    done = subprocess.run([sys.executable, str(launchers()[name]), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Usage: videogen {name}" in done.stdout


def test_no_script_is_named_as_a_module_of_python() -> None:
    """Python puts a script's folder before everything else, so `inspect.py` there would break torch's imports."""
    names = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert not names & set(sys.stdlib_module_names)


def python_blocks() -> list[tuple[str, str]]:
    """The Python blocks of all documents, with where they stand."""
    found = []
    for document in DOCUMENTS:
        blocks = re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
        found += [(f"{document.relative_to(ROOT).as_posix()}-{i}", block) for i, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize("block", [block for _, block in python_blocks()], ids=[name for name, _ in python_blocks()])
def test_python_blocks_run_as_they_stand(block: str, tmp_path: Path) -> None:
    """One document's program after the other, each in a folder of its own."""
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
