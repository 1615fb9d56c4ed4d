"""What is drawn where: windows, sizes, the order of clips; all functions of an address."""

from collections import Counter
from fractions import Fraction
from itertools import islice
from math import factorial
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videogen.data.chance import KEPT, SMALL, before, permuted, turns, uniform
from videogen.data.fitting import Fit, fitted, nearest
from videogen.data.plan import Bucket, Plan, Pool, Shape
from videogen.data.settings import Data
from videogen.data.windows import Extent, frames_for, possible, spread, starts, window
from videogen.errors import InputError


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000, SMALL, SMALL + 1])
def test_a_permutation_is_one_and_differs_by_address(count: int) -> None:
    order = [permuted(i, count, 0, "order") for i in range(count)]
    assert sorted(order) == list(range(count))
    if count >= 64:
        assert order != [permuted(i, count, 1, "order") for i in range(count)]
        assert order != list(range(count))


@pytest.mark.parametrize("count", [4, 5])
def test_all_orders_of_a_small_pool_are_equally_likely(count: int) -> None:
    """Pearson's chi-square, whose mean is the number of orders less one, and whose variance is twice that."""
    rounds, orders = 50 * factorial(count), factorial(count)
    seen = Counter(tuple(permuted(i, count, 0, "order", round_) for i in range(count)) for round_ in range(rounds))
    assert len(seen) == orders
    chi = sum((times - rounds / orders) ** 2 / (rounds / orders) for times in seen.values())
    assert chi < orders - 1 + 4 * np.sqrt(2 * (orders - 1))


def test_places_may_be_asked_for_in_any_order() -> None:
    """Permutations that are kept from one call to the next, and those that were forgotten, are the same."""
    asked = [(place, round_) for round_ in range(2 * KEPT) for place in range(6)]
    told = {(place, round_): permuted(place, 6, 0, round_) for place, round_ in asked}
    Random(0).shuffle(asked)
    assert told == {(place, round_): permuted(place, 6, 0, round_) for place, round_ in asked}


def test_neighbours_are_scattered() -> None:
    """The mean distance of neighbours in a random order of n is (n + 1) / 3; a fifth of that is many standard errors away."""
    order = np.array([permuted(i, 10_000, 0) for i in range(2000)])
    assert abs(np.abs(np.diff(order)).mean() / (10_001 / 3) - 1) < 0.1


def test_uniform_numbers_are_uniform_and_belong_to_their_address() -> None:
    drawn = np.array([uniform(3, step, "x") for step in range(4000)])
    assert abs(np.mean(drawn) - 0.5) < 5 / np.sqrt(12 * 4000)
    assert abs(np.mean(drawn**2) - 1 / 3) < 5 * np.sqrt(4 / 45 / 4000)
    assert uniform(3, 1, "x") == uniform(3, 1, "x") != uniform(3, 11, "x")


@pytest.mark.parametrize("start", [0, 1, 777, 65_536, 70_000])
def test_turns_from_a_late_start_are_those_of_an_early_one(start: int) -> None:
    weights = (0.5, 2.0, 1.0)
    drawn = list(islice(turns(weights, 0, 7, "t"), 70_050))
    assert list(islice(turns(weights, start, 7, "t"), 40)) == drawn[start : start + 40]
    counts = Counter(which for which, _ in drawn[:start])
    assert before(weights, start, 7, "t") == [counts[k] for k in range(3)]


def test_turns_keep_to_their_weights() -> None:
    drawn = Counter(which for which, _ in islice(turns((1.0, 3.0), 0, 0, "t"), 20_000))
    assert abs(drawn[1] / 20_000 - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 20_000)


def data(**values: Any) -> Data:
    return Data.model_validate({"sources": [{"layout": "pairs", "folder": "x"}]} | values)


def test_windows() -> None:
    ten = Extent(100, Fraction(10))
    strided = data(frames=4, stride=3)
    assert list(starts(strided, ten, 4)) == list(range(91))
    assert window(strided, ten, 4, 90) == [90, 93, 96, 99]
    assert window(data(frames=4, stride=3, window="head"), ten, 4, 0) == [0, 3, 6, 9]
    assert window(data(frames=4, window="uniform"), ten, 4, 0) == [0, 33, 66, 99]
    every = data(frames=4, stride=3, window="all")
    covered = [window(every, ten, 4, which) for which in range(len(starts(every, ten, 4)))]
    assert covered == [[10 * k, 10 * k + 3, 10 * k + 6, 10 * k + 9] for k in range(10)]
    few = data(frames=4, stride=3, starts=4)
    assert list(starts(few, ten, 4)) == [0, 30, 60, 90]
    assert possible(few, ten, 4) == sorted(s + k for s in (0, 30, 60, 90) for k in (0, 3, 6, 9))
    assert possible(strided, ten, 4) == list(range(100))


