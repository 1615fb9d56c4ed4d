"""What the words behind options mean."""

from fractions import Fraction

import pytest

from videogen.cli.words import parse_fps, parse_lora, parse_range, parse_seeds, parse_size, parse_weight
from videogen.errors import InputError


def test_sizes_rates_and_loras() -> None:
    assert parse_size("640x360") == (640, 360)
    assert parse_size(None) is None
    assert [parse_fps(text) for text in ("8", "23.976", "30000/1001")] == [8, Fraction("23.976"), Fraction(30000, 1001)]
    assert parse_lora("a.safetensors") == ("a.safetensors", 1.0)
    assert parse_lora("a.safetensors:-.5") == ("a.safetensors", -0.5)
    assert parse_lora(r"C:\loras\a.safetensors") == (r"C:\loras\a.safetensors", 1.0)
    assert parse_lora(r"C:\loras\a.safetensors:0.7") == (r"C:\loras\a.safetensors", 0.7)


def test_seeds() -> None:
    assert (parse_seeds("7"), parse_seeds("3, -1,0")) == ((7,), (3, -1, 0))
    for text in ("", "1,", "x", "1.5", "1 2"):
        with pytest.raises(InputError, match="1,2,3"):
            parse_seeds(text)
    with pytest.raises(InputError, match="twice"):
        parse_seeds("1,01")


def test_ranges_and_weights() -> None:
    assert parse_range("2.0-4.5") == (2, Fraction("4.5"))
    assert (parse_range("2-"), parse_range("-3"), parse_range(None)) == ((2, None), (None, 3), (None, None))
    assert parse_weight("a blue=1.5") == ("a blue", 1.5)
    for text in ("2", "a-b", "3-2", "1e9-2"):
        with pytest.raises(InputError, match="FROM-TO"):
            parse_range(text)
    for text in ("blue", "=2", "blue=x", "blue=nan"):
        with pytest.raises(InputError, match="WORD=NUMBER"):
            parse_weight(text)
