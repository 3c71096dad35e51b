"""Flicker-free conversion of a stream of thermal images to 8 bits.

:mod:`.thermal` maps each image on its own: its percentiles jump with noise and with every warm object that appears.
Here the mapping is smoothed exponentially over the images' stamps, so that the same stream gives the same bytes at
any playback speed.

The mapping is reset, not smoothed, when the scene changes abruptly: the median and one limit jump by more than a share
of the span (a cut, or the offset after a flat-field correction), or time goes back. The median alone also jumps if half
the image is sky, a limit alone with every hot object. The uniform image of a closed shutter leaves the mapping
unchanged.

Noise is not stretched: the span is at least 25 standard deviations of the image's noise. Pixels without a value
(:mod:`.validity`) take no part in any of this.
"""

from __future__ import annotations

import math

import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.errors import ImageError
from textdifuse_ros.image.thermal import check_finite_image, percentile_values, stretch
from textdifuse_ros.image.validity import extend

COUNTS = 65536
CELSIUS = 273.15

NOISE_SPAN = 25.0
"""Minimum span, in standard deviations of the noise (0.5 to 99.5 % of pure noise span five)."""
UNIFORM_SPAN = 0.25
"""An image of pure noise with less than this share of the scene's span shows a closed shutter."""
SHUTTER_NS = 2_000_000_000
"""Maximum time that a shutter stays closed [ns]; a uniform image that persists is the scene."""


class ThermalGain:
    """Maps the thermal images of one camera to 8 bits, with a mapping smoothed over time. Not thread-safe.

    :param config: parameters; may be replaced between two images, and a change of ``config.gain`` resets the mapping
    """

    def __init__(self, config: SensorConfig) -> None:
        self.config = config
        self._kind = config.gain
        self.reset()

    def reset(self) -> None:
        """Discard the smoothed mapping: the next image is mapped like the first one."""
        self._last_ns: int | None = None
        self._uniform_since: int | None = None
        self._limits = np.zeros(4)  # low, high, median, noise
        self._curve = np.zeros(0, np.float32)

    def apply(
        self, image: np.ndarray, stamp_ns: int, what: str = "the infrared image", valid: np.ndarray | None = None
    ) -> np.ndarray:
        """Map one image to 8 bits.

        :param image: uint8, uint16 or float [H, W]; uint8 is returned unchanged (its camera applies a gain itself)
        :param stamp_ns: stamp of the image [ns]; going back in time resets the mapping
        :param what: name of the image in error messages
        :param valid: bool [H, W], the pixels with a value, from :func:`.find_valid`; None for all
        :returns: uint8 [H, W]; pixels without a value are filled from those beside them
        :raises ImageError: wrong type or shape; a pixel NaN or infinite that is said to have a value
        """
        if image.ndim != 2 or not image.size or image.dtype.name not in ("uint8", "uint16", "float32", "float64"):
            raise ImageError(what, "uint8, uint16 or float [H, W]", describe(image))
        if valid is None:
            return image if image.dtype == np.uint8 else self._mapped(image, None, stamp_ns, what)
        if image.dtype != np.uint8:
            # Any value will do: these pixels are filled below.
            image = self._mapped(np.where(valid, image, image[valid][0]), valid, stamp_ns, what)
        return extend(image, valid)

    def _mapped(self, image: np.ndarray, valid: np.ndarray | None, stamp_ns: int, what: str) -> np.ndarray:
        """Update the smoothed mapping by the valid pixels, and apply it."""
        check_finite_image(image, what)
        config = self.config
        if config.gain == "fixed":
            return self._fixed(image)
        if config.gain != self._kind:
            self._kind = config.gain
            self.reset()
        if config.gain == "plateau":
            image = self._as_counts(image)
        values = image if valid is None else image[valid]
        current = self._image_limits(values, estimate_noise(image, valid))
        weight = self._update_weight(current, stamp_ns, self._min_span(image))
        self._limits += weight * (current - self._limits)
        self._last_ns = stamp_ns
        min_span = self._min_span(image)
        if config.gain == "plateau":
            curve = plateau_curve(values, current[0], current[1], config.gain_plateau, min_span)
            if weight >= 1 or not self._curve.size:
                self._curve = curve
            else:
                self._curve += np.float32(weight) * (curve - self._curve)
            return (self._curve * 255.0 + 0.5).astype(np.uint8)[image]
        low, high = self._limits[:2]
        if high - low < min_span:
            low, high = (low + high - min_span) / 2, (low + high + min_span) / 2
        return stretch(image, float(low), float(high))

    def _min_span(self, image: np.ndarray) -> float:
        """Minimum span that is stretched to 8 bits, in the image's unit."""
        unit = 1.0 if image.dtype == np.uint16 else self.config.kelvin_per_count
        return max(self.config.gain_least_span * unit, NOISE_SPAN * float(self._limits[3]))

    def _image_limits(self, values: np.ndarray, noise: float) -> np.ndarray:
        """Low limit, high limit, median and noise of one image, float64 [4]."""
        config = self.config
        shares = (0.0, 100.0) if config.gain == "minmax" else (config.gain_low_percentile, config.gain_high_percentile)
        low, high, median = percentile_values(values, (*shares, 50.0))
        if low == high:  # a small warm object in front of a uniform background
            low, high = values.min(), values.max()
        return np.array((low, high, median, noise), np.float64)

    def _update_weight(self, current: np.ndarray, stamp_ns: int, min_span: float) -> float:
        """Weight of the current image in the smoothed mapping: 0 keeps the mapping, 1 resets it."""
        if self._last_ns is None or stamp_ns < self._last_ns or not self.config.gain_time_constant:
            self._uniform_since = None
            return 1.0
        span = max(self._limits[1] - self._limits[0], min_span)
        if current[1] - current[0] >= min(UNIFORM_SPAN * span, min_span):
            self._uniform_since = None
        else:
            self._uniform_since = stamp_ns if self._uniform_since is None else self._uniform_since
            if stamp_ns - self._uniform_since < SHUTTER_NS:
                return 0.0
        low, high, median = np.abs(current - self._limits)[:3] > self.config.gain_cut * span
        if median and (low or high):
            return 1.0
        return 1.0 - math.exp(-(stamp_ns - self._last_ns) / 1e9 / self.config.gain_time_constant)

    def _fixed(self, image: np.ndarray) -> np.ndarray:
        config = self.config
        limits = (config.gain_fixed_low, config.gain_fixed_high)
        if image.dtype == np.uint16:
            low, high = ((limit - config.kelvin_offset) / config.kelvin_per_count for limit in limits)
        else:
            low, high = (limit - self._zero_kelvin() for limit in limits)
        return stretch(image, low, high)

    def _as_counts(self, image: np.ndarray) -> np.ndarray:
        """Convert temperatures to the counts of the radiometric scale, uint16."""
        if image.dtype == np.uint16:
            return image
        counts = (image + (self._zero_kelvin() - self.config.kelvin_offset)) / self.config.kelvin_per_count
        return np.clip(np.rint(counts), 0, COUNTS - 1).astype(np.uint16)

    def _zero_kelvin(self) -> float:
        """Temperature that the value 0 of a float image stands for [K]."""
        return CELSIUS if self.config.thermal_unit == "celsius" else 0.0


