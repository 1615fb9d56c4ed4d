"""Wilson's interval against published values, its defining equation, and the coverage it promises."""

import math

import pytest

from videogen.metrics.shares import Share, Z, wilson


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_values_of_newcombe_1998(hits: int, of: int, low: float, high: float) -> None:
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3."""
    assert wilson(hits, of) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("hits", "of"), [(0, 7), (3, 7), (7, 7), (450, 512)])
def test_ends_solve_the_equation_of_the_score_test(hits: int, of: int) -> None:
    for p in wilson(hits, of):
        assert abs(hits / of - p) == pytest.approx(Z * math.sqrt(p * (1 - p) / of), abs=1e-12)


def test_failures_mirror_hits() -> None:
    low, high = wilson(31, 40)
    assert wilson(9, 40) == pytest.approx((1 - high, 1 - low))


def test_it_holds_the_true_probability_95_times_in_100() -> None:
    """Exact coverage by the binomial distribution, averaged over p: Agresti and Coull 1998 give 0.953 for 30 trials."""
    of, grid = 30, [(i + 0.5) / 200 for i in range(200)]
    ends = [wilson(hits, of) for hits in range(of + 1)]
    covered = [
        sum(math.comb(of, h) * p**h * (1 - p) ** (of - h) for h, (low, high) in enumerate(ends) if low <= p <= high)
        for p in grid
    ]
    assert sum(covered) / len(grid) == pytest.approx(0.95, abs=0.01)


def test_without_trials_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert Share(0, 0).to_dict() == {"right": 0, "of": 0, "share": None, "low": 0.0, "high": 1.0, "unknown": None}


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="4 hits in 3 trials"):
        wilson(4, 3)
