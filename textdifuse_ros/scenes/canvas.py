"""The image in the making: surfaces are painted over one another from far to near.

What a pixel keeps is what both sensor models need: the color by day, the light it sends by night without the
vehicle's own headlights, the share of those headlights' light that it sends back, the thermal radiance that arrives,
and the depth. All but the depth are amounts of light, so that they may be mixed where an outline crosses a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.scenes.camera import Camera, clip_near
from textdifuse_ros.scenes.thermal import Air, radiance

DAY, NIGHT, BEAM, HEAT, DEPTH = slice(0, 3), slice(3, 6), slice(6, 9), 9, 10
CHANNELS = 11
_CIRCLE = np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)], axis=1)

Color = tuple[float, float, float]
Region = tuple[slice, slice]


@dataclass(frozen=True)
class Surface:
    """What something is made of.

    :ivar albedo: share of light it returns, linear RGB
    :ivar temperature: [K]
    :ivar emissivity: thermal; the rest reflects the cold sky
    :ivar emission: light it sends by itself, linear RGB, 1 = white by day
    """

    albedo: Color
    temperature: float
    emissivity: float = 0.95
    emission: Color = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Light:
    """The light at a place.

    :ivar night: from lamps and sky, linear RGB
    :ivar day: share of full daylight
    :ivar facing: share of the own headlights' light, by the angle of the surface
    """

    night: np.ndarray
    day: float = 1.0
    facing: float = 1.0

    def turned(self, day: float) -> Light:
        """The same light on a face that gets another share of daylight (and of all else by half of that)."""
        return Light(self.night * (0.5 + 0.5 * day), self.day * day, self.facing)


class Canvas:
    """Buffers of one frame.

    :ivar data: float32 [H, W, CHANNELS], see the module's constants
    :ivar labels: uint8 [H, W], see LABELS
    :ivar instances: uint16 [H, W], 0 for none
    """

    def __init__(self, camera: Camera, air: Air) -> None:
        self.camera, self.air = camera, air
        self.data = np.zeros((camera.height, camera.width, CHANNELS), np.float32)
        self.labels = np.zeros((camera.height, camera.width), np.uint8)
        self.instances = np.zeros((camera.height, camera.width), np.uint16)

    def scale(self, z: float) -> float:
        """How many pixels a metre takes at a place along the street: what is small is painted with fewer parts."""
        return self.camera.focal / max(z - float(self.camera.position[2]), 1.0)

    def mask(self, outline: np.ndarray) -> tuple[Region, np.ndarray] | None:
        """The share of each pixel that a polygon covers.

        :param outline: [N, 2], pixels, any place
        :returns: the region of the image and float32 shares of its size, or None when nothing is covered
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
        """Paint values over a region by a share.

        :param share: float32 [h, w] in [0, 1]
        :param values: float32 [CHANNELS] or [h, w, CHANNELS]
        :param label: class of what is covered by half or more; None keeps what was there
        """
        target = self.data[region]
        target += share[..., None] * (values - target)
        if label is not None:
            covered = share >= 0.5
            self.labels[region][covered] = label
            self.instances[region][covered] = instance

    def values(self, surface: Surface, light: Light, depth: float) -> np.ndarray:
        """The values [CHANNELS] of an evenly lit surface at a depth [m]."""
        albedo, glow, night = surface.albedo, surface.emission, light.night.tolist()
        heat = self.air.through(radiance(surface.temperature, surface.emissivity, self.air), depth)
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
        """Paint a flat polygon of the world, [N, 3] in metres, evenly."""
        seen = clip_near(self.camera.to_camera(points))
        if len(seen) < 3:
            return
        found = self.mask(self.camera.to_pixels(seen))
        if found is not None:
            values = self.values(surface, light, float(seen[:, 2].sum()) / len(seen))
            self.blend(found[0], found[1] * np.float32(opacity), values, label, instance)

    def limb(
        self,
        joints: list[tuple[np.ndarray, float]],
        surface: Surface,
        light: Light,
        label: int,
        instance: int = 0,
    ) -> None:
        """Paint the hull around balls of the world, given as (center [3], radius [m]): a limb, a trunk, a pole."""
        seen = self.camera.to_camera(np.array([center for center, _ in joints]))
        if seen[:, 2].min() < 0.4:
            return
        centers = self.camera.to_pixels(seen)
        radii = np.array([radius for _, radius in joints]) * self.camera.focal / seen[:, 2]
        points = (centers[:, None] + _CIRCLE * radii[:, None, None]).reshape(-1, 2)
        outline = cv2.convexHull(points.astype(np.float32)).reshape(-1, 2)
        found = self.mask(outline)
        if found is not None:
            self.blend(*found, self.values(surface, light, float(seen[:, 2].sum()) / len(seen)), label, instance)
