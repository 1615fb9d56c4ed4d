"""Behaviour without parameters inside a network: sites, what a forward pass carries, and the three verbs of a control.

A control never holds state of the clip or of the step; what it asks to keep is written into the pass's own dictionary and comes back with the
prediction, gradients included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from videogen.conditioning import Strength

Kind = Literal[
    "self", "cross", "joint", "gated", "temporal", "residual", "skip", "entry", "down", "mid", "up", "transformer"
]


@dataclasses.dataclass(frozen=True)
class Site:
    """The address of a block, known when the network is built.

    net     `unet`, or a plug's name
    place   the block's name in the state dict
    kind    self, cross, temporal, residual, ...
    part    `down`, `mid` or `up`: which half of the network it stands in
    level   how many times the picture has been halved there
    source  what a cross-attention reads (`text`, `image`), else empty
    end     `in` or `out` where `features` is called at the input or the output of an attention, else empty
    """

    net: str
    place: str
    kind: Kind
    part: str
    level: int
    source: str = ""
    end: Literal["", "in", "out"] = ""

    def ends(self) -> tuple[Site, Site]:
        """The addresses of an attention's input and output."""
        return dataclasses.replace(self, end="in"), dataclasses.replace(self, end="out")


class Control:
    """Three verbs, each neutral here. Override what a method needs; compose with `first >> second`, bind to rows with `.on("cond")`.

    Shapes are the same views whatever kernel follows: q `b f heads n d`; k, v `b g heads m d` with g = f, or 1 where the clip shares them;
    probs `b f heads n m`; features `b f c h w` or `b f n c`. At temporal sites the roles of f and n are exchanged: every place of the picture
    attends over the frames.
    """

    def qkv(self, site: Site, q: Tensor, k: Tensor, v: Tensor, p: Pass) -> tuple[Tensor, Tensor, Tensor]:
        """What is attended."""
        return q, k, v

    def wants_maps(self, site: Site, p: Pass) -> bool:
        """Whether `maps` is to be called at this site; only there are attention maps ever made."""
        return False

    def maps(self, site: Site, probs: Tensor, p: Pass) -> Tensor:
        """How much is attended."""
        return probs

    def features(self, site: Site, h: Tensor, p: Pass) -> Tensor:
        """Activations."""
        return h

    def at(self, t: float, frames: tuple[int, ...], times: tuple[float, ...] | None) -> Control:
        """This control for one call; a control with a schedule resolves it here, before the network is entered."""
        return self

    @property
    def compiles(self) -> bool:
        """Whether compiled blocks may have it inside: it only computes, and is the same or equal in all calls. Else its calls run as written."""
        return False

    def __rshift__(self, other: Control) -> Control:
        return Chain((self, other))

    def on(self, *words: str) -> Control:
        """This control for the rows that have all of `words`; the other rows are left as they are."""
        return OnRows(self, frozenset(words))


@dataclasses.dataclass(frozen=True)
class Chain(Control):
    """Controls one after another."""

    links: tuple[Control, ...]

    def qkv(self, site: Site, q: Tensor, k: Tensor, v: Tensor, p: Pass) -> tuple[Tensor, Tensor, Tensor]:
        for link in self.links:
            q, k, v = link.qkv(site, q, k, v, p)
        return q, k, v

    def wants_maps(self, site: Site, p: Pass) -> bool:
        return any(link.wants_maps(site, p) for link in self.links)

    def maps(self, site: Site, probs: Tensor, p: Pass) -> Tensor:
        for link in self.links:
            probs = link.maps(site, probs, p) if link.wants_maps(site, p) else probs
        return probs

    def features(self, site: Site, h: Tensor, p: Pass) -> Tensor:
        for link in self.links:
            h = link.features(site, h, p)
        return h

    def at(self, t: float, frames: tuple[int, ...], times: tuple[float, ...] | None) -> Control:
        return Chain(tuple(link.at(t, frames, times) for link in self.links))

    @property
    def compiles(self) -> bool:
        return all(link.compiles for link in self.links)

    def __rshift__(self, other: Control) -> Control:
        return Chain((*self.links, other))


