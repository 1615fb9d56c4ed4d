"""A store of encoded things, keyed by digests of what they were made from: safetensors pieces, each there whole or not at all.

A piece carries in its header what it holds, so the pieces are their own index, and no two files can disagree. Nothing is ever changed in
place. Several processes fill a store together: who works on a piece holds a lock on its name, which the system takes back when that process
dies.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videogen.errors import InputError, reason
from videogen.files import replacing

HEADER = "videogen.entries"


@dataclass(frozen=True)
class Entry:
    """Where something lies, and what is known of it."""

    piece: Path
    info: Mapping[str, Any]


class Store:
    """The pieces in a folder. `entries` is what was there when `refresh` looked last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self._read: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in pieces that have come since. A piece that cannot be read counts as not there."""
        for piece in sorted(self.folder.glob("*.safetensors")):
            if piece.name in self._read:
                continue
            with contextlib.suppress(SafetensorError, OSError, ValueError, KeyError):
                with safe_open(piece, "pt") as file:
                    found = json.loads(file.metadata()[HEADER])
                self.entries.update({key: Entry(piece, info) for key, info in found.items()})
                self._read.add(piece.name)

    def write(self, name: str, entries: Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        """Write a piece: for each key its tensors by name, and what is known of it, as JSON values.

        Raises InputError where the disk is full or the folder cannot be written; all pieces that were there stay.
        """
        tensors = {
            f"{key}/{part}": tensor.contiguous()
            for key, (parts, _) in entries.items()
            for part, tensor in parts.items()
        }
        header = {HEADER: json.dumps({key: info for key, (_, info) in entries.items()})}
        piece = self.folder / f"{name}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(piece) as beside:
                save_file(tensors, beside, header)
                with beside.open("rb") as file:
                    os.fsync(file.fileno())
        except (OSError, SafetensorError) as problem:
            raise InputError(
                f"the cache {self.folder} cannot be written ({reason(problem)}); what it holds stays, and the command goes on there"
            ) from problem
        self.entries.update({key: Entry(piece, info) for key, (_, info) in entries.items()})
        self._read.add(piece.name)

    def tensor(self, key: str, part: str, first: int = 0, last: int | None = None) -> Tensor:
        """Rows [first, last) of a tensor. Raises InputError where the piece has gone or is broken."""
        try:
            with safe_open(self.entries[key].piece, "pt") as file:
                return file.get_slice(f"{key}/{part}")[first:last]
        except (OSError, SafetensorError) as problem:
            raise InputError(
                f"{self.entries[key].piece} cannot be read ({reason(problem)}); delete it and fill the cache again"
            ) from problem

    def tensors(self, key: str) -> dict[str, Tensor]:
        """All tensors of an entry."""
        parts = self.entries[key].info["parts"]
        return {part: self.tensor(key, part) for part in parts}

    def stale(self, wanted: set[str], *, delete: bool) -> int:
        """How many pieces hold nothing that is wanted; `delete` takes them away."""
        alive = {self.entries[key].piece.name for key in wanted if key in self.entries}
        dead = [piece for piece in self.folder.glob("*.safetensors") if piece.name in self._read - alive]
        for piece in dead if delete else ():
            piece.unlink(missing_ok=True)
        if delete:
            self.entries = {key: entry for key, entry in self.entries.items() if entry.piece.name in alive}
        return len(dead)

    @contextlib.contextmanager
    def claimed(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Whether this process alone works on the piece of that name while inside; `wait` until the other one is through.

        Where the system has no such locks (Windows), two processes may do the same work, and the later piece takes the place of its equal.
        """
        try:
            import fcntl
        except ImportError:
            yield True
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True
            # whoever waits for the lock finds the work done; so does whoever makes the file anew
            Path(lock.name).unlink(missing_ok=True)


def halved(tensor: Tensor, dtype: str) -> Tensor:
    """On the processor, in the dtype of that name."""
    return tensor.detach().to("cpu", getattr(torch, dtype))
