"""The thermal camera: from temperatures to an 8-bit image.

Radiance is in units of a black body of 300 K. A surface radiates ``emissivity T^4 + (1 - emissivity) T_sky^4``; the air
absorbs a share of it that grows with distance, and adds its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from textdifuse_ros.scenes.config import DriveSceneConfig

Value = Any  # a float, or a float32 array of them

_REFERENCE = 300.0
_EXTINCTION = 0.0022  # [1/m], damp night air in the 8-14 um band
_COLDEST, _HOTTEST = -10.5, 20.5  # temperatures shown as black and as white, relative to the air [K]


@dataclass(frozen=True)
class Air:
    """The air and the sky above it.

    :ivar temperature: of the air [K]
    """

    temperature: float

    @property
    def sky(self) -> float:
        """Effective temperature of the sky as reflected by surfaces [K]."""
        return self.temperature - 32.0

    def transmit(self, sent: Value, depth: Value) -> Value:
        """Radiance at the camera of radiance ``sent`` from a distance.

        :param sent: float or float32 array
        :param depth: likewise [m]
        """
        own = black_body(self.temperature)
        share = math.exp(-_EXTINCTION * depth) if isinstance(depth, float) else cv2.exp(depth * -_EXTINCTION)
        return own + (sent - own) * share


def black_body(temperature: Value) -> Value:
    """Radiance of a black body.

    :param temperature: float or float32 array [K]
    """
    square = (temperature * (1.0 / _REFERENCE)) * (temperature * (1.0 / _REFERENCE))
    return square * square


def radiance(temperature: Value, emissivity: Value, air: Air) -> Value:
    """Radiance of a surface, including the reflected sky.

    :param temperature: float or float32 array [K]
    :param emissivity: likewise, in [0, 1]
    :param air: with the sky
    """
    return emissivity * black_body(temperature) + (1.0 - emissivity) * black_body(air.sky)


class ThermalSensor:
    """Optics, detector and 8-bit scale. The scale depends on the air temperature alone, so the brightness is stable.

    :param config: of the drive
    """

    def __init__(self, config: DriveSceneConfig) -> None:
        random = np.random.default_rng([config.seed, 41])
        self._air = Air(config.air_temperature)
        self._netd = np.float32(config.netd)
        columns = random.standard_normal(config.width)
        rows = 0.3 * random.standard_normal(config.height)
        self._pattern = (config.stripes * (columns[None] + rows[:, None])).astype(np.float32)
        self._blur = 0.9 * config.width / 640.0

    def image(self, heat: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Convert radiance to an image.

        :param heat: float32 [H, W], radiance at the camera
        :param random: source of the noise
        :returns: uint8 [H, W], bright is warm
        """
        if self._blur > 0.3:
            heat = cv2.GaussianBlur(heat, (0, 0), self._blur)
        # Brightness temperature; cv2.pow is much faster than NumPy's power.
        kelvin = cv2.pow(np.maximum(heat, np.float32(0.0)), 0.25) * np.float32(_REFERENCE)
        kelvin += self._pattern
        if self._netd > 0:
            kelvin += self._netd * random.standard_normal(heat.shape, np.float32)
        low = self._air.temperature + _COLDEST
        level = np.clip((kelvin - np.float32(low)) / np.float32(_HOTTEST - _COLDEST), 0.0, 1.0)
        return np.rint(level * np.float32(255.0)).astype(np.uint8)
