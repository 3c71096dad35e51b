"""The degraded suite: fixed conditions under which fusion is evaluated.

A condition has a name, a description and fixed parameters. Its random parts are drawn from a generator seeded by the
names of the condition and the image, so that an image gets the same noise in every run, alone or among others.

Each condition degrades one source only, except for one, so that a loss can be attributed to a source.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.checks import check_infrared, check_same_size, check_visible, describe
from textdifuse_ros.data import degradations as d
from textdifuse_ros.errors import ConfigError, ImageError

Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
PairDegradation = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
SODIUM = (1.0, 0.72, 0.36)
"""Gains of red, green and blue under a sodium lamp, linear RGB."""


@dataclass(frozen=True)
class Condition:
    """A fixed degradation of a pair.

    :ivar name: key in :data:`CONDITIONS`
    :ivar meaning: description with the parameters
    :ivar visible: takes float32 [H, W, 3] in [0, 1] and a generator, returns the degraded image; None for no change
    :ivar infrared: likewise for [H, W]
    :ivar before_objects: instead of ``visible``, degrades the visible image depending on the infrared one, float32
        [H, W], which is given second
    """

    name: str
    meaning: str
    visible: Degradation | None = None
    infrared: Degradation | None = None
    before_objects: PairDegradation | None = None

    @property
    def degrades_visible(self) -> bool:
        """Whether the visible image is degraded."""
        return self.visible is not None or self.before_objects is not None


_SUITE = (
    Condition(
        "low_light",
        "Dusk: 15 % of the light reaches the visible camera (linear).",
        lambda v, _: d.low_light(v, 0.15),
    ),
    Condition(
        "low_light_strong",
        "Unlit street: 3 % of the light reaches the visible camera.",
        lambda v, _: d.low_light(v, 0.03),
    ),
    Condition(
        "over_exposure",
        "Exposure 1.5 stops too long for the visible camera, clipped at white.",
        lambda v, _: d.over_exposure(v, 1.5),
    ),
    Condition(
        "color_cast",
        "Light of a sodium lamp: channel gains 1, 0.72 and 0.36 (linear).",
        lambda v, _: d.color_cast(v, SODIUM),
    ),
    Condition(
        "gaussian_noise",
        "Read noise of the visible camera, standard deviation 0.08 of the range.",
        lambda v, rng: d.gaussian_noise(v, 0.08, rng),
    ),
    Condition(
        "poisson_noise",
        "Photon noise of the visible camera, white is 40 electrons.",
        lambda v, rng: d.poisson_noise(v, 40, rng),
    ),
    Condition(
        "blur",
        "Visible camera out of focus, Gaussian of 1.5 px.",
        lambda v, _: d.gaussian_blur(v, 1.5),
    ),
    Condition(
        "haze",
        "Haze in the visible image: optical depth 1.2 at the horizon, airlight 0.8.",
        lambda v, rng: d.haze(v, 1.2, 0.8, rng),
    ),
    Condition(
        "rain",
        "Rain in front of the visible camera: streaks of 17 px at 0.5 % of the pixels, 10 degrees off the vertical.",
        lambda v, rng: d.rain_streaks(v, 0.005, 17, np.radians(80), rng),
    ),
    Condition(
        "thermal_stripes",
        "Fixed-pattern noise of the thermal camera: column offsets of standard deviation 0.05 of the range.",
        infrared=lambda i, rng: d.stripe_noise(i, 0.05, rng),
    ),
    Condition(
        "thermal_low_contrast",
        "Thermal scene of low contrast: 35 % of the contrast left, mean at 0.45.",
        infrared=lambda i, _: d.low_contrast(i, 0.35, 0.45),
    ),
    Condition(
        "low_light_noise",
        "Night at high gain: 5 % of the light, white of the scene is 300 electrons, read noise 0.02.",
        lambda v, rng: _dark_and_noisy(v, rng),
    ),
    Condition(
        "low_light_cast_noise_stripes",
        "Night under a sodium lamp at high gain (as low_light_noise), with column offsets of 0.05 in the infrared.",
        lambda v, rng: _dark_and_noisy(d.color_cast(v, SODIUM), rng),
        lambda i, rng: d.stripe_noise(i, 0.05, rng),
    ),
)
_FURTHER = (
    Condition(
        "glare",
        "Headlights or a low sun in front of what the infrared shows: discs with bloom, 2 to 10 % of the visible image "
        "saturated.",
        before_objects=lambda v, i, rng: glare_before(v, i, rng),
    ),
    Condition(
        "smoke",
        "Smoke in the visible image, dense and in patches: optical depth 3.5, airlight 0.5.",
        lambda v, rng: d.smoke(v, 3.5, 0.5, rng),
    ),
)
CONDITIONS: dict[str, Condition] = {condition.name: condition for condition in (*_SUITE, *_FURTHER)}
"""All conditions by name, in the order of the tables."""

SUITE = tuple(condition.name for condition in _SUITE)
"""The thirteen conditions that means are taken over; the other ones came later and stand apart."""

SATURATED = "glare"
"""The condition that saturates a part of the visible image, see :func:`saturated_part`."""

_WHITE = 250  # level from which a channel counts as saturated


def degrade_pair(name: str, visible: np.ndarray, infrared: np.ndarray, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """Degrade a clean pair; the same arguments give the same bytes.

    :param name: a key of :data:`CONDITIONS`
    :param visible: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W]
    :param stem: name of the image; the generator is seeded from it and ``name``
    :returns: the degraded visible and infrared image, like the clean ones
    :raises ConfigError: unknown condition
    :raises ImageError: wrong dtype or size
    """
    if name not in CONDITIONS:
        raise ConfigError("a condition", f"one of {', '.join(CONDITIONS)}", repr(name))
    check_visible(visible)
    check_infrared(infrared)
    check_same_size(visible, infrared)
    condition = CONDITIONS[name]
    rng = np.random.default_rng((zlib.crc32(name.encode()), zlib.crc32(stem.encode())))
    degradation, pair_degradation = condition.visible, condition.before_objects
    if pair_degradation is not None:
        scene = infrared.astype(np.float32) / np.float32(255)

        def degradation(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return pair_degradation(image, scene, rng)

    return _apply(degradation, visible, rng), _apply(condition.infrared, infrared, rng)


def saturated_part(degraded: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Find the part that a degradation saturates: white in the degraded image and not in the clean one.

    :param degraded: uint8 [H, W, 3] RGB
    :param clean: uint8 [H, W, 3] RGB
    :returns: bool [H, W]
    """
    return np.asarray((degraded.min(2) >= _WHITE) & (clean.min(2) < _WHITE))


