"""LoRA merged into weights: W = W0 + sum over files of weight * delta (Hu et al. 2021, equation 3), with an exact way
back.

`Loras.add` merges a file into the parts of a model. W0 of every touched weight is kept, and W
is always computed from W0, files in the order of their names: so the order of loading does not matter, and taking a
file out again restores the weights bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from videogen.adapters.lora_dialects import fits, is_peft, lacks_alpha, read_lora
from videogen.adapters.low_rank import Change
from videogen.errors import InputError, reason
from videogen.models.weights import files
from videogen.models.weights.families import Family, recognise

Source = str | Path | Mapping[str, Tensor]


@dataclass(frozen=True)
class _Entry:
    changes: dict[tuple[str, str], tuple[Change, ...]]  # by part and parameter name
    weight: float
    line: str


class Loras:
    """The LoRA files merged into a set of parts.

    parts: "unet" (with its motion modules), "text_encoder", "text_encoder_2" -> module. Keeps a copy of every touched
    weight until nothing touches it any more, or `fuse` is called.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        self._parameters = {part: dict(module.named_parameters()) for part, module in parts.items()}
        self._originals: dict[tuple[str, str], Tensor] = {}
        self._entries: dict[str, _Entry] = {}

    @property
    def weights(self) -> dict[str, float]:
        """Name -> strength of every file that is in."""
        return {name: entry.weight for name, entry in self._entries.items()}

    @property
    def lines(self) -> tuple[str, ...]:
        """One line per file: what it is and what it changes."""
        return tuple(entry.line for entry in self._entries.values())

    def add(self, source: Source, weight: float = 1.0, name: str | None = None) -> str:
        """Merge a LoRA file (any dialect, or a state dict) at a strength; the weights change together or not at all.

        Returns its name: `name`, or the file's. Raises InputError for a file that is no LoRA or does not fit the parts
        (naming the first key that hits nothing), and for a name that is taken.
        """
        state, adapter, metadata, stem = _opened(source)
        name = name or stem
        if name in self._entries:
            raise InputError(f"a LoRA of the name {name!r} is already in; remove it first, or give another name")
        family = recognise({key: tensor.shape for key, tensor in state.items()})
        base = family.facts.get("base")
        looks = f"this looks like: {family.title}" + (f", for {base}" if base else "")
        changes: dict[tuple[str, str], tuple[Change, ...]] = {}
        passed = 0
        read = read_lora(state, adapter, metadata)
        for change in read:
            place = self._place(change, looks)
            if place is None:
                passed += 1
                continue
            changes[place] = (*changes.get(place, ()), change)
        note = "; alpha is not in the file and was taken as the rank" if lacks_alpha(state, adapter, metadata) else ""
        files.check_finite(state, source if isinstance(source, (str, Path)) else "the LoRA")
        self._entries[name] = _Entry(changes, weight, _line(name, family, _ranks(read), changes, passed) + note)
        self._update(changes)
        return name

    def set_weight(self, name: str, weight: float) -> None:
        """Change a file's strength; 0 gives the weights without it, bit for bit."""
        entry = self._entry(name)
        self._entries[name] = _Entry(entry.changes, weight, entry.line)
        self._update(entry.changes)

    def remove(self, name: str) -> None:
        """Take a file out again."""
        entry = self._entry(name)
        del self._entries[name]
        self._update(entry.changes)

    def fuse(self) -> None:
        """Make the present weights the original ones, and free the copies; nothing can be taken out afterwards."""
        self._originals.clear()
        self._entries.clear()

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            known = ", ".join(self._entries) or "none"
            raise InputError(f"there is no LoRA of the name {name!r}; those that are in: {known}")
        return self._entries[name]

    def _place(self, change: Change, looks: str) -> tuple[str, str] | None:
        """Part and parameter that a change belongs to; None for the middle module's part of a MotionLoRA where the
        model has none.
        """
        part = "unet" if change.target == "motion" else change.target
        if part not in self._parameters:
            raise InputError(f"the LoRA changes {part}, which this model does not have; {looks}")
        parameters = self._parameters[part]
        name = f"{change.module}.weight"
        # transformers 5 spells CLIPTextModel without the prefix that files have
        found = next((n for n in (name, name.removeprefix("text_model.")) if n in parameters), None)
        if found is None and change.target == "motion":
            modules = [n for n in parameters if ".motion_modules." in n]
            if not modules:
                raise InputError("the LoRA changes motion modules, and this model has none; load them first (--motion)")
            if change.module.startswith("mid_block.") and not any(n.startswith("mid_block.") for n in modules):
                return None
        if found is None:
            raise InputError(f"the LoRA changes {change.module}, which the {part} does not have; {looks}")
        try:
            change.to("meta").delta(parameters[found].shape)
        except (ValueError, RuntimeError) as problem:
            raise InputError(
                f"the LoRA does not fit {change.module} of this {part} ({reason(problem)}); {looks}"
            ) from None
        return part, found

    @torch.no_grad()
    def _update(self, places: Mapping[tuple[str, str], object]) -> None:
        entries = [entry for _, entry in sorted(self._entries.items())]
        for place in places:
            parameter = self._parameters[place[0]][place[1]]
            using = [entry for entry in entries if place in entry.changes]
            if place not in self._originals:  # in main memory: a GPU may have no room for both
                self._originals[place] = parameter.detach().to("cpu", copy=True)
            original = self._originals[place]
            total = original.to(parameter.device, torch.float32)
            active = [entry for entry in using if entry.weight != 0]
            for entry in active:
                for change in entry.changes[place]:
                    total = total + entry.weight * change.to(parameter.device).delta(parameter.shape)
            parameter.copy_(total if active else original)
            if not using:
                del self._originals[place]


def _opened(source: Source) -> tuple[dict[str, Tensor], dict[str, object] | None, dict[str, str], str]:
    if isinstance(source, Mapping):
        return dict(source), None, {}, "lora"
    path = Path(source)
    state = files.read(path)
    file = files.locate(path)[0]
    metadata = files.read_safetensors_header(file)[1] if file.suffix == ".safetensors" else {}
    return state, _adapter(file, state), metadata, path.stem


def _adapter(file: Path, state: Mapping[str, Tensor]) -> dict[str, object] | None:
    """The `adapter_config.json` beside a peft file. Under a name that people gave, it may lie beside another file's."""
    config = file.parent / "adapter_config.json"
    own = file.name.startswith("adapter_model")
    if not config.is_file() or not (own or is_peft(state)):
        return None
    from videogen.models.folder import read_json

    adapter = read_json(config)
    return adapter if own or fits(adapter, state) else None


def _ranks(changes: Iterable[Change]) -> str:
    """One rank, or the lowest and highest; Kronecker factors may be full and have none."""
    ranks = {change.rank for change in changes}
    low, high = min(ranks - {0}, default=0), max(ranks, default=0)
    span = f"{low}" if low == high else f"{low} to {high}"
    return "full" if not high else f"{span} and full" if 0 in ranks else span


def _line(name: str, family: Family, ranks: str, changes: Mapping[tuple[str, str], object], passed: int) -> str:
    counts = Counter(part for part, _ in changes)
    where = ", ".join(f"{part} {count}" for part, count in sorted(counts.items()))
    left = f"; {passed} changes of a middle module that this model has not" if passed else ""
    return f"{name}: {family.title}, rank {ranks}, changes {where} layers{left}"
