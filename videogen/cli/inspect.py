"""`videogen inspect FILE`: what a checkpoint is, into what it loads, what is missing; or how a clip was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videogen.errors import InputError

if TYPE_CHECKING:
    from videogen.models.weights.families import Family

BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2}
SHOWN = 12  # entries of a header's metadata
WIDTH = 100  # characters of one


def inspect(
    file: Annotated[Path, typer.Argument(help="a checkpoint, a model folder, or a clip made by videogen")],
    sha: Annotated[bool, typer.Option("--hash/--no-hash", help="read the whole file for its SHA-256")] = True,
) -> None:
    """Say what FILE is: its family, into what it loads, what is missing or surplus; of a clip, its recipe."""
    from videogen.video import STILLS, WRITTEN

    numbered = file.suffix.lower() in STILLS  # as reproduce takes them: NAME.png for NAME_0001.png and so on
    if not file.exists() and not numbered:
        raise InputError(f"{file} does not exist")
    if file.suffix.lower() in (*WRITTEN, *STILLS) or (
        file.is_dir() and any(file.glob("*.png")) and not _weights_in(file)
    ):
        lines = recipe_lines(file)
    elif (file / "model_index.json").is_file():
        lines = folder_lines(file)
    else:
        lines = checkpoint_lines(file, sha=sha)
    typer.echo(str(file))
    for name, text in lines:
        typer.echo(f"  {name:<11} {text}")


def checkpoint_lines(path: Path, *, sha: bool = True) -> Iterator[tuple[str, str]]:
    """Pairs (name, text) about one checkpoint, from its header alone; only the hash reads the rest.

    Raises InputError for a file that is no checkpoint, before the first pair.
    """
    from videogen.models.weights import files
    from videogen.models.weights.families import recognise

    header = files.read_header(path)
    family = recognise(header.shapes, header.metadata)
    lines = [("what", family.title), ("loads into", family.into), ("holds", _amount(header.tensors))]
    if family.facts:
        lines.append(("facts", ", ".join(f"{name} {_plain(value)}" for name, value in family.facts.items())))
    said = _keys(header.shapes, family, header.files[0].parent)
    lines.append(("keys", said or "not checked (no rule for this family)"))
    if family.ignored:
        lines.append(("passed over", ", ".join(family.ignored)))
    entries = {name: text for name, text in header.metadata.items() if (name, text) != ("format", "pt")}
    for name, text in list(entries.items())[:SHOWN]:
        lines.append(("metadata", f"{name} = {' '.join(text.split())[:WIDTH]}"))
    if len(entries) > SHOWN:
        lines.append(("metadata", f"and {len(entries) - SHOWN} entries more"))
    if sha:
        lines.append(("sha256", files.sha256(header.files)[:16]))
    return iter(lines)


def folder_lines(folder: Path) -> Iterator[tuple[str, str]]:
    """Pairs about a model folder in diffusers' layout: its class, then each part that has weights."""
    from videogen.models.folder import read_json
    from videogen.models.weights import files
    from videogen.models.weights.families import recognise

    index = read_json(folder / "model_index.json")
    lines = [("what", f"model folder in diffusers' layout, {index.get('_class_name', 'of no named class')}")]
    lines.append(("loads into", "--model"))
    for part in sorted(path for path in folder.iterdir() if path.is_dir() and _weights_in(path)):
        header = files.read_header(part)
        family = recognise(header.shapes, header.metadata)
        said = _keys(header.shapes, family, part)
        lines.append((part.name, f"{family.title}: {_amount(header.tensors)}" + (f"; {said}" if said else "")))
    return iter(lines)


def recipe_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of a clip's recipe. Raises InputError where it carries none."""
    from videogen.video import read_recipe

    recipe = read_recipe(path).to_dict()
    lines = [("what", "a clip made by videogen; `videogen reproduce` makes it again")]
    lines += [(name, _plain(value)) for name, value in recipe.items() if value not in (None, {}, [], "")]
    return iter(lines)


def _keys(shapes: Mapping[str, tuple[int, ...]], family: Family, folder: Path) -> str | None:
    """Whether the keys are those that the family should have; of LoRA, which layers they change."""
    from videogen.models.weights.expected import verdict

    if family.part != "lora":
        said = verdict(shapes, family, folder)
        return None if said is None else str(said)

    import torch

    from videogen.adapters.lora_dialects import read_lora

    one = torch.ones(())  # one number stands for every tensor
    try:
        changes = read_lora({key: one.expand(shape) for key, shape in shapes.items()})
    except InputError as problem:
        return str(problem)
    counts = Counter(change.target for change in changes)
    return "complete; changes " + ", ".join(f"{part} {count}" for part, count in sorted(counts.items())) + " layers"


def _weights_in(folder: Path) -> bool:
    from videogen.models.weights.files import SUFFIXES

    return any(path.suffix in SUFFIXES for path in folder.iterdir())


def _amount(tensors: dict[str, tuple[tuple[int, ...], str]]) -> str:
    kinds = Counter(dtype for _, dtype in tensors.values())
    size = sum(prod(shape) * BYTES.get(dtype, 1) for shape, dtype in tensors.values())
    count = sum(prod(shape) for shape, _ in tensors.values())
    dtypes = next(iter(kinds)) if len(kinds) == 1 else ", ".join(f"{n} {dtype}" for dtype, n in kinds.most_common())
    return f"{len(tensors):,} tensors, {count:,} parameters, {size / 2**20:,.1f} MiB, {dtypes}"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return str(value)
