"""Thermal counts to eight bits over a stream of images, without flicker.

:mod:`.thermal` looks at one image alone: its percentiles jump with every warm thing that comes and goes, and with the
noise. Here the mapping follows the scene by exponential smoothing with a time constant, taken over the images' own
stamps, so that the same stream gives the same bytes however fast it is played.

A jump of the scene is not smoothed: where the median and a limit leave the smoothed ones by more than a share of the
present span (a cut, the offset that a flat-field correction leaves behind), or time goes back, the mapping begins anew
with that very image. The median alone jumps where half the image is sky, a limit alone with every hot thing.
A shutter's even image changes nothing: the old mapping shows it even, and takes the scene again afterwards.

What is even to the noise is not stretched: the span is 25 standard deviations of the image's own noise at least.
"""

from __future__ import annotations

import math

import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.errors import ImageError
from textdifuse_ros.image.thermal import check_finite, percentile_values, stretch

COUNTS = 65536
CELSIUS = 273.15

NOISE_SPAN = 25.0
"""Least span, in standard deviations of the noise: of noise alone 0.5 to 99.5 % span five."""
EVEN = 0.25
"""An image whose span is less than this share of the scene's, and is noise, is that of a closed shutter, unless it
stays so."""
SHUTTER_NS = 2_000_000_000
"""Longest time that a shutter is closed for [ns]."""
MOST_DEAD = 0.01
"""Share of an image's pixels that may be NaN or infinite: dead ones, which get the median of the others."""


class ThermalGain:
    """The gain of one camera; holds the smoothed mapping between its images. For one thread.

    :ivar config: may be replaced between two images; the mapping begins anew where the kind of gain changes
    """

    def __init__(self, config: SensorConfig) -> None:
        self.config = config
        self._kind = config.gain
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next image is mapped as if it were the first."""
        self._last_ns: int | None = None
        self._even_since: int | None = None
        self._limits = np.zeros(4)  # low, high, median, noise
        self._curve = np.zeros(0, np.float32)

    def apply(self, image: np.ndarray, stamp_ns: int, what: str = "the infrared image") -> np.ndarray:
        """Map one image.

        :param image: uint8, uint16 or float [H, W]; uint8 is returned as it is (its camera has a gain of its own)
        :param stamp_ns: of the image [ns]; going back begins anew
        :returns: uint8 [H, W]
        :raises ImageError: another type or shape; more than a hundredth of it NaN or infinite
        """
        if image.ndim != 2 or not image.size or image.dtype.name not in ("uint8", "uint16", "float32", "float64"):
            raise ImageError(what, "uint8, uint16 or float [H, W]", describe(image))
        if image.dtype == np.uint8:
            return image
        image = _fill_dead_pixels(image)
        check_finite(image, what)
        config = self.config
        if config.gain == "fixed":
            return self._fixed(image)
        if config.gain != self._kind:
            self._kind = config.gain
            self.reset()
        if config.gain == "plateau":
            image = self._as_counts(image)
        present = self._present(image)
        share = self._share(present, stamp_ns, self._least_span(image))
        self._limits += share * (present - self._limits)
        self._last_ns = stamp_ns
        least = self._least_span(image)
        if config.gain == "plateau":
            curve = plateau_curve(image, present[0], present[1], config.gain_plateau, least)
            if share >= 1 or not self._curve.size:
                self._curve = curve
            else:
                self._curve += np.float32(share) * (curve - self._curve)
            return (self._curve * 255.0 + 0.5).astype(np.uint8)[image]
        low, high = self._limits[:2]
        if high - low < least:
            low, high = (low + high - least) / 2, (low + high + least) / 2
        return stretch(image, float(low), float(high))

    def _least_span(self, image: np.ndarray) -> float:
        """The span that fills the 8 bits at least, in the image's unit."""
        unit = 1.0 if image.dtype == np.uint16 else self.config.kelvin_per_count
        return max(self.config.gain_least_span * unit, NOISE_SPAN * float(self._limits[3]))

    def _present(self, image: np.ndarray) -> np.ndarray:
        """Low, high, median and noise of this image alone, float64 [4]."""
        config = self.config
        shares = (0.0, 100.0) if config.gain == "minmax" else (config.gain_low_percentile, config.gain_high_percentile)
        low, high, median = percentile_values(image, (*shares, 50.0))
        if low == high:  # a small warm object before an even background
            low, high = image.min(), image.max()
        return np.array((low, high, median, estimate_noise(image)), np.float64)

    def _share(self, present: np.ndarray, stamp_ns: int, least: float) -> float:
        """How far the mapping goes towards this image's own, 0 .. 1.

        :param least: span that fills the 8 bits at least, in the image's unit
        """
        if self._last_ns is None or stamp_ns < self._last_ns or not self.config.gain_time_constant:
            self._even_since = None
            return 1.0
        span = max(self._limits[1] - self._limits[0], least)
        if present[1] - present[0] >= min(EVEN * span, least):
            self._even_since = None
        else:
            self._even_since = stamp_ns if self._even_since is None else self._even_since
            if stamp_ns - self._even_since < SHUTTER_NS:
                return 0.0
        low, high, median = np.abs(present - self._limits)[:3] > self.config.gain_cut * span
        if median and (low or high):
            return 1.0
        return 1.0 - math.exp(-(stamp_ns - self._last_ns) / 1e9 / self.config.gain_time_constant)

    def _fixed(self, image: np.ndarray) -> np.ndarray:
        config = self.config
        limits = (config.gain_fixed_low, config.gain_fixed_high)
        if image.dtype == np.uint16:
            low, high = ((limit - config.kelvin_offset) / config.kelvin_per_count for limit in limits)
        else:
            low, high = (limit - self._zero() for limit in limits)
        return stretch(image, low, high)

    def _as_counts(self, image: np.ndarray) -> np.ndarray:
        """Temperatures as the counts that the radiometric scale gives them, uint16."""
        if image.dtype == np.uint16:
            return image
        counts = (image + (self._zero() - self.config.kelvin_offset)) / self.config.kelvin_per_count
        return np.clip(np.rint(counts), 0, COUNTS - 1).astype(np.uint16)

    def _zero(self) -> float:
        """Temperature of the value 0 of a float image [K]."""
        return CELSIUS if self.config.thermal_unit == "celsius" else 0.0


