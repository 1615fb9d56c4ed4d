"""`videogen data cache`: every frame that training may draw, and every caption, encoded once.

Latents are kept as mean and standard deviation, so that training still samples them. An entry's key is a digest of the clip's bytes, of the
weights that encoded it and of every setting that decides which frames are drawn and how they are cut; what is stale has another key, and is
not found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from videogen.data.captions import sided
from videogen.data.clips import Clips
from videogen.data.encoders import Encoders
from videogen.data.facts import ordered
from videogen.data.fitting import Fit
from videogen.data.opening import Unread, check_reader, opened
from videogen.data.plan import Plan, Shape
from videogen.data.rows import Place, Rejected, Row, content, identity, stamp
from videogen.data.settings import Cache, Data
from videogen.data.store import Store, halved
from videogen.data.windows import check_frames, possible
from videogen.errors import InputError
from videogen.files import replacing

VERSION = 2  # of what is written; a new one makes old entries unfindable
PIECE = 16  # clips a file
CAPTIONS = 256  # captions a file
CONTENTS = "contents.jsonl"
SETTINGS = ("frames", "stride", "fps", "window", "starts", "short", "reader")  # what decides which frames may be drawn


@dataclass(frozen=True)
class Wanted:
    """A row in the shape it is trained in."""

    row: Row
    shape: Shape


@dataclass(frozen=True)
class Filled:
    """What a filling found and did: clips and captions in all, those encoded now, those that are broken, and what nothing in this
    configuration needs: how many pieces, and whether they were deleted. `unread` are the clips that could not be read for now, which the cache
    lacks.
    """

    clips: int
    captions: int
    new_clips: int
    new_captions: int
    broken: int
    stale: int
    pruned: bool
    unread: tuple[Rejected, ...] = ()


class Contents:
    """Digests of clips' bytes, read anew only where size or time of a file has changed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CONTENTS
        self._known: dict[str, tuple[str, str]] = {}
        self._new = False
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    name, now, digest = json.loads(line)
                    self._known[name] = now, digest
                except (ValueError, TypeError):
                    continue

    def of(self, place: Place) -> str:
        """The digest. Raises InputError where the file is not there."""
        name, now = identity(place), stamp(place)
        old = self._known.get(name)
        if old is None or old[0] != now:
            old = self._known[name] = now, content(place)
            self._new = True
        return old[1]

    def save(self) -> None:
        """Keep what was found."""
        if not self._new:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as beside, beside.open("w", encoding="utf-8") as file:
                for name, (now, digest) in self._known.items():
                    file.write(json.dumps([name, now, digest]) + "\n")
        except OSError as problem:
            raise InputError(f"{self.path} cannot be written: {problem.strerror}") from problem


def cache_of(data: Data) -> Cache:
    """The cache of a configuration. Raises InputError where it has none."""
    if data.cache is None:
        raise InputError("the configuration names no cache; give data.cache.folder")
    return data.cache


def wanted(clips: Clips) -> Iterator[Wanted]:
    """Every row of the plan once, in the order of the listing."""
    plan: Plan = clips.plan
    shapes = {
        (pool.source, int(row)): bucket.shape for bucket in plan.buckets for pool in bucket.pools for row in pool.rows
    }
    for (source, row), shape in sorted(shapes.items(), key=lambda x: x[0]):
        yield Wanted(clips.listings[source].rows[row], shape)


def clip_key(data: Data, encoder: str, one: Wanted, digest: str) -> str:
    """The key of a clip's entry."""
    settings = data.model_dump(mode="json", include=set(SETTINGS))
    shape = (one.shape.frames, one.shape.width, one.shape.height)
    said = [VERSION, encoder, digest, shape, mirrors(data, one.row), cache_of(data).dtype, settings]
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()


def caption_key(data: Data, encoder: str, caption: str) -> str:
    """The key of a caption's entry."""
    said = json.dumps([VERSION, encoder, caption, data.chunks, cache_of(data).dtype])
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def mirrors(data: Data, row: Row) -> bool:
    """Whether a row's clip may be drawn mirrored."""
    return data.flip and not sided(row.captions)