def both(first: Control | None, second: Control | None) -> Control | None:
    """One after the other, where there are two."""
    return second if first is None else first if second is None else first >> second


@dataclasses.dataclass(frozen=True)
class OnRows(Control):
    """A control that sees and changes only the rows that have all of `words`. Frame choices must keep the number of keys there."""

    inner: Control
    words: frozenset[str]

    def _items(self, p: Pass) -> list[int]:
        return [i for i, row in enumerate(p.rows) if self.words <= row]

    def _apply(self, p: Pass, verb: Callable[..., Any], *values: Tensor) -> tuple[Tensor, ...]:
        items = self._items(p)
        if not items:
            return values
        if len(items) == len(p.rows):
            changed = verb(*values, p)
            return changed if isinstance(changed, tuple) else (changed,)
        rows = stepped(items)
        chosen = [v[rows] for v in values]
        changed = verb(*chosen, p.only(items))
        changed = changed if isinstance(changed, tuple) else (changed,)
        index = torch.tensor(items, device=values[0].device)
        # What the control handed back untouched is not copied; a copy keeps the layout in memory, which a bare index_copy does not.
        # Keys that its rows share among the frames are repeated, since the other rows have a set for each.
        return tuple(
            v if after is before else v.clone().index_copy_(0, index, after.expand_as(before).to(v.dtype))
            for v, before, after in zip(values, chosen, changed, strict=True)
        )

    def qkv(self, site: Site, q: Tensor, k: Tensor, v: Tensor, p: Pass) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self._apply(p, lambda *a: self.inner.qkv(site, *a), q, k, v)
        return q, k, v

    def wants_maps(self, site: Site, p: Pass) -> bool:
        return bool(self._items(p)) and self.inner.wants_maps(site, p)

    def maps(self, site: Site, probs: Tensor, p: Pass) -> Tensor:
        return self._apply(p, lambda a, q: self.inner.maps(site, a, q), probs)[0]

    def features(self, site: Site, h: Tensor, p: Pass) -> Tensor:
        return self._apply(p, lambda a, q: self.inner.features(site, a, q), h)[0]

    def at(self, t: float, frames: tuple[int, ...], times: tuple[float, ...] | None) -> Control:
        return OnRows(self.inner.at(t, frames, times), self.words)

    @property
    def compiles(self) -> bool:
        return self.inner.compiles


@dataclasses.dataclass(frozen=True)
class Keep(Control):
    """Write attention maps of the chosen sites into the pass: `pred.kept[place] = reduce(probs)`, probs `b f heads n m`, with their gradient."""

    sites: Callable[[Site], bool]
    reduce: Callable[[Tensor], Tensor] = lambda probs: probs

    def wants_maps(self, site: Site, p: Pass) -> bool:
        return self.sites(site)

    def maps(self, site: Site, probs: Tensor, p: Pass) -> Tensor:
        if self.sites(site):
            p.kept[site.place] = self.reduce(probs)
        return probs