def glare_before(visible: np.ndarray, infrared: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add headlights or a low sun in front of objects, see :func:`.degradations.glare`.

    :param visible: float32 [H, W, 3] in [0, 1], sRGB-coded
    :param infrared: float32 [H, W] in [0, 1]; lamps are more likely where it has structure
    :param rng: source of places, sizes and kind
    :returns: the degraded visible image
    """
    width = infrared.shape[1]
    share = rng.uniform(0.02, 0.10)
    hidden = _structure(infrared) * (visible.max(2) < 0.9)  # nothing is hidden where the image is white already
    if rng.random() < 0.5:
        (x, y), *_ = _places(hidden, (0.1, 0.6), 1, rng)
        return d.glare(visible, np.array([[x, y, 1]]), share, (1, 0.93, 0.8))
    lamps = []
    for x, y in _places(hidden, (0.3, 0.9), int(rng.integers(1, 4)), rng):
        radius = rng.uniform(0.7, 1.3)
        apart = rng.uniform(0.03, 0.06) * width * radius
        lamps += [(x - apart, y, radius), (x + apart, y, radius)]
    return d.glare(visible, np.array(lamps), share, (1, 1, 0.96))


def _structure(infrared: np.ndarray) -> np.ndarray:
    """Local contrast: the difference from the mean around, at a twentieth of the width."""
    return np.abs(infrared - cv2.GaussianBlur(infrared, (0, 0), infrared.shape[1] / 20))


def _places(
    weights: np.ndarray, rows: tuple[float, float], count: int, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Draw places (x, y) in pixels between two shares of the height, likelier where ``weights`` [H, W] are high."""
    height, width = weights.shape
    top, bottom = (round(share * height) for share in rows)
    cells = cv2.resize(weights[top:bottom], (32, 16), interpolation=cv2.INTER_AREA).astype(np.float64) ** 2 + 1e-6
    drawn = rng.choice(cells.size, count, replace=False, p=(cells / cells.sum()).reshape(-1))
    return [((n % 32 + 0.5) / 32 * width, top + (n // 32 + 0.5) / 16 * (bottom - top)) for n in drawn.tolist()]


def _apply(degradation: Degradation | None, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if image.dtype != np.uint8:
        raise ImageError("an image to degrade", "of 8 bits", describe(image))
    if degradation is None:
        return image
    return np.rint(degradation(image.astype(np.float32) / np.float32(255), rng) * 255).astype(np.uint8)


def _dark_and_noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    dark = d.low_light(image, 0.05)
    return d.gaussian_noise(d.poisson_noise(dark, 300, rng), 0.02, rng)
