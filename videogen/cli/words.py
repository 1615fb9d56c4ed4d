"""What the words behind options mean: sizes, rates, seconds, weights, and prompts by frame."""

import json
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from videogen.errors import InputError

NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)"  # without exponents, infinities and nan


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`WxH` -> (width, height). Raises InputError for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,99})[xX](\d{1,99})", text)  # Python reads no number of thousands of digits
    if not found:
        raise InputError(f"--size {text!r}: give WIDTHxHEIGHT, such as 512x512")
    return int(found[1]), int(found[2])


def parse_fps(text: str) -> Fraction:
    """A number or fraction above 0. Raises InputError for anything else."""
    # A number in scientific notation may have a billion digits.
    found = re.fullmatch(r"\d{1,9}(\.\d{1,9})?|(\d{1,9})/(\d{1,9})", text)
    if not found or (found[3] is not None and int(found[3]) == 0) or Fraction(text) == 0:
        raise InputError(f"--fps {text!r}: give a number above 0, or a fraction such as 30000/1001")
    return Fraction(text)


def parse_seeds(text: str) -> tuple[int, ...]:
    """`7` or `7,8,9` -> each once. Raises InputError for anything else."""
    words = text.split(",")
    if not all(re.fullmatch(r"\s*-?\d{1,99}\s*", word) for word in words):
        raise InputError(f"--seed {text!r}: give a whole number, or several, such as 1,2,3")
    seeds = tuple(int(word) for word in words)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seed {text!r} names a seed twice, which would make the same clip twice")
    return seeds


def parse_range(text: str | None) -> tuple[Fraction | None, Fraction | None]:
    """`FROM-TO` in seconds, either end open -> (from, to). Raises InputError for anything else."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)?-(\d{1,9}(?:\.\d{1,9})?)?", text)
    ends = tuple(None if end is None else Fraction(end) for end in found.groups()) if found else ()
    if not found or (ends[0] is not None and ends[1] is not None and ends[0] >= ends[1]):
        raise InputError(f"--range {text!r}: give seconds FROM-TO, such as 2.0-4.5, 2.0- or -4.5")
    return ends[0], ends[1]


def parse_weight(text: str) -> tuple[str, float]:
    """`WORD=NUMBER` -> (word, number). Raises InputError for anything else."""
    word, equals, number = text.rpartition("=")
    if not equals or not word.strip() or not re.fullmatch(NUMBER, number):
        raise InputError(f"--weight {text!r}: give WORD=NUMBER, such as blue=2")
    return word, float(number)


def parse_loras(texts: Iterable[str] | None) -> tuple[tuple[str, float], ...]:
    """Each `parse_lora`, none for None."""
    return tuple(parse_lora(text) for text in texts or ())


def parse_lora(text: str) -> tuple[str, float]:
    """`FILE` or `FILE:WEIGHT` -> (file, weight); a colon inside the path (a Windows drive) is no weight.

    Raises InputError without a file, and for a weight that is no number.
    """
    path, colon, weight = text.rpartition(":")
    number = re.fullmatch(NUMBER, weight)
    if not colon or (not number and not Path(path).is_file()):
        path, weight = text, "1"
    elif not number:
        raise InputError(f"--lora {text!r}: {weight!r} is no number; give FILE:0.8, or FILE alone")
    if not path.strip():
        raise InputError(f"--lora {text!r} names no file; give FILE or FILE:WEIGHT")
    return path, float(weight)


def read_prompt_map(path: Path) -> dict[int, str]:
    """Prompts by frame from JSON `{"0": text, "8": text}` or lines `0: text`.

    Raises InputError for anything else, and for a frame that is named twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors begin a file with a byte order mark
    except OSError as problem:
        raise InputError(f"the prompt map {path} cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise InputError(f"the prompt map {path} is not text in UTF-8; save it as such") from problem
    try:
        entries = json.loads(text, object_pairs_hook=tuple)
        pairs = list(entries) if isinstance(entries, tuple) else []
    except (ValueError, RecursionError):
        pairs = [line.partition(":")[::2] for line in text.splitlines() if line.strip()]
    try:
        prompts = {int(frame): words.strip() for frame, words in pairs}
    except (ValueError, AttributeError):  # a key that is no number, a value that is no text
        prompts = {}
    if not prompts or min(prompts) < 0:
        raise InputError(
            f'the prompt map {path} needs JSON such as {{"0": "a red circle", "8": "a blue circle"}}, or lines `0: a red circle`'
        )
    if len(prompts) < len(pairs):
        raise InputError(f"the prompt map {path} names a frame twice; give each frame once")
    return prompts
