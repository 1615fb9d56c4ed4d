"""Regions of single frames joined to objects that last."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

REACH = 120.0  # pixels that an object may go in a whole clip, twice the world's most; but
LEAST_REACH = 16.0  # between two frames
MOST = 4  # objects that are told apart


def tracks(frames: list[Tensor], areas: list[Tensor]) -> list[list[int | None]]:
    """Follow objects through a clip.

    Args:
        frames: for each frame the centres `r 2` of its regions.
        areas: their areas `r`.

    Returns:
        For each object and frame the region's number, None where it is missing. There are as many objects as the
        frames have most often; the largest object comes first.
    """
    counts = [min(len(centres), MOST) for centres in frames]
    number = max(set(counts), key=lambda count: (counts.count(count), count))
    if number == 0:
        return []
    start = counts.index(number)
    order = areas[start].argsort(descending=True)[:number].tolist()
    found: list[list[int | None]] = [[None] * len(frames) for _ in range(number)]
    for track, region in zip(found, order, strict=True):
        track[start] = region
    reach = max(LEAST_REACH, REACH / len(frames))
    for sequence in (range(start + 1, len(frames)), range(start - 1, -1, -1)):
        last = frames[start][order]
        for at in sequence:
            chosen = _nearest(last, frames[at], reach)
            for index, region in enumerate(chosen):
                found[index][at] = region
                if region is not None:
                    last = torch.cat([last[:index], frames[at][region][None], last[index + 1 :]])
    return found


def _nearest(last: Tensor, centres: Tensor, reach: float) -> list[int | None]:
    """A region for each object, so that the way of all together is shortest."""
    if not len(centres):
        return [None] * len(last)
    way = torch.cat([torch.cdist(last, centres), torch.full((len(last), len(last)), reach)], dim=1).tolist()
    missing = len(centres)
    near = [sorted(range(missing + len(last)), key=row.__getitem__)[: len(last) + 1] for row in way]
    options = (pick for pick in itertools.product(*near) if len(set(pick)) == len(pick))
    best = min(options, key=lambda pick: sum(row[region] for row, region in zip(way, pick, strict=True)))
    return [None if region >= missing else region for region in best]
