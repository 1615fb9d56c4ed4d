"""Warnings on the command line are lines for people."""

import warnings

import pytest

from videogen.cli import app


def test_each_warning_is_one_line_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def warn() -> None:
        """Warn from two places."""
        for _ in range(2):
            warnings.warn("frame times\n  vary", stacklevel=1)
            warnings.warn("frame times vary", stacklevel=2)
        warnings.warn("something else", FutureWarning, stacklevel=1)
        warnings.warn("for those who write code", DeprecationWarning, stacklevel=1)

    monkeypatch.setitem(app.COMMANDS, "warn", lambda: warn)
    outside = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert app.main(["warn"]) == 0
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "warning: frame times vary\nwarning: something else\n")
    assert warnings.showwarning is outside


def test_warnings_come_before_the_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        """Warn, then fail."""
        warnings.warn("odd", stacklevel=1)
        raise OSError("broken")

    monkeypatch.setitem(app.COMMANDS, "fail", lambda: fail)
    assert app.main(["fail"]) == 2
    assert capfd.readouterr().err == "warning: odd\nerror: broken\n"
