"""What a network is told besides x and t: frozen values with named ports, dials and rows.

A condition is built once for the whole clip; `Conditioning.at` cuts out the frames of one call and turns every dial into plain weights, so that
inside a network nothing depends on the time grid, the window or a step counter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from videogen.errors import InputError

# The axes of an entry of each port; f is always axis 1.
AXES = {"tokens": "b f n d", "vector": "b f d", "concat": "b f c h w", "hints": "b f c h w", "residuals": "b f c h w"}
FRAMED = {port: len(axes.split()) for port, axes in AXES.items()}
PORTS = tuple(AXES)
# Ports whose entries may lack the axis f: they are shared by all frames.
SHARED = ("tokens", "vector")

T = TypeVar("T")


def head(name: str) -> str:
    """The part of an entry's name that says who takes it: `text` of `text.style`."""
    return name.split(".", 1)[0]


def framed(port: str, value: Tensor) -> Tensor:
    """An entry of a port with its frame axis: an entry shared by all frames (`b n d`, `b d`) gets one of length 1."""
    return value if value.ndim == FRAMED[port] else value.unsqueeze(1)


@dataclasses.dataclass(frozen=True)
class Dial:
    """How strong a source is, when, on which frames, where in the picture and at which sites. `Dial()` changes nothing, `Dial(0)` is off.

    On tokens, weights tell how the entries of one head share a query's attention: an entry of weight w gets w times the share it would have, so 0
    is not there and 2 is there twice. How much the attention adds is the strongest entry's weight, at most 1.

    scale   a number, or a function of the time t
    steps   the fraction of the time grid it is on, [start, stop); (0.5, 1) is on to the end
    frames  weight per absolute frame: a list, or keys `{frame: weight}` that are interpolated and held outside
    mask    weights over the picture, `h w` or `f h w`, in [0, 1]
    sites   a test on `Site`; off where it says no
    """

    scale: float | Callable[[float], float] = 1.0
    steps: tuple[float, float] = (0.0, 1.0)
    frames: Sequence[float] | Mapping[int, float] | None = None
    mask: Tensor | None = None
    sites: Callable[[Any], bool] | None = None

    def weight(self, t: float, frames: Sequence[int], times: Sequence[float] | None) -> list[float]:
        """The weight of each frame at time t. `times` is the descending grid that `steps` counts in; without it the dial is always on."""
        scale = float(self.scale(t)) if callable(self.scale) else float(self.scale)
        if times is not None and self.steps != (0.0, 1.0):
            done = sum(1 for s in times if s > t + 1e-6) / max(len(times), 1)
            start, stop = self.steps
            if done < start or done >= stop < 1:
                scale = 0.0
        if self.frames is None:
            return [scale] * len(frames)
        return [scale * w for w in keyed(self.frames, frames)]


def keyed(keys: Sequence[float] | Mapping[int, float], frames: Sequence[int]) -> list[float]:
    """Values at absolute `frames` from a list (its last value is held) or from keys, interpolated linearly and held outside."""
    if not keys:
        raise InputError("weights by frame are empty; give at least one")
    if not isinstance(keys, Mapping):
        return [float(keys[min(i, len(keys) - 1)]) for i in frames]
    around = (between(keys, i) for i in frames)
    return [(1 - share) * float(keys[before]) + share * float(keys[after]) for before, after, share in around]


def between(keys: Collection[int], frame: int) -> tuple[int, int, float]:
    """The keys on both sides of a frame, and its share of the way from one to the other; 0 at a key and outside."""
    before = max((key for key in keys if key <= frame), default=min(keys))
    after = min((key for key in keys if key > frame), default=before)
    return before, after, (frame - before) / (after - before) if after > before else 0.0


def travel(values: Tensor, keys: Sequence[int], frames: Sequence[int]) -> Tensor:
    """Values `b k ...` of key frames at `frames`: `b f ...`, linear between two keys, held outside.

    A frame depends on the two keys around it only, and at a key it is that key's value exactly.
    """
    place = {key: i for i, key in enumerate(keys)}
    around = [between(keys, frame) for frame in frames]
    start, end = values[:, [place[key] for key, _, _ in around]], values[:, [place[key] for _, key, _ in around]]
    shares = torch.tensor([share for _, _, share in around]).to(values)
    return torch.lerp(start, end, shares.view(1, -1, *[1] * (values.ndim - 2)))


