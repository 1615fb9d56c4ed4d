"""Whether a clip shows what its caption asks for."""

from __future__ import annotations

import itertools

from videogen.shapes.measure import MeasuredObject, Measurement
from videogen.shapes.wanted import Wanted, WantedObject

_ATTRIBUTES = ("colour", "shape", "size", "motion")


def agrees(measurement: Measurement, wanted: Wanted) -> dict[str, bool]:
    """Compare attribute by attribute; with two objects an attribute agrees where it does for both.

    Keys: "count" and "style" always; "background", "colour", "shape", "size", "motion", "relation" where the caption
    names them; "camera" where a textured background tells whether it moves; "unchanged", whether every object keeps its
    colour, shape and (where it does not grow or shrink) area, and every frame has as many as the caption.

    Measured objects are given to wanted ones so that most attributes agree. What is unknown or missing does not agree.
    """
    as_many = len(measurement.objects) == len(wanted.objects)
    result = {
        "count": as_many,
        "style": measurement.style == wanted.style,
        "unchanged": as_many and not measurement.crowded and all(item.unchanged for item in measurement.objects),
    }
    if wanted.background is not None:
        result["background"] = measurement.background == wanted.background
    if measurement.camera_still is not None:
        result["camera"] = measurement.camera_still == (wanted.camera == "none")
    order = _assigned(measurement, wanted)
    for name in _ATTRIBUTES:
        asked = [index for index, item in enumerate(wanted.objects) if getattr(item, name) is not None]
        if asked:
            result[name] = all(_same(measurement, order[index], wanted.objects[index], name) for index in asked)
    if wanted.relation is not None:
        found = [index for index in order if index is not None]
        result["relation"] = len(found) == 2 and measurement.holds(wanted.relation, *found)
    return result


def _same(measurement: Measurement, index: int | None, wanted: WantedObject, name: str) -> bool:
    return index is not None and getattr(measurement.objects[index], name) == getattr(wanted, name)


def _assigned(measurement: Measurement, wanted: Wanted) -> list[int | None]:
    """A measured object for each wanted one, None where there are too few."""
    numbers: list[int | None] = [*range(len(measurement.objects)), *[None] * len(wanted.objects)]
    return list(
        max(
            itertools.permutations(numbers, len(wanted.objects)),
            key=lambda order: sum(
                _score(measurement.objects[index], item)
                for index, item in zip(order, wanted.objects, strict=True)
                if index is not None
            ),
        )
    )


def _score(measured: MeasuredObject, wanted: WantedObject) -> float:
    """Attributes that agree, colour before the others; a little for being there at all."""
    weights = (1.5, 1.2, 1.1, 1.0)
    pairs = zip(weights, _ATTRIBUTES, strict=True)
    return 0.1 + sum(w for w, name in pairs if getattr(measured, name) == getattr(wanted, name))
