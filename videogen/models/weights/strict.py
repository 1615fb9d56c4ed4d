"""Names and shapes against what a network or a rule wants, and filling a network with exactly that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from videogen.errors import InputError
from videogen.models.weights import files
from videogen.models.weights.families import recognise

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Difference:
    """Names that are missing, names that are surplus, and those of another shape as (name, found, wanted).

    Truth is whether there is any; as text it is the end of a sentence, and names the first.
    """

    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.misshapen)

    def __str__(self) -> str:
        if self.missing:
            return f"lacks {self.missing[0]!r} ({len(self.missing)} missing)"
        if self.misshapen:
            name, found, wanted = self.misshapen[0]
            return f"has {found} where {wanted} is needed, at {name!r}"
        return f"has {self.surplus[0]!r}, which the model does not know ({len(self.surplus)} surplus)" if self else ""


def compare(found: Shapes, wanted: Shapes) -> Difference:
    """How the names and shapes that were found differ from those that are wanted."""
    return Difference(
        tuple(name for name in wanted if name not in found),
        tuple(name for name in found if name not in wanted),
        tuple(
            (name, tuple(found[name]), tuple(shape))
            for name, shape in wanted.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ),
    )


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path, part: str = "", looks: str | None = None
) -> None:
    """Fill a module made on the meta device (or the part of it whose names contain `part`), strictly.

    looks  what the file is, in words, where `state` is a part of it or was renamed; else its own names tell

    Raises InputError naming the first missing, surplus, misshapen or non-finite tensor, and what the file looks like.
    """
    wanted = {name: value for name, value in module.state_dict().items() if part in name}
    if difference := compare(shapes_of(state), shapes_of(wanted)):
        looks = looks or recognise(shapes_of(state)).title
        raise InputError(f"{source} does not fit its config: it {difference}; it looks like: {looks}")
    files.check_finite(state, source)
    module.load_state_dict(state, strict=not part, assign=True)
