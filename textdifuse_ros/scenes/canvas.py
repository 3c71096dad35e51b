"""The frame buffer: surfaces are painted over one another from far to near.

A pixel stores the inputs of both sensor models: the color by day, the light at night without the vehicle's headlights,
the reflectance of the headlights, the thermal radiance at the camera, and the depth. All but the depth are amounts of
light, so that they can be mixed where an outline crosses a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.scenes.camera import SceneCamera, clip_near
from textdifuse_ros.scenes.thermal import Air, radiance

DAY, NIGHT, BEAM, HEAT, DEPTH = slice(0, 3), slice(3, 6), slice(6, 9), 9, 10
CHANNELS = 11
_CIRCLE = np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)], axis=1)

Color = tuple[float, float, float]
Region = tuple[slice, slice]


@dataclass(frozen=True)
class Surface:
    """A material.

    :ivar albedo: reflectance, linear RGB
    :ivar temperature: [K]
    :ivar emissivity: thermal, in [0, 1]; the remainder reflects the cold sky
    :ivar emission: emitted light, linear RGB, 1 is white by day
    """

    albedo: Color
    temperature: float
    emissivity: float = 0.95
    emission: Color = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Light:
    """The light at a place.

    :ivar night: light of lamps and sky, linear RGB
    :ivar day: share of full daylight
    :ivar facing: share of the vehicle's headlights, by the angle of the surface
    """

    night: np.ndarray
    day: float = 1.0
    facing: float = 1.0

    def turned(self, day: float) -> Light:
        """The light on a face with another orientation.

        :param day: factor of the daylight; the change of the other light is half as large
        """
        return Light(self.night * (0.5 + 0.5 * day), self.day * day, self.facing)


class Canvas:
    """The buffers of one frame.

    :param camera: takes the frame
    :param air: between camera and scene
    :ivar data: float32 [H, W, CHANNELS], see the module's constants
    :ivar labels: uint8 [H, W], see LABELS
    :ivar instances: uint16 [H, W], 0 for none
    """

    def __init__(self, camera: SceneCamera, air: Air) -> None:
        self.camera, self.air = camera, air
        self.data = np.zeros((camera.height, camera.width, CHANNELS), np.float32)
        self.labels = np.zeros((camera.height, camera.width), np.uint8)
        self.instances = np.zeros((camera.height, camera.width), np.uint16)

    def scale(self, z: float) -> float:
        """Pixels per meter at a place along the street, which determines the level of detail.

        :param z: of the place [m]
        """
        return self.camera.focal / max(z - float(self.camera.position[2]), 1.0)

    def mask(self, outline: np.ndarray) -> tuple[Region, np.ndarray] | None:
        """Rasterize a polygon.

        :param outline: float64 [N, 2] [px], may extend beyond the image
        :returns: the region of the image, and the covered share of each of its pixels, float32; None if empty
        """
        height, width = self.labels.shape
        points = np.rint(np.clip(outline * 16.0, -(2.0**24), 2.0**24)).astype(np.int32)
        left, top, across, down = cv2.boundingRect(points)
        x0, y0 = max(left >> 4, 0), max(top >> 4, 0)
        x1, y1 = min(((left + across) >> 4) + 2, width), min(((top + down) >> 4) + 2, height)
        if x0 >= x1 or y0 >= y1:
            return None
        shares = np.zeros((y1 - y0, x1 - x0), np.uint8)
        points -= (x0 << 4, y0 << 4)
        cv2.fillPoly(shares, [points], 255, cv2.LINE_AA, 4)
        return (slice(y0, y1), slice(x0, x1)), shares * np.float32(1 / 255)

    def blend(
        self, region: Region, share: np.ndarray, values: np.ndarray, label: int | None = None, instance: int = 0
    ) -> None:
        """Blend values into a region.

        :param region: rows and columns
        :param share: float32 [h, w] in [0, 1], opacity
        :param values: float32 [CHANNELS] or [h, w, CHANNELS]
        :param label: class of pixels with a share of at least one half; None keeps the class
        :param instance: likewise
        """
        target = self.data[region]
        target += share[..., None] * (values - target)
        if label is not None:
            covered = share >= 0.5
            self.labels[region][covered] = label
            self.instances[region][covered] = instance

    def values(self, surface: Surface, light: Light, depth: float) -> np.ndarray:
        """The values of a uniformly lit surface.

        :param surface: material
        :param light: on the surface
        :param depth: [m]
        :returns: float32 [CHANNELS]
        """
        albedo, glow, night = surface.albedo, surface.emission, light.night.tolist()
        heat = self.air.transmit(radiance(surface.temperature, surface.emissivity, self.air), depth)
        return np.array(
            [
                *(a * light.day + min(e, 0.6) for a, e in zip(albedo, glow, strict=True)),
                *(a * n + e for a, n, e in zip(albedo, night, glow, strict=True)),
                *(a * light.facing for a in albedo),
                heat,
                depth,
            ],
            np.float32,
        )

    def polygon(
        self,
        points: np.ndarray,
        surface: Surface,
        light: Light,
        label: int | None,
        instance: int = 0,
        opacity: float = 1.0,
    ) -> None:
        """Paint a flat polygon uniformly.

        :param points: float64 [N, 3], world [m]
        :param surface: material
        :param light: on the surface
        :param label: class; None keeps the class of the pixels
        :param instance: 0 for none
        :param opacity: in [0, 1]
        """
        local = clip_near(self.camera.to_camera(points))
        if len(local) < 3:
            return
        covered = self.mask(self.camera.to_pixels(local))
        if covered is not None:
            values = self.values(surface, light, float(local[:, 2].sum()) / len(local))
            self.blend(covered[0], covered[1] * np.float32(opacity), values, label, instance)

    def limb(
        self,
        joints: list[tuple[np.ndarray, float]],
        surface: Surface,
        light: Light,
        label: int,
        instance: int = 0,
    ) -> None:
        """Paint the convex hull of spheres, such as a limb, a trunk or a pole.

        :param joints: center (float64 [3], world) and radius of each sphere [m]
        :param surface: material
        :param light: on the surface
        :param label: class
        :param instance: 0 for none
        """
        local = self.camera.to_camera(np.array([center for center, _ in joints]))
        if local[:, 2].min() < 0.4:
            return
        centers = self.camera.to_pixels(local)
        radii = np.array([radius for _, radius in joints]) * self.camera.focal / local[:, 2]
        points = (centers[:, None] + _CIRCLE * radii[:, None, None]).reshape(-1, 2)
        outline = cv2.convexHull(points.astype(np.float32)).reshape(-1, 2)
        covered = self.mask(outline)
        if covered is not None:
            self.blend(*covered, self.values(surface, light, float(local[:, 2].sum()) / len(local)), label, instance)
