"""Means over images with bootstrap intervals.

An interval shows how much the mean would vary with other images of the same kind. Overlapping intervals do not mean
that two methods are equal: both fuse the same images, so compare the differences per image, for which
:func:`bootstrap_interval` gives an interval as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
_AT_ONCE = 1 << 20  # resampled values in memory


@dataclass(frozen=True)
class Interval:
    """A mean over images, or over the objects in them, with its interval.

    :ivar mean: mean of the defined values; NaN if there are none
    :ivar low: lower end of the interval; NaN if fewer than two images have defined values
    :ivar high: upper end
    :ivar defined: number of values in the mean
    :ivar undefined: number of values left out because they are NaN
    :ivar p: of a difference: see :func:`signed_rank_p`; NaN for others
    """

    mean: float
    low: float
    high: float
    defined: int
    undefined: int = 0
    p: float = math.nan


def bootstrap_interval(
    images: Sequence[float | Sequence[float]] | np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Compute the mean of a metric with its percentile bootstrap interval over images.

    Efron, Tibshirani, "An introduction to the bootstrap", 1993, chapter 13: the images with a defined value are
    resampled with replacement, ``resamples`` times, and the interval contains the central ``level`` of the means
    (nearest rank). An image with several values, those of its objects, is drawn as a whole: the objects of one image
    are not independent. NaN is left out of the mean and counted in ``undefined``. An infinite value (PSNR of equal
    images) counts and makes the mean infinite.

    :param images: the value of each image, or the values of its objects
    :param level: share of the means inside the interval, in (0, 1)
    :param resamples: number of resampled sets, at least 1
    :param seed: seed of the resampling; the same values in the same order give the same interval
    """
    values_of = [np.asarray(values, np.float64).reshape(-1) for values in images]
    kept = [values[~np.isnan(values)] for values in values_of]
    defined = sum(map(len, kept))
    undefined = sum(map(len, values_of)) - defined
    if not defined:
        return Interval(float("nan"), float("nan"), float("nan"), 0, undefined)
    sums = np.array([values.sum() for values in kept if len(values)])
    counts = np.array([len(values) for values in kept if len(values)])
    low, high = bootstrap_ratio(sums, counts, level=level, resamples=resamples, seed=seed)
    return Interval(float(np.concatenate(kept).mean()), low, high, defined, undefined)


def bootstrap_ratio(
    above: np.ndarray, below: np.ndarray, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Compute the bootstrap interval over images of a ratio of sums, see :func:`bootstrap_interval`.

    :param above: float64 [N], contribution of each image to the numerator
    :param below: float64 [N], at least 0, contribution to the denominator; draws with a denominator of 0 are ignored
    :param level: share of the ratios inside the interval, in (0, 1)
    :param resamples: number of resampled sets, at least 1
    :param seed: seed of the resampling
    :returns: lower and upper end; both NaN with fewer than two images, or if all denominators are 0
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
    return central_part(ratios, level)


def draw_images(count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Resample images for figures that are no means over images, see :func:`bootstrap_interval`.

    :param count: number of images
    :param resamples: number of resampled sets, at least 1
    :param seed: seed of the resampling
    :returns: int64 [resamples, count], how often each image is in each set
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), resamples)


def central_part(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of the central ``level`` of resampled ``values``, float64 [R]; NaN is left out.

    :param values: the figure of each resampled set
    :param level: share of the values inside, in (0, 1)
    :returns: lower and upper end; both NaN without a defined value
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    # Nearest rank: interpolating between two infinite means would give NaN.
    tail = (1 - level) / 2
    low, high = np.quantile(defined, (tail, 1 - tail), method="inverted_cdf")
    return float(low), float(high)


def signed_rank_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test: that paired differences are symmetric around zero.

    Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1, 1945. Zeros and NaN are left out; tied
    ranks are averaged. Up to 50 differences without ties the distribution is exact, otherwise normal with the variance
    corrected for ties.

    :param differences: one per image
    :returns: in (0, 1]; NaN without a difference other than zero
    """
    values = np.asarray(differences, np.float64).reshape(-1)
    values = values[~np.isnan(values) & (values != 0)]
    count = len(values)
    if not count:
        return math.nan
    _, inverse, ties = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[inverse]
    total = count * (count + 1) / 2
    smaller = min(float(ranks[values > 0].sum()), total - float(ranks[values > 0].sum()))
    if count <= 50 and len(ties) == count:
        ways = np.ones(1)  # ways to reach each sum of positive ranks
        for rank in range(1, count + 1):
            ways = np.append(ways, np.zeros(rank)) + np.append(np.zeros(rank), ways)
        return float(min(1.0, 2 * ways[: round(smaller) + 1].sum() / 2.0**count))
    variance = count * (count + 1) * (2 * count + 1) / 24 - float((ties**3 - ties).sum()) / 48
    return math.erfc((total / 2 - smaller) / math.sqrt(2 * variance))