def plateau_curve(image: np.ndarray, low: float, high: float, plateau: float, least_span: float) -> np.ndarray:
    """The mapping of plateau equalization: the cumulated histogram, each bin cut at a plateau.

    The plateau is ``plateau`` times what an even spread over the span would put into a bin. No count gets more contrast
    than an even stretch over ``least_span`` counts would give it.
    Vickers, "Plateau equalization algorithm for real-time display of high-quality infrared imagery", Optical
    Engineering 35(7), 1996.

    :param image: uint16 [H, W]
    :param low: count at the lower percentile
    :param high: count at the upper one
    :returns: float32 [65536] in [0, 1], not falling
    """
    histogram = np.bincount(image.reshape(-1), minlength=COUNTS).astype(np.float64)
    span, least_span = max(high - low + 1, least_span), max(least_span, 1.0)
    most = max(image.size * min(plateau / span, 1 / least_span), 1.0)
    least = most * least_span
    np.minimum(histogram, most, out=histogram)
    cumulated = np.cumsum(histogram)
    total = float(cumulated[-1])
    middle = cumulated - histogram / 2 - total / 2
    return np.clip(0.5 + middle / max(total, least), 0.0, 1.0).astype(np.float32)


def estimate_noise(image: np.ndarray) -> float:
    """Standard deviation of an image's noise, from its second differences along some rows; 0 below three columns.

    Their median is hardly touched by edges (Immerkaer, "Fast noise variance estimation", CVIU 1996, takes the mean).

    :param image: uint16 or float [H, W]
    """
    rows = image[:: max(1, len(image) // 32)].astype(np.float32)
    if rows.shape[1] < 3:
        return 0.0
    return float(np.median(np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]))) / 0.6745 / math.sqrt(6)


def _fill_dead_pixels(image: np.ndarray) -> np.ndarray:
    """The image with the median of the others in place of a few NaN or infinite pixels; with many it is as it was."""
    if image.dtype.kind != "f":
        return image
    good = np.isfinite(image)
    dead = image.size - int(np.count_nonzero(good))
    if not 0 < dead <= MOST_DEAD * image.size:
        return image
    return np.where(good, image, np.median(image[good])).astype(image.dtype)
