"""Randomness by address: every draw is a function of a seed and of where it is used, so the position in the data is one number."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

BLOCK = 1 << 16  # draws made at once
SMALL = 1 << 12  # a permutation of as many is made as a whole
KEPT = 64  # permutations, for sources that take turns


def number(*address: object) -> int:
    """64 bits that depend on the address alone."""
    text = "/".join(map(str, address))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniform(*address: object) -> float:
    """A number in [0, 1) that depends on the address alone."""
    return (number(*address) >> 11) * 2.0**-53


def permuted(index: int, count: int, *address: object) -> int:
    """Where `index` goes in a random permutation of 0, ..., count - 1.

    All orders of up to `SMALL` are equally likely. A larger permutation is not made: it is a balanced Feistel network on the next power of four,
    walked until it lands inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"), which would favour some orders of a few.
    """
    if count <= SMALL:
        return int(_shuffled(count, number(*address))[index])
    half = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    keys = [number(*address, turn) for turn in range(4)]
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        index = left << half | right
        if index < count:
            return index


def turns(weights: Sequence[float], start: int, *address: object) -> Iterator[tuple[int, int]]:
    """From position `start` on, which of several is drawn at each position, and how often it was drawn before.

    Draws are independent, with probabilities in proportion to `weights`. Starting late costs some nanoseconds a position that is passed over.
    """
    counts = before(weights, start, *address)
    for block in itertools.count(start // BLOCK):
        for which in _drawn(weights, block, address)[max(start - block * BLOCK, 0) :].tolist():
            yield which, counts[which]
            counts[which] += 1


def before(weights: Sequence[float], start: int, *address: object) -> list[int]:
    """How often each of several is drawn at positions before `start`, see `turns`."""
    if len(weights) == 1:
        return [start]
    counts = np.zeros(len(weights), np.int64)
    for block in range(start // BLOCK + 1):
        drawn = _drawn(weights, block, address)[: max(start - block * BLOCK, 0)]
        counts += np.bincount(drawn, minlength=len(weights))
    return counts.tolist()


@functools.lru_cache(KEPT)
def _shuffled(count: int, seed: int) -> np.ndarray:
    """The order of so many draws, no two of which are equal: kept, as its places are asked for one by one."""
    return np.argsort(_bits(seed, 0, count))


def _bits(seed: int, start: int, stop: int) -> np.ndarray:
    """The 64 bits at positions [start, stop) of a seed's sequence."""
    places = np.arange(start, stop, dtype=np.uint64)
    # SplitMix64 (Steele, Lea and Flood 2014): the state of position i is known without those before it
    with np.errstate(over="ignore"):
        mixed = np.uint64(seed) + (places + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(31)


def _drawn(weights: Sequence[float], block: int, address: tuple[object, ...]) -> np.ndarray:
    """Which is drawn at the positions of a block."""
    share = _bits(number(*address), block * BLOCK, (block + 1) * BLOCK) >> np.uint64(11)
    bounds = np.cumsum(np.asarray(weights, np.float64))
    found = np.searchsorted(bounds, share.astype(np.float64) * 2.0**-53 * bounds[-1], side="right")
    return np.minimum(found, len(weights) - 1)


def _mixed(value: int) -> int:
    """SplitMix64's mixing of 64 bits."""
    full = (1 << 64) - 1
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & full
    value = (value ^ value >> 27) * 0x94D049BB133111EB & full
    return value ^ value >> 31
