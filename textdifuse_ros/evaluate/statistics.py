"""Means over pictures with bootstrap intervals.

An interval tells how much the mean would move with other pictures of the same kind. Two overlapping intervals do not
say that two methods are alike: the pictures are the same, so compare the differences picture by picture, whose interval
:func:`bootstrap_interval` gives as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
_AT_ONCE = 1 << 20  # resampled values held at a time


@dataclass(frozen=True)
class Interval:
    """A mean over pictures and where it may lie.

    :ivar mean: over the defined values; NaN without any
    :ivar low: lower end of the interval; NaN with fewer than two defined values
    :ivar high: upper end
    :ivar defined: number of values that went into the mean
    :ivar undefined: number of values that were NaN and did not
    """

    mean: float
    low: float
    high: float
    defined: int
    undefined: int = 0


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean of a metric over pictures, with its percentile bootstrap interval.

    Efron, Tibshirani, "An introduction to the bootstrap", 1993, chapter 13: as many values as are defined are drawn
    from them with replacement, ``resamples`` times over, and the interval holds the middle ``level`` of the means
    (nearest rank). NaN is left out of the mean and counted in ``undefined``. An infinite value (PSNR of equal pictures)
    is a value: it makes the mean infinite.

    :param values: one for each picture
    :param level: share of the means inside, in (0, 1)
    :param resamples: number of resampled sets, at least 1
    :param seed: the same values, in the same order, and seed give the same interval
    """
    given = np.asarray(values, np.float64).reshape(-1)
    kept = given[~np.isnan(given)]
    count, undefined = len(kept), len(given) - len(kept)
    if not count:
        return Interval(float("nan"), float("nan"), float("nan"), 0, undefined)
    mean = float(kept.mean())
    if count == 1:
        return Interval(mean, float("nan"), float("nan"), 1, undefined)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, _AT_ONCE // count)
    for start in range(0, resamples, block):
        part = means[start : start + block]
        part[:] = kept[rng.integers(0, count, (len(part), count))].mean(1)
    # Nearest rank: interpolation between two infinite means would give NaN.
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail), method="inverted_cdf")
    return Interval(mean, float(low), float(high), count, undefined)
