"""How often measuring is right and how often it gives up, on pictures of which both are known."""

import torch
from torch import Generator, Tensor

from videogen.metrics.shapes_accuracy import Row, section, table


def drawn(after: object = None) -> dict[str, Row]:
    return {row.attribute: row for row in table(6, torch.Generator().manual_seed(1), after)}  # type: ignore[arg-type]


def test_true_pictures_are_right_and_nothing_is_unknown() -> None:
    rows = drawn().values()
    assert all(row.right == row.asked and row.unknown == 0 for row in rows)
    assert {row.attribute for row in rows if not row.asked} <= {"camera", "relation"}


def test_an_object_that_is_not_found_is_unknown_and_wrong() -> None:
    def emptied(frames: Tensor, generator: Generator) -> Tensor:
        return torch.full_like(frames, 0.05)

    rows = drawn(emptied)
    for name in ("style", "colour", "shape", "size", "motion"):
        assert (rows[name].right, rows[name].unknown) == (0, rows[name].asked), name
    assert rows["background"].unknown == rows["count"].unknown == rows["unchanged"].unknown == 0


def test_a_report_says_every_attribute_of_every_way() -> None:
    right, wrong = [Row("colour", 4, 4, 0), Row("shape", 4, 3, 0)], [Row("colour", 4, 0, 4), Row("shape", 4, 1, 2)]
    text = section({"as drawn": right, "blurred": wrong}, 4, 0, "command")
    assert "| colour | 4 | 1.000 [0.510, 1.000] | 0.000 [0.000, 0.490] |" in text
    assert "| shape | 4 | 0.750 [0.301, 0.954] | 0.250 [0.046, 0.699] |" in text