def fill(
    clips: Clips,
    encoders: Encoders,
    tell: Callable[[int, int], None] = lambda done, total: None,
    *,
    prune: bool = False,
    beside: Sequence[Clips] = (),
) -> Filled:
    """Encode what the cache of a configuration lacks. Other processes may do the same at the same time; it can be stopped and called again.

    tell    takes how many rows are done, of how many
    prune   delete what this configuration does not need: it may be another's
    beside  the configuration's other sections, which may have the same cache

    Raises InputError for a reader that is not installed, and where the cache cannot be written; what is in it stays.
    """
    data, folder = clips.data, cache_of(clips.data).folder
    check_reader(data.reader)
    store, contents, rows = Store(folder / "clips"), Contents(folder), list(wanted(clips))
    try:
        keys, new, broken, unread = _fill_clips(data, encoders, store, contents, rows, tell)
    except BaseException:
        with contextlib.suppress(InputError):  # what went wrong first is told
            contents.save()
        raise
    captions = _captions(data, rows)
    told_keys = {caption_key(data, encoders.text_key, caption) for caption in captions}
    for other in beside:
        if other.data.cache and other.data.cache.folder.resolve() == folder.resolve():
            theirs = list(wanted(other))
            keys |= dict(_keyed(other.data, encoders, contents, theirs)[0]).keys()
            told_keys |= {caption_key(other.data, encoders.text_key, one) for one in _captions(other.data, theirs)}
    contents.save()
    texts = Store(folder / "text")
    told = _encode_captions(data, encoders, texts, captions)
    stale = store.stale(keys, delete=prune) + texts.stale(told_keys, delete=prune)
    return Filled(len(rows), len(captions), new, told, broken, stale, prune, tuple(unread))


def _captions(data: Data, rows: Sequence[Wanted]) -> list[str]:
    """What a cache has of these rows' captions: each once, and the empty one."""
    return sorted({"", *(caption for one in rows for caption in one.row.captions)}) if cache_of(data).text else []


def _fill_clips(
    data: Data,
    encoders: Encoders,
    store: Store,
    contents: Contents,
    rows: list[Wanted],
    tell: Callable[[int, int], None],
) -> tuple[set[str], int, int, list[Rejected]]:
    """The keys of all clips, how many were encoded, how many rows are broken, which could not be read for now."""
    keys: set[str] = set()
    unread: list[Rejected] = []
    done, new, broken = 0, 0, 0
    chunks = [rows[start : start + PIECE] for start in range(0, len(rows), PIECE)]
    for wait in (False, True):  # first what no other process works on, then what may be left of the others' work
        left = []
        for chunk in chunks:
            found, gone = _keyed(data, encoders, contents, chunk)
            filled = _fill_chunk(data, encoders, store, dict(found), wait)
            if filled is None:
                left.append(chunk)
                continue
            encoded, reasons = filled
            keys |= dict(found).keys()
            done, new = done + len(chunk), new + encoded
            broken += sum("wrong" in store.entries[key].info for key, _ in found if key not in reasons)
            unread += [*gone, *(Rejected(one.row.key, reasons[key]) for key, one in found if key in reasons)]
            tell(done, len(rows))
        chunks = left
    return keys, new, broken, unread


def _fill_chunk(
    data: Data, encoders: Encoders, store: Store, found: dict[str, Wanted], wait: bool
) -> tuple[int, dict[str, str]] | None:
    """Encode what is missing of a chunk; how many that were, and why others could not be read. None where another process works on it."""
    if found.keys() <= store.entries.keys():
        return 0, {}
    with store.claimed(_name(list(found)), wait=wait) as mine:
        if not mine:
            return None
        store.refresh()
        return _encode_clips(data, encoders, store, {k: one for k, one in found.items() if k not in store.entries})


