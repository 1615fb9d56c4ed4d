"""Broken clips are counted, told by name, and end a run when they become too many."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from videogen.data.rows import Rejected
from videogen.errors import InputError

LEAST = 100  # clips, before which the share of broken ones says little
TOLD = 20  # names kept


class Tally:
    """How many clips one process has read in this run, how many of them were broken, and the first of those."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.seen, self.broken = 0, 0
        self.first: dict[str, str] = {}

    def add(self, seen: int, broken: Sequence[Rejected]) -> None:
        """Count. Each broken clip is told once by a warning. Raises InputError above the limit, taken of at least 100 clips."""
        self.seen += seen
        self.broken += len(broken)
        for one in broken:
            if len(self.first) < TOLD and one.key not in self.first:
                self.first[one.key] = one.reason
                warnings.warn(f"{one.key} is broken and left out: {one.reason}", stacklevel=3)
        if self.broken > self.limit * max(self.seen, LEAST):
            told = "; ".join(f"{key}: {why}" for key, why in list(self.first.items())[:3])
            raise InputError(
                f"{self.broken} of {self.seen} clips were broken, more than the share broken: {self.limit} ({told}); "
                "videogen data check lists all of them"
            )
