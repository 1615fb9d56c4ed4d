"""Portions of a run's work are together everything, each piece once; a line that is not whole on the disk is an error."""

import resource
from pathlib import Path

import pytest

from videogen.errors import InputError
from videogen.metrics.lines import ALL, append, parse_portion, read


def test_portions_are_disjoint_and_together_everything() -> None:
    portions = [parse_portion(f"{k}/3") for k in (1, 2, 3)]
    taken = [portion.taken(range(10)) for portion in portions]
    assert taken == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert all(number in ALL for number in range(10))
    assert parse_portion(None) == parse_portion("1/1") == ALL


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.5/2"])
def test_what_is_no_portion_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--portion"):
        parse_portion(text)


def test_where_the_disk_is_full_writing_fails_and_whole_lines_stay(tmp_path: Path) -> None:
    path, (soft, hard) = tmp_path / "clips.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # bytes of a file: room for one line, not for two
    try:
        with pytest.raises(OSError, match="File too large"):
            append(path, [{"name": "x" * 60}, {"name": "y" * 60}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read(path, dict) == [{"name": "x" * 60}]