@dataclasses.dataclass(frozen=True)
class Strength:
    """A dial, resolved for one call.

    weight    `b f`
    mask      `b f h w` or None
    sites     per item the test on sites
    live      per item, whether any of its weights differs from 0
    plain     it changes nothing anywhere
    negative  some weight is below 0
    """

    weight: Tensor
    mask: Tensor | None
    sites: tuple[Callable[[Any], bool] | None, ...]
    live: tuple[bool, ...]
    plain: bool
    negative: bool

    @property
    def off(self) -> bool:
        """Whether it is 0 for every item and frame, at whatever site."""
        return not any(self.live)

    def off_at(self, site: Any) -> bool:
        """Whether it is 0 for every item and frame at a site."""
        return not any(live and (test is None or test(site)) for live, test in zip(self.live, self.sites, strict=True))

    def to(self, device: Any) -> Strength:
        """The same on another device."""
        mask = None if self.mask is None else self.mask.to(device)
        return dataclasses.replace(self, weight=self.weight.to(device), mask=mask)

    def only(self, items: list[int]) -> Strength:
        """The same for some of the items."""
        mask = None if self.mask is None else self.mask[items]
        sites, live = tuple(self.sites[i] for i in items), tuple(self.live[i] for i in items)
        return dataclasses.replace(self, weight=self.weight[items], mask=mask, sites=sites, live=live)

    def of(self, site: Any) -> Tensor:
        """The weights `b f` at one site, zero for the items whose dial leaves that site out."""
        if all(test is None for test in self.sites):
            return self.weight
        here = [1.0 if test is None or test(site) else 0.0 for test in self.sites]
        return self.weight * self.weight.new_tensor(here)[:, None]


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """The named ports, for b items. An entry's name has a head (who takes it) and may have a tail: `text`, `text.style`.

    tokens     {name: b n d | b f n d}       attention
    vector     {name: b d | b f d}           time embedding or modulation
    concat     {name: b f c h w}             widens the input
    residuals  {name/address: b f c h w}     added inside the net
    hints      {name: b f c H W}             read by plugs only
    dials      {name: a Dial, or one per item}; the name of an entry or of an installed part (`motion`)
    groups     b f, frames that belong together; None is all of them
    rows       one set of words per item, the meaning of the batch
    frames     the ids that the frame axes stand for; None is 0, 1, 2, ...
    keys       {name: key frames} of entries that travel: what the frame axes of their tokens and vectors stand for, however long the clip is
    words      one `Words` per item, or None
    spans      a `Windows`: temporal layers work in its overlapping pieces inside one call (FreeNoise); None is one piece
    """

    tokens: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    vector: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    concat: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    residuals: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    hints: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    dials: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    groups: Tensor | None = None
    rows: tuple[frozenset[str], ...] = ()
    frames: tuple[int, ...] | None = None
    keys: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    words: tuple[Any, ...] = ()
    spans: Any = None
    strengths: Mapping[str, Strength] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for port in PORTS:
            for name, value in getattr(self, port).items():
                if value.ndim not in (FRAMED[port], FRAMED[port] - (port in SHARED)):
                    axes = AXES[port] + (f" or {AXES[port].replace('f ', '')}" if port in SHARED else "")
                    raise InputError(f"{port}[{name!r}] has shape {tuple(value.shape)}; its axes must be {axes}")
        sizes = {f"{port}[{n!r}]": v.shape[0] for port in PORTS for n, v in getattr(self, port).items()}
        if self.groups is not None:
            sizes["groups"] = self.groups.shape[0]
        sizes |= {what: len(values) for what, values in (("rows", self.rows), ("words", self.words)) if values}
        sizes |= {f"dials[{n!r}]": len(d) for n, d in self.dials.items() if isinstance(d, (tuple, list))}
        batch = next(iter(sizes.values()), 1)
        wrong = {name: n for name, n in sizes.items() if n != batch}
        if wrong:
            name, n = next(iter(wrong.items()))
            raise InputError(
                f"a condition's entries must have as many items as each other: {next(iter(sizes))} has {batch}, {name} has {n}"
            )
        object.__setattr__(self, "rows", self.rows or (frozenset(),) * batch)
        object.__setattr__(self, "words", self.words or (None,) * batch)
        dials = {n: tuple(d) if isinstance(d, (tuple, list)) else (d,) * batch for n, d in self.dials.items()}
        object.__setattr__(self, "dials", dials)

    @property
    def batch(self) -> int:
        """How many items (rows of the batch) it describes."""
        return len(self.rows)

    def replace(self, **changes: Any) -> Conditioning:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def entries(self, port: str, name: str) -> list[Tensor]:
        """All entries of a port with the head `name`, in the order given."""
        return [v for n, v in getattr(self, port).items() if head(n) == name]

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Conditioning:
        """Every tensor on another device, those of the ports in another dtype."""
        moved = {port: {n: v.to(device, dtype) for n, v in getattr(self, port).items()} for port in PORTS}
        groups = None if self.groups is None else self.groups.to(device)
        return self.replace(**moved, groups=groups, strengths={n: s.to(device) for n, s in self.strengths.items()})

    def __and__(self, other: Conditioning) -> Conditioning:
        """Both conditions at once, for the same items. Raises InputError where the same full name occurs twice."""
        if self.batch != other.batch:
            raise InputError(
                f"conditions for {self.batch} and for {other.batch} items cannot be merged; `stack` batches"
            )
        merged: dict[str, Any] = {}
        for port in (*PORTS, "dials"):
            mine, theirs = getattr(self, port), getattr(other, port)
            twice = sorted(set(mine) & set(theirs))
            if twice:
                raise InputError(f"two conditions are both called {twice[0]!r} ({port}); name one of them {twice[0]}.2")
            merged[port] = {**mine, **theirs}
        if self.frames is not None and other.frames is not None and self.frames != other.frames:
            raise InputError("two conditions stand for different frames and cannot be merged")
        return self.replace(
            **merged,
            groups=self.groups if other.groups is None else other.groups,
            rows=tuple(a | b for a, b in zip(self.rows, other.rows, strict=True)),
            frames=self.frames if other.frames is None else other.frames,
            keys={**self.keys, **other.keys},
            words=tuple(a if b is None else b for a, b in zip(self.words, other.words, strict=True)),
            spans=self.spans or other.spans,
        )

    def named(self, word: str) -> Conditioning:
        """The same items, each with one more word in its row."""
        return self.replace(rows=tuple(row | {word} for row in self.rows))

    def only(self, items: Sequence[int]) -> Conditioning:
        """Some of the items, in the order given. Prompts that were encoded together, and so have equal lengths, come apart again."""
        chosen = list(items)
        ports = {p: {n: v[chosen] for n, v in getattr(self, p).items()} for p in PORTS}
        return self.replace(
            **ports,
            dials={n: tuple(d[i] for i in chosen) for n, d in self.dials.items()},
            groups=None if self.groups is None else self.groups[chosen],
            rows=tuple(self.rows[i] for i in chosen),
            words=tuple(self.words[i] for i in chosen),
            strengths={n: s.only(chosen) for n, s in self.strengths.items()},
        )

    def expand(self, count: int) -> Conditioning:
        """Every item `count` times over, items staying together (b -> b*count)."""
        ports = {p: {n: v.repeat_interleave(count, 0) for n, v in getattr(self, p).items()} for p in PORTS}
        return self.replace(
            **ports,
            dials={n: _spread(d, count) for n, d in self.dials.items()},
            groups=None if self.groups is None else self.groups.repeat_interleave(count, 0),
            rows=_spread(self.rows, count),
            words=_spread(self.words, count),
        )

    def at(self, t: float, frames: Sequence[int], times: Sequence[float] | None = None) -> Conditioning:
        """This condition for one call: ports cut to the frame ids or brought there from their keys, dials resolved into `strengths`.

        An entry with one frame serves all frames. Raises InputError where an entry lacks an asked-for frame.
        """
        cut: dict[str, Any] = {}
        for port in PORTS:
            cut[port] = {
                n: self._at(port, n, v, frames) if v.ndim == FRAMED[port] else v for n, v in getattr(self, port).items()
            }
        groups = None if self.groups is None else self._cut(self.groups, frames, "groups")
        strengths = {name: self._strength(dials, t, frames, times) for name, dials in self.dials.items()}
        return self.replace(**cut, groups=groups, frames=tuple(frames), keys={}, strengths=strengths)

    def _at(self, port: str, name: str, value: Tensor, frames: Sequence[int]) -> Tensor:
        if port in SHARED and name in self.keys:
            return travel(value, self.keys[name], frames)
        return self._cut(value, frames, f"{port}[{name!r}]")

    def _cut(self, value: Tensor, frames: Sequence[int], what: str) -> Tensor:
        if value.shape[1] == 1:
            return value
        have = tuple(range(value.shape[1])) if self.frames is None else self.frames
        if len(have) != value.shape[1]:
            raise InputError(f"the condition {what} has {value.shape[1]} frames and {len(have)} frame ids")
        if tuple(frames) == have:
            return value
        place = {frame: i for i, frame in enumerate(have)}
        lacking = [f for f in frames if f not in place]
        if lacking:
            raise InputError(
                f"the condition {what} has {value.shape[1]} frames and none for frame {lacking[0]}; give one for every frame of the clip"
            )
        return value[:, [place[f] for f in frames]]

    def _strength(
        self, dials: tuple[Dial | None, ...], t: float, frames: Sequence[int], times: Sequence[float] | None
    ) -> Strength:
        rows = [[1.0] * len(frames) if d is None else d.weight(t, frames, times) for d in dials]
        masks = [None if d is None or d.mask is None else _mask_frames(d.mask, frames) for d in dials]
        mask = _stack_masks(masks)
        sites = tuple(None if d is None else d.sites for d in dials)
        weight = torch.tensor(rows)
        values = {w for row in rows for w in row}
        plain = values == {1.0} and mask is None and all(test is None for test in sites)
        live = tuple(any(w != 0 for w in row) for row in rows)
        return Strength(weight, mask, sites, live, plain, negative=min(values, default=0.0) < 0)