def _keyed(
    data: Data, encoders: Encoders, contents: Contents, chunk: Sequence[Wanted]
) -> tuple[list[tuple[str, Wanted]], list[Rejected]]:
    """The rows of a chunk, each behind its key, and those whose file has gone or cannot be read. Equal clips have one key."""
    found, gone = [], []
    for one in chunk:
        try:
            found.append((clip_key(data, encoders.clip_key, one, contents.of(one.row.place)), one))
        except InputError as problem:
            gone.append(Rejected(one.row.key, str(problem)))
    return found, gone


def _name(keys: Sequence[str]) -> str:
    return hashlib.blake2b("".join(keys).encode(), digest_size=12).hexdigest()


def _encode_clips(
    data: Data, encoders: Encoders, store: Store, missing: dict[str, Wanted]
) -> tuple[int, dict[str, str]]:
    """Encode clips into one piece; one that is broken is entered with the reason, one that cannot be read for now is not entered.

    Returns how many were entered, and why the others were not.
    """

    def read(one: Wanted) -> tuple[Tensor, dict] | InputError:
        try:
            return every_frame(data, one)
        except InputError as problem:
            return problem

    entries: dict[str, tuple[dict[str, Tensor], dict]] = {}
    unread: dict[str, str] = {}
    for key, read_one in zip(missing, ordered(read, list(missing.values()), data.workers, data.workers)):
        if isinstance(read_one, Unread):
            unread[key] = str(read_one)
            continue
        if isinstance(read_one, InputError):
            entries[key] = {}, {"wrong": str(read_one), "row": missing[key].row.key}
            continue
        frames, info = read_one
        parts: dict[str, Tensor] = {}
        for name, pixels in _variants(frames, mirrors(data, missing[key].row)):
            for part, value in zip(("mean", "deviation"), encoders.clip(pixels)):
                parts[f"{name}.{part}"] = halved(value, cache_of(data).dtype)
        latent = list(parts["plain.mean"].shape[1:])
        entries[key] = parts, info | {"row": missing[key].row.key, "latent": latent}
    if entries:
        store.write(_name(list(entries)), entries)
    return len(entries), unread


def _variants(frames: Tensor, mirrored: bool) -> Iterator[tuple[str, Tensor]]:
    yield "plain", frames
    if mirrored:
        yield "mirrored", frames.flip(-1)


def every_frame(data: Data, one: Wanted) -> tuple[Tensor, dict]:
    """Every frame that a window may ask for, `f 3 h w` uint8, and their numbers with the clip's extent."""
    with opened(one.row.place, data.reader) as source:
        check_frames(data, source.extent, one.shape.frames)
        numbers = possible(data, source.extent, one.shape.frames)
        pixels = source.frames(numbers, Fit(one.shape.width, one.shape.height))
        extent = source.extent
    frames = rearrange(torch.from_numpy(np.ascontiguousarray(pixels)), "f h w c -> f c h w")
    return frames, {"numbers": numbers, "count": extent.count, "rate": str(extent.rate)}


def _encode_captions(data: Data, encoders: Encoders, store: Store, captions: Sequence[str]) -> int:
    new = 0
    for wait in (False, True):
        for start in range(0, len(captions), CAPTIONS):
            chunk = {caption_key(data, encoders.text_key, c): c for c in captions[start : start + CAPTIONS]}
            if chunk.keys() <= store.entries.keys():
                continue
            with store.claimed(_name(list(chunk)), wait=wait) as mine:
                store.refresh()
                missing = {key: caption for key, caption in chunk.items() if key not in store.entries}
                if not mine or not missing:
                    continue
                told = {key: encoders.text(caption, data.chunks) for key, caption in missing.items()}
                entries = {
                    key: (
                        {name: halved(value, cache_of(data).dtype) for name, value in parts.items()},
                        {"parts": list(parts), "caption": missing[key]},
                    )
                    for key, parts in told.items()
                }
                store.write(_name(list(missing)), entries)
                new += len(entries)
    return new
