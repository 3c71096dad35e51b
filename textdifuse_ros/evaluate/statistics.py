"""Means over images with bootstrap intervals.

An interval tells how much the mean would move with other images of the same kind. Two overlapping intervals do not
say that two methods are alike: the images are the same, so compare the differences image by image, whose interval
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
    """A mean over images, or over the objects in them, and where it may lie.

    :ivar mean: over the defined values; NaN without any
    :ivar low: lower end of the interval; NaN with fewer than two images that have defined values
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
    images: Sequence[float | Sequence[float]] | np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of a metric with its percentile bootstrap interval over images.

    Efron, Tibshirani, "An introduction to the bootstrap", 1993, chapter 13: as many images as have a defined value
    are drawn from these with replacement, ``resamples`` times over, and the interval holds the middle ``level`` of the
    means (nearest rank). An image of several values, those of its objects, is drawn with all of them: objects of one
    image are not independent. NaN is left out of the mean and counted in ``undefined``. An infinite value (PSNR of
    equal images) is a value: it makes the mean infinite.

    :param images: of each its value, or the values of its objects
    :param level: share of the means inside, in (0, 1)
    :param resamples: number of resampled sets, at least 1
    :param seed: the same values, in the same order, and seed give the same interval
    """
    given = [np.asarray(values, np.float64).reshape(-1) for values in images]
    kept = [values[~np.isnan(values)] for values in given]
    defined = sum(map(len, kept))
    undefined = sum(map(len, given)) - defined
    if not defined:
        return Interval(float("nan"), float("nan"), float("nan"), 0, undefined)
    sums = np.array([values.sum() for values in kept if len(values)])
    counts = np.array([len(values) for values in kept if len(values)])
    low, high = bootstrap_ratio(sums, counts, level=level, resamples=resamples, seed=seed)
    return Interval(float(np.concatenate(kept).mean()), low, high, defined, undefined)


def bootstrap_ratio(
    above: np.ndarray, below: np.ndarray, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The bootstrap interval over images of a ratio of sums, as :func:`bootstrap_interval` draws them.

    :param above: [N], of each image what it adds to the numerator
    :param below: [N], at least 0, and what it adds to the denominator; draws in which that is 0 do not count
    :returns: lower and upper end; NaN twice with fewer than two images, or where all denominators are 0
    """
    count = len(above)
    if count < 2 or not below.any():
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    block = max(1, _AT_ONCE // count)
    for start in range(0, resamples, block):
        part = ratios[start : start + block]
        drawn = rng.integers(0, count, (len(part), count))
        total = below[drawn].sum(1).astype(np.float64)
        part[:] = above[drawn].sum(1) / np.where(total > 0, total, np.nan)
    # Nearest rank: interpolation between two infinite means would give NaN.
    tail = (1 - level) / 2
    low, high = np.quantile(ratios[~np.isnan(ratios)], (tail, 1 - tail), method="inverted_cdf")
    return float(low), float(high)
