"""Shares of clips, with Wilson's score interval (Wilson 1927, "Probable inference, the law of succession, and statistical inference")."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z = 1.959963984540054  # the normal deviate that leaves 2.5 % on either side


def wilson(hits: int, of: int, z: float = Z) -> tuple[float, float]:
    """Low and high end of the interval for a probability after `hits` in `of` trials; (0, 1) without trials.

    They are the two p for which |hits / of - p| = z sqrt(p (1 - p) / of). Raises ValueError for impossible counts.
    """
    if not 0 <= hits <= of:
        raise ValueError(f"{hits} hits in {of} trials")
    if of == 0:
        return 0.0, 1.0
    p, n = hits / of, of
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # The ends are exact where all or nothing hit; rounding would move them by an ulp.
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == of else centre + half)


@dataclass(frozen=True)
class Share:
    """How many clips are right.

    hits     right ones
    of       all
    unknown  those that cannot be read, which count as wrong; None where reading cannot fail
    """

    hits: int
    of: int
    unknown: int | None = None

    @property
    def value(self) -> float:
        """hits / of; nan without clips."""
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return wilson(self.hits, self.of)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]" if self.of else "no clips"

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain JSON values; the share is null without clips."""
        low, high = self.interval
        ends = {"share": self.value if self.of else None, "low": low, "high": high}
        return {"right": self.hits, "of": self.of, **ends, "unknown": self.unknown}
