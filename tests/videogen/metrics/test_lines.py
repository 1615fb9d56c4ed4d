"""Portions of a run's work: together everything, each piece once."""

import pytest

from videogen.errors import InputError
from videogen.metrics.lines import ALL, parse_portion


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
