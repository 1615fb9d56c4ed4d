"""Paired intervals against published values, their laws, and the coverage they promise."""

import math
import random

import pytest

from videogen.metrics.paired import difference_of_shares, mean, ratio_of_means, student
from videogen.metrics.shares import Z, wilson


def answers(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two lists of answers from the four counts."""
    pairs = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_student_against_the_tables() -> None:
    """Abramowitz and Stegun 1964, table 26.10, two-sided 95 %."""
    table = {1: 12.706, 2: 4.303, 3: 3.182, 7: 2.365, 11: 2.201, 23: 2.069, 63: 1.998}
    assert {n: round(student(n), 3) for n in table} == table
    assert student(4000) == pytest.approx(Z, abs=1e-3)


def test_a_mean_lies_in_the_middle_of_its_interval() -> None:
    found = mean([1.0, 2.0, 3.0, 6.0])
    spread = math.sqrt(14 / 3) / 2
    assert (found.value, found.of) == (3.0, 4)
    assert (found.low, found.high) == pytest.approx((3 - student(3) * spread, 3 + student(3) * spread))
    assert mean([2.0]).to_dict() == {"value": 2.0, "low": None, "high": None, "of": 1}
    assert mean([]).to_dict() == {"value": None, "low": None, "high": None, "of": 0}


def test_against_an_answer_that_never_varies_the_interval_joins_two_wilson_intervals() -> None:
    first, second = answers(0, 15, 0, 9)
    found, (low, high) = difference_of_shares(first, second), wilson(15, 24)
    top = wilson(0, 24)[1]
    assert found.value == 15 / 24
    assert found.low == pytest.approx(15 / 24 - math.hypot(15 / 24 - low, top))
    assert found.high == pytest.approx(high)


def test_exchanging_the_two_mirrors_the_interval_and_equal_answers_differ_by_nothing() -> None:
    first, second = answers(20, 7, 2, 11)
    there, back = difference_of_shares(first, second), difference_of_shares(second, first)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    same = difference_of_shares(first, first)
    assert same.value == 0
    assert same.low <= 0 <= same.high


def test_pairing_makes_the_interval_narrower() -> None:
    paired = difference_of_shares(*answers(30, 6, 1, 27))
    crossed = difference_of_shares(*answers(17, 19, 14, 14))
    assert paired.value == crossed.value
    assert paired.high - paired.low < crossed.high - crossed.low


def test_it_holds_the_true_difference_95_times_in_100() -> None:
    """Newcombe 1998 finds a mean coverage of 0.952 for method 10; 3,000 draws tell a hundredth."""
    draw, held, rounds = random.Random(3), 0, 3000
    for _ in range(rounds):
        weights = [draw.random() for _ in range(4)]
        chances = [w / sum(weights) for w in weights]
        counts = [0] * 4
        for cell in draw.choices(range(4), chances, k=24):
            counts[cell] += 1
        found = difference_of_shares(*answers(*counts))
        held += found.low <= chances[1] - chances[2] <= found.high
    assert held / rounds == pytest.approx(0.95, abs=0.012)


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="3 clips against 2"):
        difference_of_shares([True] * 3, [True] * 2)
    assert difference_of_shares([], []).to_dict()["value"] is None


def test_a_ratio_that_is_always_the_same_has_no_spread_and_one_over_what_may_be_nothing_has_no_end() -> None:
    second = [18.0, 22.0, 25.0, 19.0]
    found = ratio_of_means([value / 2 for value in second], second)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert ratio_of_means([1.0, 2.0, 3.0], [-1.0, 0.5, 1.0]).high == math.inf
    assert math.isnan(ratio_of_means([], []).value)


def test_the_ends_of_a_ratio_are_those_at_which_the_mean_of_the_difference_may_be_nothing() -> None:
    """Fieller's own definition."""
    first, second = [9.0, 12.0, 11.0, 7.0, 10.0], [18.0, 22.0, 25.0, 19.0, 17.0]
    found = ratio_of_means(first, second)
    assert found.low < found.value < found.high
    for end in (found.low, found.high):
        rest = mean([a - end * b for a, b in zip(first, second)])
        assert min(abs(rest.low), abs(rest.high)) == pytest.approx(0, abs=1e-9)
