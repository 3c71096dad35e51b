"""Street lamps, the glow of the night sky, and the vehicle's headlights."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.scenes.canvas import Light
from textdifuse_ros.scenes.config import DriveSceneConfig

LAMP_HEIGHT = 7.2
SODIUM = np.array([1.0, 0.62, 0.26], np.float32)
_LAMP = 5.0
_HEADLIGHT = 70.0
_HEADLIGHT_HEIGHT = 0.65


class StreetLight:
    """The light of street lamps and night sky.

    :param config: of the drive
    :param lamps: float64 [N, 3], world positions of the luminaires that are on [m]
    :ivar sky: light of the night sky, float32 [3], linear RGB
    """

    def __init__(self, config: DriveSceneConfig, lamps: np.ndarray) -> None:
        self.lamps = lamps.astype(np.float32)
        glow = 0.0006 + 0.02 * (1.0 - config.darkness) ** 2
        self.sky = (glow * np.array([0.85, 0.95, 1.15])).astype(np.float32)

    def flux(self, points: np.ndarray, normal: tuple[float, float, float] | None) -> np.ndarray:
        """Illuminance by the lamps.

        :param points: float32 [..., 3], world [m]
        :param normal: of the illuminated plane; None for an average over all directions
        :returns: float32 [...]
        """
        total = np.zeros(points.shape[:-1], np.float32)
        if not len(self.lamps):
            return total
        low, high = points[..., 2].min() - 40.0, points[..., 2].max() + 40.0
        for lamp in self.lamps[(self.lamps[:, 2] > low) & (self.lamps[:, 2] < high)]:
            offset = lamp - points
            square = (offset * offset).sum(axis=-1) + np.float32(0.3)
            slant = 0.45 if normal is None else np.maximum(offset @ np.array(normal, np.float32), 0.0) / np.sqrt(square)
            # A luminaire shines down: not upwards, and less to the sides.
            down = np.clip(offset[..., 1] / np.sqrt(square), 0.0, 1.0)
            total += _LAMP * slant * (0.15 + 0.85 * down) * (down > 0) / square
        return total

    def night(self, flux: np.ndarray) -> np.ndarray:
        """The light of lamps and sky.

        :param flux: float32 [...], illuminance by the lamps
        :returns: float32 [..., 3], linear RGB
        """
        return flux[..., None] * SODIUM + self.sky

    def at(self, point: np.ndarray, day: float = 0.8) -> Light:
        """The light on an object.

        :param point: float64 [3], world [m]
        :param day: share of full daylight
        """
        return Light(self.night(self.flux(point[None].astype(np.float32), None))[0], day)


def headlights(rays: np.ndarray, depth: np.ndarray, camera_height: float) -> np.ndarray:
    """Illuminance by the vehicle's low-beam headlights, on a plane perpendicular to them.

    :param rays: float32 [H, W, 3], see :meth:`.SceneCamera.rays`
    :param depth: float32 [H, W] [m]
    :param camera_height: [m]
    :returns: float32 [H, W]
    """
    rise = rays[..., 1] + np.float32(camera_height - _HEADLIGHT_HEIGHT) / depth
    side = rays[..., 0]
    # The cut-off of low beams (right-hand traffic): flat on the left, rising to the right.
    edge = np.clip(side * np.float32(0.27), 0.0, 0.05) - np.float32(0.012)
    below = (edge - rise) * np.float32(1.0 / 0.012)
    beam = 1.0 / (1.0 + cv2.exp(np.clip(-below, -30.0, 30.0)))
    fall = cv2.exp(np.clip(-below * np.float32(0.075), -30.0, 0.0))
    wide = cv2.exp(-((side * np.float32(1.0 / 0.42)) ** 2))
    pattern = (beam * (np.float32(0.12) + np.float32(0.88) * fall) + np.float32(0.03)) * wide
    return np.float32(_HEADLIGHT) * pattern / (depth * depth + np.float32(4.0))
