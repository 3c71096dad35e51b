"""The degraded suite: thirteen fixed conditions under which fusion is evaluated.

A condition has a name, a description and fixed parameters. Its random parts are drawn from a generator seeded by the
names of the condition and the image, so that an image gets the same noise in every run, alone or among others.

Each condition degrades one source only, except for the last one, so that a loss can be attributed to a source.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from textdifuse_ros.checks import check_infrared, check_same_size, check_visible, describe
from textdifuse_ros.data import degradations as d
from textdifuse_ros.errors import ConfigError, ImageError

Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
SODIUM = (1.0, 0.72, 0.36)
"""Gains of red, green and blue under a sodium lamp, linear RGB."""


@dataclass(frozen=True)
class Condition:
    """A fixed degradation of a pair.

    :ivar name: key in :data:`CONDITIONS`
    :ivar meaning: description with the parameters
    :ivar visible: takes float32 [H, W, 3] in [0, 1] and a generator, returns the degraded image; None for no change
    :ivar infrared: likewise for [H, W]
    """

    name: str
    meaning: str
    visible: Degradation | None = None
    infrared: Degradation | None = None


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
CONDITIONS: dict[str, Condition] = {condition.name: condition for condition in _SUITE}
"""All conditions by name, in the order of the tables."""


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
    return _apply(condition.visible, visible, rng), _apply(condition.infrared, infrared, rng)


def _apply(degradation: Degradation | None, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if image.dtype != np.uint8:
        raise ImageError("an image to degrade", "of 8 bits", describe(image))
    if degradation is None:
        return image
    return np.rint(degradation(image.astype(np.float32) / np.float32(255), rng) * 255).astype(np.uint8)


def _dark_and_noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    dark = d.low_light(image, 0.05)
    return d.gaussian_noise(d.poisson_noise(dark, 300, rng), 0.02, rng)