def stack(**parts: Conditioning) -> Conditioning:
    """Batch conditions: `stack(uncond=a, cond=b)` puts a's items first and adds each name to its rows. Stacks nest.

    An entry that one part lacks is zeros there, and its dial is off there.
    """
    if not parts:
        raise InputError("stack needs at least one condition")
    named = [part.named(name) for name, part in parts.items()]
    ports: dict[str, Any] = {port: {} for port in PORTS}
    dials: dict[str, list[Dial | None]] = {}
    for port in PORTS:
        for name in dict.fromkeys(n for part in named for n in getattr(part, port)):
            ports[port][name] = torch.cat(_same_shape([getattr(p, port).get(name) for p in named], named, port, name))
    # Zeros of other ports add nothing, those of tokens would be attended to: of a name in several ports the tokens decide.
    lacking = {
        (i, n)
        for port in PORTS
        for n in ports[port]
        for i, p in enumerate(named)
        if n not in getattr(p, "tokens" if n in ports["tokens"] else port)
    }
    for name in dict.fromkeys([n for p in named for n in p.dials] + [n for _, n in sorted(lacking)]):
        dials[name] = []
        for i, p in enumerate(named):
            off = (Dial(0.0),) * p.batch
            dials[name] += off if (i, name) in lacking else p.dials.get(name, (None,) * p.batch)
    frames = {p.frames for p in named if p.frames is not None}
    keys = {name: p.keys[name] for p in named for name in p.keys}
    if len(frames) > 1 or any(p.keys.get(name, keys[name]) != keys[name] for p in named for name in keys):
        raise InputError("stacked conditions stand for different frames")
    return Conditioning(
        **ports,
        dials={n: tuple(d) for n, d in dials.items()},
        groups=_stack_groups(named),
        rows=tuple(row for p in named for row in p.rows),
        frames=next(iter(frames), None),
        keys=keys,
        words=tuple(w for p in named for w in p.words),
        spans=next((p.spans for p in named if p.spans is not None), None),
    )


