"""What a wrong key of a configuration should have been: the keys of a model at an address, through lists and unions."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

Part = str | int


def advice(model: type[BaseModel], location: Sequence[Part], foreign: Mapping[str, str] | None = None) -> str:
    """A key that does not exist, by its address, and the nearest one that does (or all that do) at the same place.

    foreign  names that people know from elsewhere, and what each means here; one that is plainly meant is told with its meaning
    """
    foreign = foreign or {}
    written, found = walk(model, location[:-1])
    last = str(location[-1])
    wrong = ".".join([*written, last])
    known = list(dict.fromkeys(name for inner in models(found) for name in fields(inner)))
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.4)
    meant = difflib.get_close_matches(last, [*near, *foreign], n=1, cutoff=0.8)
    if meant and meant != near:
        return f"{wrong}; did you mean {meant[0]}? {foreign[meant[0]]}"
    if near:
        return f"{wrong}; did you mean {'.'.join([*written, near[0]])}?"
    return f"{wrong}; known are {', '.join(known)}" if known else f"{wrong}; there are no keys at that place"


def address(model: type[BaseModel], location: Sequence[Part]) -> str:
    """Where a validation error is, as a user writes it: without the names that pydantic gives to the members of a union."""
    return ".".join(walk(model, location)[0])


def fields(model: type[BaseModel]) -> Mapping[str, Any]:
    """The types of a model's keys, by the names under which they are written."""
    return {field.alias or name: _plain(field.annotation) for name, field in model.model_fields.items()}


def walk(kind: Any, location: Sequence[Part]) -> tuple[list[str], Any]:
    """The parts of a pydantic location that were written, and the type that stands there (Any beyond what is known)."""
    written: list[str] = []
    kind = _plain(kind)
    for part in location:
        inner = _inside(kind, part)
        if inner is None:  # the name of a union's member
            kind = _member(kind, str(part))
        else:
            written.append(str(part))
            kind = inner
    return written, kind


def _inside(kind: Any, part: Part) -> Any:
    """The type under a key or an index; None where `part` is no such thing, but the name of a union's member."""
    members = _members(kind)
    for member in members:
        if isinstance(part, int) and get_origin(member) in (list, tuple):
            return _plain(get_args(member)[0 if Ellipsis in get_args(member) or get_origin(member) is list else part])
        if isinstance(part, str) and get_origin(member) is dict:
            return _plain(get_args(member)[1])
        if isinstance(member, type) and issubclass(member, BaseModel) and str(part) in fields(member):
            return fields(member)[str(part)]
    return None if len(members) > 1 else Any


def _member(kind: Any, name: str) -> Any:
    """The member of a union that pydantic calls `name`: by its class, or by the value that tells it from the others."""
    for member in models(kind):
        tags = [tag for inner in fields(member).values() if get_origin(inner) is Literal for tag in get_args(inner)]
        if name == member.__name__ or name in tags:
            return member
    return kind


def models(kind: Any) -> Iterator[type[BaseModel]]:
    """The models that a type allows."""
    return (member for member in _members(kind) if isinstance(member, type) and issubclass(member, BaseModel))


def _members(kind: Any) -> list[Any]:
    if get_origin(kind) in (Union, types.UnionType):
        return [member for one in get_args(kind) for member in _members(_plain(one))]
    return [kind]


def _plain(kind: Any) -> Any:
    return _plain(get_args(kind)[0]) if get_origin(kind) is Annotated else kind
