"""Means with bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from textdifuse_ros.evaluate.statistics import Interval, bootstrap_interval, bootstrap_ratio, signed_rank_p


def test_the_interval_matches_the_normal_distribution_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    interval = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert (interval.defined, interval.undefined) == (400, 0)


def test_the_interval_covers_the_true_mean_at_its_level() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        interval = bootstrap_interval(rng.exponential(1, 50), resamples=400)
        covered += interval.low <= 1 <= interval.high
    assert 0.88 < covered / 200 < 0.99


def test_two_values_have_three_means() -> None:
    interval = bootstrap_interval([0, 1])
    assert interval == Interval(0.5, 0, 1, 2, 0)
    # Of the means 0, 1/2, 1 (1/4, 1/2, 1/4 of them) the middle 40 % are 1/2.
    assert bootstrap_interval([0, 1], level=0.4) == Interval(0.5, 0.5, 0.5, 2, 0)


def test_a_wider_level_gives_a_wider_interval() -> None:
    values = np.random.default_rng(2).uniform(0, 1, 30)
    narrow, wide = (bootstrap_interval(values, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(3).uniform(0, 1, 30)
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)


def test_nan_is_excluded_and_counted() -> None:
    assert bootstrap_interval([1.0, math.nan, 3.0, math.nan]) == Interval(2, 1, 3, 2, 2)


def test_without_values_everything_is_nan() -> None:
    for values, undefined in (([], 0), ([math.nan] * 3, 3)):
        interval = bootstrap_interval(values)
        assert all(math.isnan(figure) for figure in (interval.mean, interval.low, interval.high))
        assert (interval.defined, interval.undefined) == (0, undefined)


def test_one_value_has_a_mean_but_no_interval() -> None:
    interval = bootstrap_interval([4.5, math.nan])
    assert interval.mean == 4.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert (interval.defined, interval.undefined) == (1, 1)


def test_images_are_resampled_with_all_of_their_objects() -> None:
    alike = [[value] * 20 for value in np.random.default_rng(5).normal(0, 1, 30)]
    images = bootstrap_interval([objects[0] for objects in alike])
    together = bootstrap_interval(alike)
    assert (together.low, together.high) == pytest.approx((images.low, images.high))
    assert (together.defined, together.mean) == (600, pytest.approx(images.mean))
    apart = bootstrap_interval(np.concatenate(alike))
    assert together.high - together.low > 3 * (apart.high - apart.low)


def test_the_mean_is_over_objects_even_if_images_have_different_numbers() -> None:
    interval = bootstrap_interval([[1.0, 1.0, 1.0], [5.0], [math.nan, math.nan]])
    assert interval == Interval(2, 1, 5, 4, 2)
    assert math.isnan(bootstrap_interval([[1.0, 2.0, 3.0]]).low), "one image gives no interval"


def test_resamples_with_a_zero_denominator_do_not_count() -> None:
    assert bootstrap_ratio(np.array([0.0, 6.0]), np.array([0.0, 3.0])) == (2, 2)
    assert all(math.isnan(end) for end in bootstrap_ratio(np.zeros(3), np.zeros(3)))


def test_equal_values_have_an_interval_of_zero_width() -> None:
    assert bootstrap_interval([0.25] * 10) == Interval(0.25, 0.25, 0.25, 10, 0)


@pytest.mark.filterwarnings("error")
def test_an_infinite_value_gives_an_infinite_mean_and_no_nan_interval() -> None:
    interval = bootstrap_interval([math.inf, *np.linspace(30, 40, 9)])
    assert interval.mean == math.inf
    assert 30 < interval.low < 40
    assert interval.high == math.inf


def test_resampling_in_blocks_does_not_change_the_interval() -> None:
    values = np.random.default_rng(4).normal(0, 1, 20_000)
    interval = bootstrap_interval(values, resamples=300)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / math.sqrt(20_000), rel=0.25)


class TestSignedRank:
    def test_it_is_that_of_scipy(self) -> None:
        stats = pytest.importorskip("scipy.stats", reason="SciPy, the independent implementation, is absent")
        rng = np.random.default_rng(3)
        for count in (1, 2, 7, 20, 50):
            values = rng.normal(0.3, 1, count)
            assert signed_rank_p(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)
        for values in (rng.normal(0.1, 1, 300), rng.integers(-4, 6, 80).astype(float)):
            expected = stats.wilcoxon(values, method="approx", correction=False).pvalue
            assert signed_rank_p(values) == pytest.approx(expected)

    def test_by_hand(self) -> None:
        assert signed_rank_p([1, 2, 3, 4, 5]) == pytest.approx(2 / 2**5), "all of one sign: one way of 32, twice"
        assert signed_rank_p([1, -2]) == 1
        assert math.isnan(signed_rank_p([0, 0, math.nan]))
        assert signed_rank_p([0, math.nan, 1, 2, 3]) == pytest.approx(signed_rank_p([1, 2, 3]))
