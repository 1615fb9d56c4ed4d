"""Whose keys and values a frame reads in self-attention: an index table f -> (f, m) over the frames of a call, as a parameter-free control.

    FIRST           the first frame                  Text2Video-Zero (Khachatryan et al. 2023, eq. 8)
    SPARSE_CAUSAL   the first and the previous       Tune-A-Video (Wu et al. 2023, eq. 5)
    MIDDLE          the middle frame                 FateZero's zero-shot settings (Qi et al. 2023)
    ALL             every frame                      dense attention over space and time

Any other list will do: `FrameChoice((-1, "first"))`, a window `FrameChoice((-1, 0, 1))`. Queries, weights and state dicts are the image model's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from videogen.control import Control, Pass, Site
from videogen.errors import InputError

Entry = int | Literal["first", "last", "middle", "all"]


def everywhere(site: Site) -> bool:
    """Every site."""
    return True


@dataclasses.dataclass(frozen=True)
class FrameChoice(Control):
    """At self-attention sites, frame i reads the frames that `entries` name, their tokens joined along m in that order.

    entries  whole numbers count from the frame itself and are held at the ends of the call (-1 is the previous, 0 the frame itself);
             `first` and `last` are the lowest and highest frame id of the call, `middle` is place (f - 1) // 2, `all` every frame.
             None at all leaves plain attention inside each frame
    sites    which self-attention sites; also those of plugs (ControlNet), unless it says otherwise

    Where all frames read the same ones, keys and values are shared by the clip (g = 1) and not repeated. Frames of another group are never
    read. A row that holds one frame only, however often, is plain attention over that frame; so a clip of one frame is the image model.
    """

    entries: tuple[Entry, ...]
    sites: Callable[[Site], bool] = everywhere

    def __post_init__(self) -> None:
        for entry in self.entries:
            if isinstance(entry, bool) or not (isinstance(entry, int) or entry in ("first", "last", "middle", "all")):
                raise InputError(f"a frame choice of {entry!r}: give whole numbers, first, last, middle or all")

    def qkv(self, site: Site, q: Tensor, k: Tensor, v: Tensor, p: Pass) -> tuple[Tensor, Tensor, Tensor]:
        """q `b f heads n d`; k, v `b f heads n d` -> `b g heads (m n) d` with g = f, or 1 where the clip shares them."""
        if site.kind != "self" or p.f == 1 or not self.entries or not self.sites(site):
            return q, k, v
        if p.groups is None:
            table = self.table(p.frames)
            return q, read(k, table), read(v, table)
        places = self.grouped(p.frames, p.groups)
        items = torch.arange(p.b, device=places.device)[:, None, None]
        k, v = (x[items, places].transpose(2, 3).flatten(3, 4) for x in (k, v))
        return q, k, v

    @property
    def compiles(self) -> bool:
        return True

    def table(self, frames: Sequence[int]) -> list[list[int]]:
        """For every place of a call with these frame ids, the places it reads: f rows of m."""
        f = len(frames)
        fixed = {
            "first": [min(range(f), key=frames.__getitem__)],
            "last": [max(range(f), key=frames.__getitem__)],
            "middle": [(f - 1) // 2],
            "all": list(range(f)),
        }

        def places(i: int, entry: Entry) -> list[int]:
            return [min(max(i + entry, 0), f - 1)] if isinstance(entry, int) else fixed[entry]

        return [[place for entry in self.entries for place in places(i, entry)] for i in range(f)]

    def grouped(self, frames: Sequence[int], groups: Tensor) -> Tensor:
        """The same where each group of frames is a clip of its own: `b f m` from groups `b f`.

        Nothing but `all`, whose m is the size of the groups, makes a shape of what they hold, so the others compile. Raises InputError for
        `all` with groups of different sizes.
        """
        same = groups[:, :, None] == groups[:, None]
        size, rank = same.sum(2), same.tril(-1).sum(2)
        ids = torch.tensor(list(frames), device=groups.device).expand_as(same)

        def member(which: Tensor) -> Tensor:
            """The place of the member of each frame's group that has so many members before it: `b f`."""
            return (same & (rank[:, None] == which[:, :, None])).int().argmax(2)

        def places(entry: Entry) -> list[Tensor]:
            if isinstance(entry, int):
                return [member((rank + entry).clamp(min=0).minimum(size - 1))]
            if entry == "first":
                return [torch.where(same, ids, ids.max() + 1).argmin(2)]
            if entry == "last":
                return [torch.where(same, ids, ids.min() - 1).argmax(2)]
            if entry == "middle":
                return [member((size - 1) // 2)]
            if (size != size[0, 0]).any():
                raise InputError(
                    "frames cannot read all of their group where groups have different sizes; choose frames by number"
                )
            return [member(torch.full_like(rank, i)) for i in range(int(size[0, 0]))]

        return torch.stack([place for entry in self.entries for place in places(entry)], 2)


def read(x: Tensor, table: Sequence[Sequence[int]]) -> Tensor:
    """Keys or values x `b f heads n d` by a table of f rows of m places -> `b f heads (m n) d`.

    A table of equal rows gives `b 1 heads (m n) d`: a view of x where the places follow each other.
    """
    first = list(table[0])
    if all(list(row) == first for row in table):
        follow = first == list(range(first[0], first[0] + len(first)))
        chosen = x[:, first[0] : first[-1] + 1] if follow else x[:, first]
        return chosen.transpose(1, 2).flatten(2, 3)[:, None]
    return x[:, torch.tensor(table, device=x.device)].transpose(2, 3).flatten(3, 4)


FIRST = FrameChoice(("first",))
SPARSE_CAUSAL = FrameChoice(("first", -1))
MIDDLE = FrameChoice(("middle",))
ALL = FrameChoice(("all",))
