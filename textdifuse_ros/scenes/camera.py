"""The pinhole camera and its motion with the vehicle.

World coordinates [m]: X to the right, Y up, Z along the street. Camera coordinates: x right, y down, z forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from textdifuse_ros.scenes.config import DriveSceneConfig

CAMERA_HEIGHT = 1.45
LANE = 1.75
NEAR = 0.4


@dataclass(frozen=True)
class SceneCamera:
    """A pinhole camera.

    :ivar position: float64 [3], world [m]
    :ivar rotation: float64 [3, 3], world to camera; its rows are the camera's right, down and forward axes
    :ivar focal: focal length [px]
    :ivar width: of the image [px]
    :ivar height: of the image [px]
    """

    position: np.ndarray
    rotation: np.ndarray
    focal: float
    width: int
    height: int

    @property
    def center(self) -> tuple[float, float]:
        """The principal point (x, y) [px]; pixel centers have integer coordinates."""
        return (self.width - 1) / 2.0, (self.height - 1) / 2.0

    @property
    def matrix(self) -> np.ndarray:
        """The intrinsic matrix, float64 [3, 3]: camera coordinates to homogeneous pixels."""
        x, y = self.center
        return np.array([[self.focal, 0.0, x], [0.0, self.focal, y], [0.0, 0.0, 1.0]])

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Transform world ``points`` [N, 3] to camera coordinates [N, 3]."""
        return (points - self.position) @ self.rotation.T

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Project camera ``points`` [N, 3] with positive z to pixels [N, 2]."""
        return points[:, :2] * (self.focal / points[:, 2:]) + self.center

    def rays(self) -> np.ndarray:
        """The world direction of each pixel at depth 1, float32 [H, W, 3]."""
        x = ((np.arange(self.width) - self.center[0]) / self.focal).astype(np.float32)
        y = ((np.arange(self.height) - self.center[1]) / self.focal).astype(np.float32)
        across, down, forward = self.rotation.astype(np.float32)
        return x[None, :, None] * across + (y[:, None, None] * down + forward)

    def sees(self, points: np.ndarray, margin: float = 0.2) -> bool:
        """Whether a box around world points may be visible.

        :param points: float64 [N, 3] [m]
        :param margin: added to the field of view, as a share of it
        """
        local = self.to_camera(points)
        if local[:, 2].max() < NEAR:
            return False
        half = (self.width / 2.0) / self.focal * (1.0 + margin)
        depth = np.maximum(local[:, 2], NEAR)
        return bool((local[:, 0] < half * depth).any() and (local[:, 0] > -half * depth).any())


def clip_near(points: np.ndarray) -> np.ndarray:
    """Clip a polygon at the near plane.

    :param points: float64 [N, 3], camera coordinates [m]
    :returns: likewise; [0, 3] if all of it is behind the plane
    """
    inside = points[:, 2] >= NEAR
    if inside.all():
        return points
    if not inside.any():
        return points[:0]
    kept = []
    for index in range(len(points)):
        start, end = points[index - 1], points[index]
        if inside[index - 1] != inside[index]:
            share = (NEAR - start[2]) / (end[2] - start[2])
            kept.append(start + share * (end - start))
        if inside[index]:
            kept.append(end)
    return np.array(kept)


def camera_at(config: DriveSceneConfig, time: float) -> SceneCamera:
    """The camera of the moving vehicle.

    :param config: of the drive
    :param time: since the start [s]
    """
    turn = 2.0 * math.pi * time
    shake = math.radians(1.0) * config.shake
    yaw = shake * (0.35 * math.sin(0.23 * turn) + 0.05 * math.sin(1.7 * turn + 1.0))
    pitch = shake * (0.22 * math.sin(1.1 * turn) + 0.10 * math.sin(2.3 * turn + 0.5)) + math.radians(1.2)
    roll = shake * 0.25 * math.sin(0.7 * turn + 2.0)
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    forward = np.array([sy * cp, -sp, cy * cp])
    across = np.array([cy, 0.0, -sy])
    down = np.cross(across, forward)
    rotation = np.stack([cr * across + sr * down, cr * down - sr * across, forward])
    sway = 0.12 * config.shake * math.sin(0.17 * turn)
    heave = 0.012 * config.shake * math.sin(1.3 * turn)
    position = np.array([LANE + sway, CAMERA_HEIGHT + heave, config.speed * time])
    focal = config.width / 2.0 / math.tan(math.radians(config.field_of_view / 2.0))
    return SceneCamera(position, rotation, focal, config.width, config.height)