def plateau_curve(image: np.ndarray, low: float, high: float, plateau: float, min_span: float) -> np.ndarray:
    """Compute the mapping of plateau equalization: the cumulative histogram, with bins clipped at a plateau.

    The plateau is ``plateau`` times the bin height of a uniform histogram over the span. No count gets more contrast
    than a linear stretch over ``min_span`` counts would give it.
    Vickers, "Plateau equalization algorithm for real-time display of high-quality infrared imagery", Optical
    Engineering 35(7), 1996.

    :param image: uint16 [H, W] or [N]
    :param low: count at the lower percentile
    :param high: count at the upper percentile
    :param plateau: multiple of the uniform bin height
    :param min_span: minimum span [count]
    :returns: float32 [65536] in [0, 1], monotonic
    """
    histogram = np.bincount(image.reshape(-1), minlength=COUNTS).astype(np.float64)
    span, min_span = max(high - low + 1, min_span), max(min_span, 1.0)
    limit = max(image.size * min(plateau / span, 1 / min_span), 1.0)
    np.minimum(histogram, limit, out=histogram)
    cumulative = np.cumsum(histogram)
    total = float(cumulative[-1])
    middle = cumulative - histogram / 2 - total / 2
    return np.clip(0.5 + middle / max(total, limit * min_span), 0.0, 1.0).astype(np.float32)


def estimate_noise(image: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Estimate the standard deviation of an image's noise from second differences along some of its rows.

    Their median is robust against edges (Immerkaer, "Fast noise variance estimation", CVIU 1996, uses the mean).

    :param image: uint16 or float [H, W]
    :param valid: bool [H, W], the pixels to use; None for all
    :returns: in the image's unit; 0 without three neighboring columns
    """
    step = max(1, len(image) // 32)
    rows = image[::step].astype(np.float32)
    if rows.shape[1] < 3:
        return 0.0
    differences = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
    if valid is not None:
        used = valid[::step]
        differences = differences[used[:, :-2] & used[:, 1:-1] & used[:, 2:]]
    return float(np.median(differences)) / 0.6745 / math.sqrt(6) if differences.size else 0.0
