"""The command line's manners: one line for every mistake, the right exit code, a quick start."""

import errno
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from typing import Annotated

import pytest
import typer

from tests.videogen.cli.calls import one_error_line
from videogen import __version__
from videogen.__main__ import main
from videogen.cli import app
from videogen.errors import InputError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "videogen", *arguments], capture_output=True, text=True, timeout=300)


def raising(problem: BaseException) -> Callable[[], None]:
    def fail(count: Annotated[int, typer.Option(min=1, max=9)] = 1) -> None:
        """Fail in a known way."""
        raise problem

    return fail


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Adds a command `fail` that raises what it is given."""

    def install(problem: BaseException) -> None:
        monkeypatch.setitem(app.COMMANDS, "fail", lambda: raising(problem))

    return install


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"videogen {__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(arguments) == 0
    assert set(app.COMMANDS) <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", list(app.COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([name, "--help"]) == 0
    assert f"Usage: videogen {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nonsense"], "nonsense"),
        (["--frobnicate"], "--frobnicate"),
        (["doctor", "--frobnicate"], "--frobnicate"),
        (["doctor", "surplus"], "surplus"),
        (["fail", "--count", "0"], "--count"),
        (["fail", "--count", "10"], "--count"),
        (["fail", "--count", "many"], "--count"),
        (["fail", "--count"], "--count"),
    ],
)
def test_what_the_library_finds_is_one_line_too(
    arguments: list[str],
    named: str,
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(AssertionError("must not run"))
    assert app.main(arguments) == 2
    output = capsys.readouterr()
    assert named in one_error_line(output.err)
    assert output.out == ""


@pytest.mark.parametrize(
    ("problem", "code", "named"),
    [
        (InputError("the clip has\n  no frames"), 2, "the clip has no frames"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "clip.mp4"), 2, "clip.mp4"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left"),
        (MemoryError(), 2, "memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError"),
    ],
)
def test_every_failure_is_one_line_and_a_traceback_only_with_debug(
    problem: BaseException,
    code: int,
    named: str,
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(problem)
    assert app.main(["fail"]) == code
    assert named in one_error_line(capsys.readouterr().err)
    for arguments in (["--debug", "fail"], ["fail", "--debug"]):
        assert app.main(arguments) == code
        trace = capsys.readouterr().err
        assert trace.startswith("Traceback")
        one_error_line(trace.splitlines()[-1])


def test_debug_after_two_dashes_is_a_word_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "--", "--debug"]) == 2
    assert "--debug" in one_error_line(capsys.readouterr().err)


def test_the_process_exits_with_the_code_and_writes_nothing_to_stdout() -> None:
    done = run("nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    one_error_line(done.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")
def test_control_c_gives_130_and_one_line() -> None:
    code = (
        "import time, sys; from videogen.cli import app\n"
        "def wait() -> None:\n    print('ready', flush=True); time.sleep(60)\n"
        "app.COMMANDS['wait'] = lambda: wait\nsys.exit(app.main(['wait']))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.2)
    child.send_signal(2)
    _, complaint = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "interrupted" in one_error_line(complaint)


def test_control_c_while_the_command_line_is_imported_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(types.ModuleType):
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "videogen.cli.app", Slow("videogen.cli.app"))
    assert main() == 130
    assert "interrupted" in one_error_line(capsys.readouterr().err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "videogen", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "No space left" in one_error_line(done.stderr)


def test_letters_that_a_terminal_lacks_are_told_as_escapes() -> None:
    """Of a Windows code page, say, in a prompt or in the name of a file that has just been written."""
    program = "import sys, typer; from videogen.cli import app; app.COMMANDS['fail'] = lambda: lambda: typer.echo('ein \u7acb'); "
    done = subprocess.run(
        [sys.executable, "-c", program + "sys.exit(app.main(['fail']))"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "ein \\u7acb\n", "")


def test_version_waits_for_no_library_of_the_commands() -> None:
    code = "import sys; from videogen.cli.app import main; main(['--version']); print(*{n.split('.')[0] for n in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert "videogen" in loaded
    assert not loaded & {"torch", "numpy", "av", "PIL", "diffusers", "transformers"}


def test_doctor_reports_every_part_and_says_what_is_needed_works() -> None:
    done = run("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line[8:].split("  ")[0].strip(): line.split()[0] for line in done.stdout.splitlines()}
    for name in (
        "torch",
        "diffusers",
        "transformers",
        "av",
        "device cpu",
        "write libx264",
        "write gif",
        "configurations",
    ):
        assert lines[name] == "ok"
    assert {"torchvision", "xformers", "decord", "bfloat16 on cpu", "attention math on cpu", "miniature"} <= set(lines)
