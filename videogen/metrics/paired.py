"""Two methods on the same clips: differences of shares and of means, with 95 % intervals.

Shares: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data", method 10, which
joins the two Wilson intervals. Means: Student's interval. Ratios of means: Fieller 1954, "Some problems in interval estimation".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from videogen.metrics.shares import wilson


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference over `of` clips, with the ends of its interval; nan without clips."""

    value: float
    low: float
    high: float
    of: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain JSON values; what is not finite is null."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {name: value if math.isfinite(value) else None for name, value in ends.items()} | {"of": self.of}


def difference_of_shares(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """The share of `first` minus that of `second`, which are about the same clips in the same order.

    Raises ValueError where they are not equally many.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} clips against {len(second)}; a paired difference needs the same ones")
    n = len(first)
    if not n:
        return Estimate(math.nan, -1.0, 1.0, 0)
    a, b = sum(map(bool, first)), sum(map(bool, second))
    both = sum(1 for x, y in zip(first, second) if x and y)
    p, q, (low_p, high_p), (low_q, high_q) = a / n, b / n, wilson(a, n), wilson(b, n)
    phi = _correlation(both, a - both, b - both, n - a - b + both)
    down = _length(p - low_p, high_q - q, phi)
    up = _length(high_p - p, q - low_q, phi)
    return Estimate(p - q, p - q - down, p - q + up, n)


def mean(values: Sequence[float]) -> Estimate:
    """The mean of values; without spread known (fewer than two values) its interval is everything."""
    n = len(values)
    if not n:
        return Estimate(math.nan, -math.inf, math.inf, 0)
    middle = math.fsum(values) / n
    if n == 1:
        return Estimate(middle, -math.inf, math.inf, 1)
    deviation = math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (n - 1))
    half = student(n - 1) * deviation / math.sqrt(n)
    return Estimate(middle, middle - half, middle + half, n)


def ratio_of_means(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The mean of `first` over that of `second`, which are about the same clips in the same order.

    The interval holds every ratio r for which the mean of first - r second may be 0 by Student's test. It is everything where the mean of
    `second` may be 0 itself. Raises ValueError where they are not equally many.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} clips against {len(second)}; a ratio needs the same ones")
    n = len(first)
    if not n or not math.fsum(second):
        return Estimate(math.nan, -math.inf, math.inf, n)
    a, b = math.fsum(first) / n, math.fsum(second) / n
    if n == 1:
        return Estimate(a / b, -math.inf, math.inf, 1)
    pairs = [(x - a, y - b) for x, y in zip(first, second)]
    scale = student(n - 1) ** 2 / (n * (n - 1))
    aa, ab, bb = (scale * math.fsum(terms) for terms in zip(*((x * x, x * y, y * y) for x, y in pairs)))
    # (a - r b)^2 <= aa - 2 r ab + r^2 bb, a parabola in r that is open upwards where b is surely not 0
    square, half, rest = b * b - bb, a * b - ab, a * a - aa
    if square <= 0:
        return Estimate(a / b, -math.inf, math.inf, n)
    spread = math.sqrt(max(half * half - square * rest, 0.0))
    return Estimate(a / b, (half - spread) / square, (half + spread) / square, n)


def student(freedom: int) -> float:
    """The deviate of Student's distribution that leaves 2.5 % on either side, for so many degrees of freedom (1 or more).

    By bisection on the tail, which is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """The probability that |T| <= t."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for k in range(1, (freedom - 1) // 2 + 1):
            total += term
            term *= cosine**2 * 2 * k / (2 * k + 1)
        return 2 / math.pi * (angle + math.sin(angle) * total)
    term, total = 1.0, 0.0
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= cosine**2 * (2 * k - 1) / (2 * k)
    return math.sin(angle) * total


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    """Of the two answers, corrected for continuity where it is positive; 0 where one of them never varies."""
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not margins:
        return 0.0
    cross = float(both * neither - first * second)
    if cross > 0:
        cross = max(cross - (both + first + second + neither) / 2, 0)
    return cross / math.sqrt(margins)


def _length(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a**2 - 2 * phi * a * b + b**2, 0.0))