@pytest.mark.parametrize(("rate", "numbers"), [(30, [0, 3, 7, 11, 15]), (8, [0, 1, 2, 3, 4]), (4, [0, 0, 1, 1, 2])])
def test_a_wanted_rate_takes_the_latest_frame_at_each_instant(rate: int, numbers: list[int]) -> None:
    assert window(data(frames=5, fps=8, window="head"), Extent(100, Fraction(rate)), 5, 0) == numbers


def test_short_clips_are_spread_or_rejected_and_too_short_ones_always() -> None:
    short = Extent(10, Fraction(10))
    assert window(data(frames=4), short, 4, 0) == [0, 3, 6, 9]  # as numpy's linspace in the authors' script
    assert [int(x) for x in np.linspace(0, 9, 4)] == spread(4, 10)
    with pytest.raises(InputError, match="it has 10 frames, 13 are needed"):
        frames_for(data(frames=4, short="reject"), short)
    with pytest.raises(InputError, match="it has 1 frame, 16 are needed"):
        frames_for(data(), Extent(1, Fraction(1)))
    several = data(frames=[1, 4, 16])
    assert [frames_for(several, Extent(n, Fraction(10))) for n in (1, 2, 13, 60, 61)] == [1, 1, 4, 4, 16]


def test_a_fit_covers_and_keeps_the_aspect() -> None:
    assert Fit(256, 256).scaled(1280, 720) == (455, 256)
    assert Fit(256, 256).corner(455, 256) == (100, 0)
    assert Fit(256, 256, x=1.0).corner(455, 256) == (199, 0)
    ramp = np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], (50, 100, 3))
    np.testing.assert_array_equal(fitted(Image.fromarray(ramp), Fit(50, 50)), ramp[:, 25:75])


def test_the_nearest_bucket_is_by_aspect() -> None:
    sizes = [(256, 256), (320, 192), (192, 320), (512, 512)]
    assert nearest(sizes, 1280, 720) == (320, 192)
    assert nearest(sizes, 720, 1280) == (192, 320)
    assert nearest(sizes, 400, 390) == (256, 256)
    assert nearest(sizes, 1000, 1000) == (512, 512)


def plan() -> Plan:
    def pool(source: int, count: int, weight: float) -> Pool:
        return Pool(source, np.arange(count), np.full(count, -1), weight)

    wide, high = Shape(16, 320, 192), Shape(16, 192, 320)
    return Plan((Bucket(wide, (pool(0, 30, 1.0), pool(1, 5, 3.0))), Bucket(high, (pool(0, 8, 0.5),))))


def test_a_batch_is_of_one_bucket_and_a_pool_is_gone_through_before_it_begins_anew() -> None:
    steps = list(islice(plan().steps(0, 4), 200))
    assert all(len({item.shape for item in step}) == 1 for step in steps)
    drawn: dict[tuple[int, Shape], list[int]] = {}
    for step in steps:
        for item in step:
            drawn.setdefault((item.source, item.shape), []).append(item.row)
    for (source, shape), rows in drawn.items():
        size = {(0, 320): 30, (1, 320): 5, (0, 192): 8}[source, shape.width]
        for start in range(0, len(rows) - size, size):
            assert sorted(rows[start : start + size]) == list(range(size))
    assert drawn[1, Shape(16, 320, 192)][:5] != drawn[1, Shape(16, 320, 192)][5:10]


def test_sources_are_drawn_by_their_weights() -> None:
    count = Counter((item.source, item.shape.width) for step in islice(plan().steps(1, 4), 2000) for item in step)
    for which, share in {(0, 320): 1 / 4.5, (1, 320): 3 / 4.5, (0, 192): 0.5 / 4.5}.items():
        assert abs(count[which] / 8000 - share) < 5 * np.sqrt(
            share * (1 - share) / 2000
        )  # steps, not clips, are independent


def test_the_order_from_a_step_on_is_that_of_the_whole() -> None:
    whole = list(islice(plan().steps(5, 3), 60))
    for start in (1, 17, 40):
        assert list(islice(plan().steps(5, 3, start), 10)) == whole[start : start + 10]