def _same_shape(values: list[Tensor | None], parts: list[Conditioning], port: str, name: str) -> list[Tensor]:
    """One shape for all parts: an entry shared by all frames beside a per-frame one is repeated, a missing one is zeros."""
    present = [v for v in values if v is not None]
    if any(v.ndim == FRAMED[port] for v in present):
        values = [v if v is None else framed(port, v) for v in values]
        frames = max(v.shape[1] for v in values if v is not None)
        values = [v if v is None or v.shape[1] > 1 else v.expand(-1, frames, *v.shape[2:]) for v in values]
        present = [v for v in values if v is not None]
    shapes = {tuple(v.shape[1:]) for v in present}
    if len(shapes) > 1:
        raise InputError(
            f"the condition {name!r} has different shapes in the stacked parts: {sorted(shapes)}; encode them together so that lengths agree"
        )
    shape, like = next(iter(shapes)), present[0]
    return [like.new_zeros(p.batch, *shape) if v is None else v for v, p in zip(values, parts, strict=True)]


def _stack_groups(parts: list[Conditioning]) -> Tensor | None:
    present = [p.groups for p in parts if p.groups is not None]
    if not present:
        return None
    frames = present[0].shape[1]
    return torch.cat([present[0].new_zeros(p.batch, frames) if p.groups is None else p.groups for p in parts])


def _mask_frames(mask: Tensor, frames: Sequence[int]) -> Tensor:
    """A mask `h w` or `f h w` for the given frames: `f h w`; a mask clip's last picture is held."""
    if mask.ndim == 2:
        return mask.expand(len(frames), *mask.shape)
    return mask[[min(i, mask.shape[0] - 1) for i in frames]]


def _stack_masks(masks: list[Tensor | None]) -> Tensor | None:
    """Masks `f h w` of all items as `b f h w`, ones where an item has none; None where none has one."""
    present = [mask.float() for mask in masks if mask is not None]
    if not present:
        return None
    sizes = {tuple(mask.shape[1:]) for mask in present}
    if len(sizes) > 1:
        raise InputError(f"the masks of one dial have different sizes: {sorted(sizes)}; draw them on one size")
    return torch.stack([torch.ones_like(present[0]) if mask is None else mask.float() for mask in masks])


def _spread(values: tuple[T, ...], count: int) -> tuple[T, ...]:
    return tuple(v for v in values for _ in range(count))
