"""Pictures taken apart: what the background is, and which connected regions differ from it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from videogen.shapes import world

NEAR = 60.0  # of 255: colours this close to the median colour belong to the background
TEXTURED = 11.0  # of 255: between the background's darker and lighter parts; a plain one has almost nothing there
FAR = 90.0  # of 255: a background this far from every known one is unknown
DIFFERENT = 22.0  # of 255: the least distance from the background of something that is not background
VOTE = 40.0  # of 255: how near to an object's colour a pixel has to be to speak for it
SPECK = 20  # pixels: regions that are smaller are noise


class Ground(NamedTuple):
    """The background of each of b clips."""

    names: list[str | None]
    tones: Tensor  # b 2 3, of 255; a plain one has the same tone twice
    textured: Tensor  # b


def backgrounds(clips: Tensor) -> Ground:
    """Read the backgrounds of `b f 3 H W`, of 255: colours near the median, split in two where they come in two tones."""
    b = len(clips)
    points = rearrange(F.avg_pool2d(clips.flatten(0, 1), 4), "(b f) c h w -> b (f h w) c", b=b)
    median = points.median(dim=1, keepdim=True).values
    near = (points - median).square().sum(-1) < NEAR**2
    light = points.mean(-1).masked_fill(~near, torch.nan)
    low, high = (light.nanquantile(q, dim=1, keepdim=True) for q in (0.15, 0.85))
    textured = (high - low)[:, 0] > TEXTURED
    part = (high - low) / 4
    dark = points.masked_fill((~near | (light > low + part))[..., None], torch.nan).nanmedian(dim=1).values
    bright = points.masked_fill((~near | (light < high - part))[..., None], torch.nan).nanmedian(dim=1).values
    plain = points.masked_fill(~near[..., None], torch.nan).nanmedian(dim=1).values
    both = torch.stack([dark, bright], dim=1)
    tones = torch.where(textured[:, None, None], both, plain[:, None].expand_as(both))
    known = torch.tensor(list(world.BACKGROUNDS.values()), dtype=torch.float32, device=clips.device)
    is_plain = torch.tensor([name in world.PLAIN_BACKGROUNDS for name in world.BACKGROUNDS], device=clips.device)
    distance = (known - tones[:, None]).norm(dim=-1).mean(-1).masked_fill(is_plain == textured[:, None], torch.inf)
    least, index = distance.min(dim=1)
    names = tuple(world.BACKGROUNDS)
    found = [names[i] if d < FAR else None for i, d in zip(index.tolist(), least.tolist(), strict=True)]
    return Ground(found, tones, textured)


def difference(clips: Tensor, ground: Ground) -> Tensor:
    """What each pixel adds to the nearest colour between the background's two tones, `b f 3 H W`, of 255."""
    start, end = ground.tones[:, None, :, :, None, None].unbind(2)
    way, offset = end - start, clips - start
    along = (offset * way).sum(2, keepdim=True) / (way**2).sum(2, keepdim=True).clamp(min=1e-6)
    return offset.sub_(along.clamp_(0, 1) * way)


def different(added: Tensor) -> tuple[Tensor, Tensor]:
    """What is not background, from `difference`: a mask `b f H W`, cracks of a pixel closed, and its threshold `b`.

    A noisy background raises the threshold.
    """
    distance = added.square().sum(2).sqrt_()
    noise = distance[..., ::4, ::4].flatten(1).median(dim=1).values
    threshold = (2 * noise + 8).clamp(min=DIFFERENT)
    mask = (distance > threshold[:, None, None, None]).flatten(0, 1).float()
    closed = -F.max_pool2d(-F.max_pool2d(mask, 3, 1, 1), 3, 1, 1)
    return (closed > 0).view(distance.shape), threshold


class Regions(NamedTuple):
    """Connected regions of n pictures."""

    labels: Tensor  # n H W, 0 where there is none, else 1 + index in what follows
    picture: Tensor  # r
    area: Tensor  # r, pixels
    centre: Tensor  # r 2, x and y of the mean pixel centre


def own_colours(clips: Tensor, found: Regions) -> Tensor:
    """The colour `r 3` that each region is most of, of 255: a mean of its pixels, weighted by their nearness to the
    object colour with most votes. Contours and halos, which are near to none, have no say.
    """
    picture, row, column = found.labels.nonzero().unbind(1)
    region = found.labels[picture, row, column] - 1
    pixels = clips.flatten(0, 1)[picture, :, row, column]
    known = torch.tensor(list(world.COLOURS.values()), dtype=torch.float32, device=clips.device)
    votes = (-((torch.cdist(pixels, known) / VOTE) ** 2)).exp()
    count = torch.full((len(found.area), len(known)), 1e-9, device=clips.device).index_add_(0, region, votes)
    winner = count.argmax(1)
    weight = votes.gather(1, winner[region, None])
    total = torch.zeros(len(found.area), 3, device=clips.device).index_add_(0, region, pixels * weight)
    return total / count.gather(1, winner[:, None])


def regions(mask: Tensor) -> Regions:
    """8-connected regions of `mask` `n H W` without specks, by joining the runs of neighbouring rows."""
    n, height, width = mask.shape
    picture, row, column = mask.nonzero().unbind(1)
    line = picture * (height + 1) + row  # a number is left out between pictures, so that they never touch
    starts = torch.ones_like(line, dtype=torch.bool)
    starts[1:] = (line[1:] != line[:-1]) | (column[1:] != column[:-1] + 1)
    run = starts.cumsum(0) - 1
    ends = torch.ones_like(starts)
    ends[:-1] = starts[1:]
    root = _joined(line[starts], column[starts], column[ends])
    label = torch.unique(root, return_inverse=True)[1][run]
    count = int(label.max()) + 1 if len(label) else 0
    sums = torch.zeros(count, 3, device=mask.device)
    ones = torch.ones_like(column, dtype=torch.float32)
    sums.index_add_(0, label, torch.stack([column + 0.5, row + 0.5, ones], dim=1))
    owner = torch.zeros(count, dtype=torch.long, device=mask.device).index_put_((label,), picture)
    kept = sums[:, 2] >= SPECK
    number = torch.where(kept, kept.cumsum(0), 0)
    labels = torch.zeros(n, height, width, dtype=torch.long, device=mask.device)
    labels[picture, row, column] = number[label]
    return Regions(labels, owner[kept], sums[kept, 2], sums[kept, :2] / sums[kept, 2:])


def _joined(line: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The least number of a run in each run's region; runs are sorted by line, then by their first column."""
    number = torch.arange(len(line), device=line.device)
    if not len(line):
        return number
    above = torch.searchsorted(line, line - 1)
    until = torch.searchsorted(line, line - 1, right=True)
    pairs = []
    for step in range(int((until - above).max())):
        other = above + step
        there = (other < until).nonzero()[:, 0]
        other = other[there]
        touch = (first[other] <= last[there] + 1) & (last[other] >= first[there] - 1)
        pairs.append(torch.stack([there[touch], other[touch]]))
    if not pairs:
        return number
    one, two = torch.cat(pairs, dim=1)
    root = number
    while True:
        least = torch.minimum(root[one], root[two])
        lower = root.scatter_reduce(0, one, least, "amin").scatter_reduce(0, two, least, "amin")
        lower = lower.scatter_reduce(0, root[one], least, "amin").scatter_reduce(0, root[two], least, "amin")
        lower = lower[lower]
        if bool((lower == root).all()):
            return root
        root = lower
