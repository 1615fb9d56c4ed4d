"""What is written appears whole or not at all, and may be read by whom the umask lets."""

import contextlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from videogen.errors import InputError
from videogen.files import replacing


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_the_mode_that_open_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "opened").open("w").close()
        with replacing(tmp_path / "one.safetensors") as beside:
            save_file({"a": torch.zeros(1)}, beside)
        with replacing(tmp_path / "folder") as beside:
            (beside / "inner").mkdir(parents=True)
            save_file({"a": torch.zeros(1)}, beside / "inner" / "two.safetensors")
        with replacing(tmp_path / "script") as beside:
            beside.write_text("true")
            beside.chmod(0o700)
    finally:
        os.umask(before)
    wanted = mode(tmp_path / "opened")
    assert wanted == 0o666 & ~umask
    assert mode(tmp_path / "one.safetensors") == mode(tmp_path / "folder" / "inner" / "two.safetensors") == wanted
    assert mode(tmp_path / "script") == wanted | 0o700


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")

    def interrupted() -> None:
        with replacing(file) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "old"
    with pytest.raises(InputError, match="create it first"), replacing(tmp_path / "away" / "a.txt"):
        pass


@pytest.mark.parametrize("broken", [None, "made", "there"])
def test_a_folder_takes_anothers_place_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str | None
) -> None:
    """`broken`: the renaming, of what was made or of what was there, at which the disk gives up."""
    target, rename = tmp_path / "there", os.replace
    target.mkdir()
    (target / "old").touch()

    def failing(source: Path, place: Path) -> None:
        if broken and (Path(source) / "new").exists() == (broken == "made"):
            raise OSError("no more")
        rename(source, place)

    monkeypatch.setattr(os, "replace", failing)
    with contextlib.suppress(OSError), replacing(target) as beside:
        beside.mkdir()
        (beside / "new").touch()
    assert [file.name for file in target.iterdir()] == ["old" if broken else "new"]
    assert list(tmp_path.iterdir()) == [target]
