"""The visible camera: from the light of the scene to an 8-bit image, at night and well lit."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.scenes.canvas import BEAM, DAY, DEPTH, NIGHT, Canvas
from textdifuse_ros.scenes.config import DriveSceneConfig
from textdifuse_ros.scenes.lights import headlights

_EXPOSURE = 2.6
_SHOT, _READ = 0.0011, 0.0026
_HAZE = np.array([0.70, 0.74, 0.78], np.float32)
_HEADLIGHT = np.array([1.0, 0.97, 0.88], np.float32)


class VisibleSensor:
    """Optics, sensor and tone curve.

    :param config: of the drive
    """

    def __init__(self, config: DriveSceneConfig) -> None:
        self._noise = np.float32(config.noise)
        self._scale = config.width / 640.0
        self._cast = (1.0 + config.cast * np.array([0.30, -0.02, -0.55])).astype(np.float32)
        x = np.linspace(-1.0, 1.0, config.width, dtype=np.float32)
        y = np.linspace(-1.0, 1.0, config.height, dtype=np.float32) * np.float32(config.height / config.width)
        self._vignette = (1.0 / (1.0 + 0.22 * (x[None] ** 2 + y[:, None] ** 2)) ** 2)[..., None].astype(np.float32)

    def night(self, canvas: Canvas, rays: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Convert the scene at night to an image.

        :param canvas: painted scene
        :param rays: float32 [H, W, 3], see :meth:`.SceneCamera.rays`
        :param random: source of the noise
        :returns: uint8 [H, W, 3] RGB
        """
        data = canvas.data
        depth = np.ascontiguousarray(data[..., DEPTH])
        beam = headlights(rays, depth, float(canvas.camera.position[1]))
        light = data[..., NIGHT] + data[..., BEAM] * (beam[..., None] * _HEADLIGHT)
        light = self._bloom(light * np.float32(_EXPOSURE))
        light *= self._vignette * self._cast
        if self._noise > 0:
            grain = random.standard_normal(light.shape, np.float32)
            # Demosaicing spreads each sample over its neighbors, so the noise is a little coarser than a pixel.
            grain = cv2.GaussianBlur(grain, (3, 3), 0.55) * np.float32(1.75)
            sigma = cv2.sqrt(np.float32(_SHOT) * light + np.float32(_READ**2))
            light += self._noise * sigma * grain
        return _encode(light)

    def clean(self, canvas: Canvas) -> np.ndarray:
        """Convert the scene, well lit and without noise, to an image.

        :param canvas: painted scene
        :returns: uint8 [H, W, 3] RGB
        """
        share = cv2.exp(canvas.data[..., DEPTH] * np.float32(-1.0 / 320.0))[..., None]
        light = canvas.data[..., DAY] * share + _HAZE * (1.0 - share)
        return _encode(light * np.float32(1.25))

    def _bloom(self, light: np.ndarray) -> np.ndarray:
        """Add the scattered light of overexposed areas: halo and veiling glare."""
        height, width = light.shape[:2]
        small = (max(width // 4, 1), max(height // 4, 1))
        over = cv2.resize(np.maximum(light - np.float32(0.9), 0.0), small, interpolation=cv2.INTER_AREA)
        halo: np.ndarray = np.zeros_like(over)
        for sigma, weight in ((1.2, 0.10), (4.0, 0.045), (16.0, 0.022)):
            halo = cv2.scaleAdd(cv2.GaussianBlur(over, (0, 0), max(sigma * self._scale, 0.3)), weight, halo)
        light = cv2.GaussianBlur(light, (3, 3), 0.5)
        return light + cv2.resize(halo, (width, height), interpolation=cv2.INTER_LINEAR)


_STEPS = 4095


def _curve() -> np.ndarray:
    """The sRGB curve with a soft shoulder above 0.7, from linear 0..2 to 8 bits."""
    linear = np.linspace(0.0, 2.0, _STEPS + 1)
    shoulder = np.where(linear < 0.7, linear, 0.7 + 0.3 * (1.0 - np.exp(-(linear - 0.7) / 0.3)))
    encoded = np.where(shoulder <= 0.0031308, 12.92 * shoulder, 1.055 * shoulder ** (1 / 2.4) - 0.055)
    return np.rint(np.clip(encoded, 0.0, 1.0) * 255.0).astype(np.uint8)


_CURVE = _curve()


def _encode(light: np.ndarray) -> np.ndarray:
    index = np.clip(light * np.float32(_STEPS / 2.0), 0, _STEPS).astype(np.uint16)
    return _CURVE[index]
