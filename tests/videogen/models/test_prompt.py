"""The prompt notation means what the web interfaces mean by it."""

import pytest

from videogen.models.prompt import Prompt, parse, plain


def pieces(source: str) -> list[list[tuple[str, float]]]:
    return [[(p.text, p.weight) for p in section] for section in parse(source).sections]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a red circle", [("a red circle", 1.0)]),
        ("a (red) circle", [("a ", 1.0), ("red", 1.1), (" circle", 1.0)]),
        ("a [red] circle", [("a ", 1.0), ("red", 0.909091), (" circle", 1.0)]),
        ("a (red:1.3) circle", [("a ", 1.0), ("red", 1.3), (" circle", 1.0)]),
        ("((red))", [("red", 1.21)]),
        ("(a (red:1.5) one:2)", [("a ", 2.0), ("red", 3.0), (" one", 2.0)]),
        ("[(x)]", [("x", 1.0)]),
        ("(x: 0.5 )(y:-1)", [("x", 0.5), ("y", -1.0)]),
        (r"a \(red\) \[one\] \\ \n", [(r"a (red) [one] \ \n", 1.0)]),
        (r"(x\):2)", [("x)", 2.0)]),
        ("smile :) and a ] too", [("smile :) and a ] too", 1.0)]),
        ("12:30) late", [("12:30) late", 1.0)]),
        ("half (open", [("half ", 1.0), ("open", 1.1)]),
        ("(1.2.3:1.2.3)", [("1.2.3:1.2.3", 1.1)]),
        ("", []),
        ("()", []),
    ],
)
def test_weights(source: str, expected: list[tuple[str, float]]) -> None:
    assert pieces(source) == [expected]


def test_break_starts_a_section_and_weights_reach_over_it() -> None:
    assert pieces("a BREAK b") == [[("a", 1.0)], [("b", 1.0)]]
    assert pieces("(a BREAK b:2)") == [[("a", 2.0)], [("b", 2.0)]]
    assert pieces("a BREAKFAST") == [[("a BREAKFAST", 1.0)]]


def test_pieces_lie_where_they_say_in_the_text() -> None:
    prompt = parse(r"a (red:1.3) [big] \(circle\) BREAK ((on)) black")
    assert prompt.text == "a red big (circle) on black"
    for section in prompt.sections:
        for piece in section:
            assert prompt.text[piece.start : piece.start + len(piece.text)] == piece.text


def test_plain_takes_brackets_literally() -> None:
    assert plain("a (red:1.3) BREAK") == Prompt("a (red:1.3) BREAK", (plain("a (red:1.3) BREAK").sections[0],))
    assert [p.weight for p in plain("((x))").sections[0]] == [1.0]
