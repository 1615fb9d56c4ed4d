"""`videogen train`: what is wrong with a configuration is said in one line, before anything is computed."""

from pathlib import Path

import pytest

from tests.videogen.cli.calls import Run, contents, error_line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["miniature/vea"], "miniature/vae"),
        (["miniature/vae", "settings.batchsize=3"], "settings.batch_size"),
        (["miniature/vae", "optimisation.muon=1"], "optimization"),
        (["miniature/vae", "budget.minutes=soon"], "budget.minutes"),
        (["miniature/vae", "recipe=vae"], "known are"),
        (["miniature/vae", "seed"], "a.b=value"),
        (["miniature/vae", "--resume", "latest", "out=nowhere"], "nowhere"),
    ],
)
def test_a_wrong_configuration_is_one_line(
    run: Run, words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in error_line(run("train", *words))
    assert not contents(tmp_path)
