"""How a clip was made: enough to make it again, kept in the file's own metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from videogen.errors import InputError
from videogen.models.weights import files

LIBRARIES = ("videogen", "torch", "diffusers", "transformers", "numpy", "av")
MOST_THREADS = 1 << 16
HASHED = (*files.SUFFIXES, ".json", ".txt", ".model")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a clip depends on. Every value is JSON's (numbers, texts, lists, mappings with text keys).

    command    the command or method, "generate" say
    prompt     the text, or texts by frame with the frame numbers as keys
    negative   what guidance moves away from; None where none was given
    seed       one seed, or one per item
    frames, height, width, fps   of the clip; fps as an exact fraction, "30000/1001"
    sampler, steps, guidance     how it was sampled
    models     part -> {"source": what the user named, "sha256": `hash_path` of it}
    options    every other option that was set
    versions   library -> version, the system and processor too
    threads    torch's number of threads; on a processor sums depend on it
    device     "cpu", "cuda", and the dtype: "cpu float32"
    """

    command: str
    prompt: str | Mapping[str, str]
    seed: int | list[int]
    frames: int
    height: int
    width: int
    fps: str
    sampler: str
    steps: int
    guidance: float
    negative: str | None = None
    models: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    threads: int = 0
    device: str = "cpu float32"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_json(self) -> str:
        """One line of ASCII JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from `Recipe.to_dict`. Fields of a later version are kept among the options; a missing one raises
    InputError.
    """
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    unset = dataclasses.MISSING
    missing = [n for n, f in fields.items() if f.default is unset and f.default_factory is unset and n not in values]
    if missing:
        raise InputError(f"this is no complete recipe: it lacks {missing[0]!r}")
    known = {name: value for name, value in values.items() if name in fields}
    later = {name: value for name, value in values.items() if name not in fields}
    return Recipe(**{**known, "options": {**known.get("options", {}), **later}})


def from_json(text: str) -> Recipe:
    """A recipe from `Recipe.to_json`. Raises InputError for anything else."""
    try:
        values = json.loads(text)
    except ValueError as problem:
        raise InputError(f"this is no recipe: {problem}") from problem
    if not isinstance(values, dict):
        raise InputError("this is no recipe: it is no JSON object")
    return from_dict(values)


def checked(made: Recipe) -> Recipe:
    """The same recipe. Raises InputError where somebody has changed a value to one that it cannot hold."""
    kinds = typing.get_type_hints(Recipe)
    for name in kinds:
        check_kind(kinds[name], getattr(made, name), name)
    if not 0 <= made.threads <= MOST_THREADS:
        raise InputError(f"the recipe in this file is damaged (threads: {made.threads})")
    return made


def check_kind(kind: Any, value: object, name: str) -> None:
    """Raise InputError where a value, which a recipe has under that name, is not of a type."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as problem:
        raise InputError(f"the recipe in this file is damaged ({name}: {problem.errors()[0]['msg']})") from None


def versions() -> dict[str, str]:
    """The versions of what a result depends on: libraries, Python, system and processor."""
    found = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.backends.cpu.get_cpu_capability():
        found["cpu"] = torch.backends.cpu.get_cpu_capability()
    return found


def hash_path(path: str | os.PathLike[str]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over a file, or over a model folder's weights, configs and
    vocabularies.

    In a folder names count too, so that exchanged parts differ; what lies beside a model (pictures, cards) does not
    count, nor its advice, which a recipe has in its own numbers.
    """
    path = Path(path)
    if path.is_file():
        return files.sha256([path])[:16]
    if not path.is_dir():
        raise InputError(f"{path} does not exist")
    inside = {file.relative_to(path): file for file in path.rglob("*") if file.suffix in HASHED and file.is_file()}
    inside.pop(Path(files.ADVICE), None)
    return hash_files({n.as_posix(): f for n, f in inside.items() if not any(p.startswith(".") for p in n.parts)})


def hash_files(named: Mapping[str, Path]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over names and contents, in the order of the names."""
    whole = hashlib.sha256()
    for name in sorted(named):
        whole.update(f"{name}\0{files.sha256([named[name]])}\n".encode())
    return whole.hexdigest()[:16]