@dataclasses.dataclass
class Pass:
    """What every block of one forward reads, and `kept`, the one thing that is written.

    b, f           items and frames of this call
    emb            activated time embedding, `b 1 d` or `b f d`
    tokens         what cross-attention reads, `{source: b n d | b f n d}`
    frames         absolute frame ids
    groups         `b f` or None
    rows           one set of words per item
    strengths      resolved dials by name
    control        the control of this call, or None
    sizes          height and width of the map at each level, written by the network as it descends
    spans          the overlapping windows in which temporal layers work; none is one piece
    entries        names and lengths of the entries that a source's tokens are joined from
    checkpointing  gradient checkpointing is on
    frame_ids      `frames` as a tensor where the network computes, for lookups: compiled blocks would be compiled anew for each tuple of numbers
    """

    b: int
    f: int
    emb: Tensor
    tokens: Mapping[str, Tensor]
    frames: tuple[int, ...]
    rows: tuple[frozenset[str], ...]
    groups: Tensor | None = None
    strengths: Mapping[str, Strength] = dataclasses.field(default_factory=dict)
    control: Control | None = None
    sizes: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    spans: tuple[Any, ...] = ()
    kept: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    entries: Mapping[str, tuple[tuple[str, int], ...]] = dataclasses.field(default_factory=dict)
    checkpointing: bool = False
    frame_ids: Tensor | None = None

    @property
    def recompute_layers(self) -> bool:
        """Whether the backward pass computes whole layers once more: with checkpointing, where no control looks inside."""
        return self.checkpointing and self.control is None

    @property
    def recompute_pieces(self) -> bool:
        """Whether it computes the pieces between the calls of `features` once more, so that a control is asked once."""
        return self.checkpointing and self.control is not None

    def only(self, items: list[int]) -> Pass:
        """This pass as a control bound to some items sees it; what it keeps still lands in the whole pass."""
        rows = stepped(items)
        return dataclasses.replace(
            self,
            b=len(items),
            emb=self.emb[rows],
            tokens={n: v[rows] for n, v in self.tokens.items()},
            rows=tuple(self.rows[i] for i in items),
            groups=None if self.groups is None else self.groups[rows],
            strengths={n: s.only(items) for n, s in self.strengths.items()},
        )

    def grid(self, site: Site) -> tuple[int, int]:
        """Height and width of the picture whose n places a site attends over."""
        return self.sizes[site.level]

    def features(self, site: Site, h: Tensor) -> Tensor:
        """`(b f) c h w` or `(b f) n c`, passed by the control."""
        if self.control is None:
            return h
        return self.control.features(site, h.unflatten(0, (self.b, self.f)), self).flatten(0, 1)

    def on(self, name: str, site: Site | None = None) -> bool:
        """False where the part called `name` is off for every item and frame (at this site): it need not be computed."""
        strength = self.strengths.get(name)
        return strength is None or not (strength.off if site is None else strength.off_at(site))

    def plain(self, name: str) -> bool:
        """Whether the dial of `name` changes nothing in this call."""
        return name not in self.strengths or self.strengths[name].plain

    def weight(self, name: str, site: Site, h: Tensor) -> Tensor:
        """The weights of `name` at a site, to be multiplied with h; a part that averages reads them.

        For h `(b f) c h w`: `(b f) 1 1 1`, or `(b f) 1 h w` with a mask; for h `(b f) n c`: `(b f) 1 1` or `(b f) n 1`.
        """
        one = (self.b * self.f, *[1] * (h.ndim - 1))
        if self.plain(name):
            return h.new_ones(one)
        strength = self.strengths[name]
        weight = strength.of(site).to(h.device, h.dtype).reshape(one)
        if strength.mask is None:
            return weight
        size = self.sizes[site.level] if h.ndim == 3 else h.shape[-2:]
        mask = F.interpolate(strength.mask.to(h.device, h.dtype), size, mode="area").reshape(-1, 1, *size)
        return weight * (mask.flatten(2).transpose(1, 2) if h.ndim == 3 else mask)

    def add(self, h: Tensor, delta: Tensor, name: str, site: Site) -> Tensor:
        """h + weight * delta. Items and frames of weight 0 are selected, not multiplied: they keep h bit for bit, even beside a NaN.

        h, delta: `(b f) c h w`, or `(b f) n c` at a site whose map size is known.
        """
        return h + delta if self.plain(name) else add(h, delta, self.weight(name, site, h))

    def lone(self) -> Tensor | None:
        """`b f`, True where a frame is the only one of its group; None where it goes without saying that no frame is."""
        if self.groups is not None:
            return (self.groups[:, :, None] == self.groups[:, None]).sum(2) == 1
        return None if self.f > 1 else torch.ones(self.b, 1, dtype=torch.bool)


def stepped(items: list[int]) -> slice | list[int]:
    """An index of the same items, ascending, that makes a view where they follow each other in equal steps, as stacked rows mostly do."""
    step = items[1] - items[0] if len(items) > 1 else 1
    even = range(items[0], items[-1] + 1, step)
    return slice(even.start, even.stop, step) if list(even) == items else items


def add(h: Tensor, delta: Tensor, weight: Tensor) -> Tensor:
    """h + weight * delta, and h itself where the weight is 0."""
    return torch.where(weight == 0, h, h + weight * delta)
