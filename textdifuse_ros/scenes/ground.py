"""Sky, road and pavement, computed pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.scenes.canvas import BEAM, CHANNELS, DAY, DEPTH, HEAT, NIGHT, Canvas, Light, Surface
from textdifuse_ros.scenes.config import BUILDING, PAVEMENT, ROAD, SKY
from textdifuse_ros.scenes.lights import SODIUM, StreetLight
from textdifuse_ros.scenes.noise import value_noise
from textdifuse_ros.scenes.thermal import black_body, radiance

CURB = 5.7
PARKING = 3.5
_FAR = 400.0
_TILE = 8.0  # size of the asphalt texture [m]
_GRID = 0.5  # spacing of the light map of the lamps [m]


@dataclass(frozen=True)
class Beam:
    """The light of another vehicle's headlights on the road.

    :ivar x: across the street [m]
    :ivar z: along the street [m]
    :ivar towards: 1 for a beam away from the camera along the street, -1 towards it
    """

    x: float
    z: float
    towards: float


class Ground:
    """Road, markings, curbs and pavement of the whole street.

    :param random: source of all randomness
    :param light: of the street lamps
    :param length: of the street [m]
    :param crossings: Z of the side streets' middles [m]; each has a zebra crossing
    """

    def __init__(
        self, random: np.random.Generator, light: StreetLight, length: float, crossings: tuple[float, ...]
    ) -> None:
        size = 512
        self._fine = value_noise(random, size, size, (48, 48), 3) + 0.5 * random.uniform(-1, 1, (size, size))
        self._fine = self._fine.astype(np.float32)
        self._coarse = value_noise(random, 256, 256, (10, 10), 4)
        self._crossings = crossings
        self._light = light
        x = np.arange(-40, 41) * _GRID
        z = np.arange(-20, int((length + 20.0) / _GRID)) * _GRID
        points = np.zeros((len(z), len(x), 3), np.float32)
        points[..., 0], points[..., 2] = x, z[:, None]
        self._flux = np.zeros(points.shape[:2], np.float32)
        for start in range(0, len(z), 64):  # in pieces, each of which has few lamps nearby
            self._flux[start : start + 64] = light.flux(points[start : start + 64], (0.0, 1.0, 0.0))
        covers = np.arange(8.0, length, 19.0)
        self._covers = [(float(random.uniform(-3.0, 3.0)), float(z0 + random.uniform(0, 8))) for z0 in covers]

    def paint(self, canvas: Canvas, rays: np.ndarray, beams: list[Beam]) -> None:
        """Paint everything below the horizon.

        :param canvas: painted on
        :param rays: float32 [H, W, 3], see :meth:`.SceneCamera.rays`
        :param beams: of other vehicles
        """
        camera = canvas.camera
        top = int(np.argmax((rays[..., 1] < -1e-3).any(axis=1)))
        if not (rays[top:, :, 1] < -1e-3).any():
            return
        part = rays[top:]
        below = part[..., 1] < -1e-3
        depth = np.where(below, np.float32(-camera.position[1]) / np.minimum(part[..., 1], -1e-3), np.float32(_FAR))
        depth = np.minimum(depth, np.float32(_FAR)).astype(np.float32)
        x = part[..., 0] * depth + np.float32(camera.position[0])
        z = part[..., 2] * depth + np.float32(camera.position[2])
        pixel = depth / np.float32(camera.focal)  # size of a pixel on the ground across and along the street [m]
        along = pixel * depth / np.float32(camera.position[1])
        albedo, kelvin, road = self._surface(x, z, pixel, along)

        flux = cv2.remap(
            self._flux, x / np.float32(_GRID) + 40.0, z / np.float32(_GRID) + 20.0,
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        night = flux[..., None] * SODIUM + self._light.sky
        for beam in beams:
            night += _beam(beam, x, z)[..., None]
        data = canvas.data[top:]
        share = below.astype(np.float32)[..., None]
        values = np.empty_like(data)
        values[..., DAY] = albedo * np.float32(0.95)
        values[..., NIGHT] = albedo * night
        values[..., HEAT] = canvas.air.transmit(radiance(kelvin + canvas.air.temperature, 0.95, canvas.air), depth)
        values[..., DEPTH] = depth
        values[..., BEAM] = albedo * (np.float32(0.65) / depth)[..., None]
        data += share * (values - data)
        labels = canvas.labels[top:]
        labels[below] = np.where(road, np.uint8(ROAD), np.uint8(PAVEMENT))[below]
        self._paint_covers(canvas)

    def _paint_covers(self, canvas: Canvas) -> None:
        """Paint the manhole covers, which are warm from below."""
        turn = np.arange(20) * (np.pi / 10)
        here = float(canvas.camera.position[2])
        iron = Surface((0.05, 0.05, 0.05), canvas.air.temperature + 6.5, 0.9)
        for x, z in self._covers:
            if here < z < here + 60.0:
                disc = np.stack([x + 0.33 * np.cos(turn), np.zeros(20), z + 0.33 * np.sin(turn)], axis=1)
                light = self._light.at(disc.mean(axis=0), 0.95)
                canvas.polygon(disc, iron, Light(light.night, 0.95, 0.65 / max(z - here, 1.0)), None, opacity=0.7)

    def _surface(
        self, x: np.ndarray, z: np.ndarray, pixel: np.ndarray, along: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Albedo [h, w, 3], temperature above the air [K] and whether it is road."""
        side = np.abs(x)
        scale = np.float32(512 / _TILE)
        fine = _tiled(self._fine, x * scale, z * scale)
        fine *= np.clip(np.float32(0.06) / along, 0.0, 1.0)  # detail finer than a pixel averages out
        coarse = _tiled(self._coarse, x * np.float32(5.0), z * np.float32(2.0))

        road_share = _step(np.float32(CURB) - side, pixel)
        for middle in self._visible_crossings(z):
            street = _step(np.float32(4.2) - np.abs(z - np.float32(middle)), along)
            road_share = np.maximum(road_share, street)
        tracks = cv2.exp(-((np.abs(np.abs(side - 1.75) - 0.8) * np.float32(1 / 0.35)) ** 2))
        asphalt = np.float32(0.105) * (1.0 + 0.22 * fine + 0.25 * coarse - 0.10 * tracks)
        joints = 1.0 - 0.35 * _lines(x, 0.6, 0.03, pixel) - 0.35 * _lines(z, 0.6, 0.03, along)
        slabs = np.float32(0.24) * (1.0 + 0.10 * fine + 0.15 * coarse) * joints
        paint = self._markings(x, z, side, pixel, along) * np.clip(0.85 + 0.3 * coarse + 0.25 * fine, 0.0, 1.0)
        asphalt += (np.float32(0.5) - asphalt) * paint
        albedo = slabs + (asphalt - slabs) * road_share
        curb = _step(np.float32(0.14) - np.abs(side - np.float32(CURB + 0.14)), pixel) * (1.0 - road_share)
        albedo += (np.float32(0.34) - albedo) * curb
        gutter = _step(np.float32(0.10) - np.abs(side - np.float32(CURB - 0.1)), pixel) * road_share
        albedo *= 1.0 - 0.4 * gutter

        kelvin = (np.float32(3.4) + 0.5 * fine + 0.9 * coarse + 0.7 * tracks) * road_share
        kelvin += (np.float32(1.6) + 0.5 * coarse) * (1.0 - road_share)
        kelvin += np.float32(0.9) * curb - np.float32(0.7) * paint
        kelvin -= np.float32(0.8) * _step(side - np.float32(PARKING), pixel) * road_share
        tint = np.array([1.0, 0.98, 0.95], np.float32)
        return albedo[..., None] * tint, kelvin, road_share > 0.5

    def _visible_crossings(self, z: np.ndarray) -> list[float]:
        low, high = float(z.min()) - 12.0, min(float(z.max()), float(z.min()) + 220.0) + 12.0
        return [middle for middle in self._crossings if low < middle < high]

    def _markings(
        self, x: np.ndarray, z: np.ndarray, side: np.ndarray, pixel: np.ndarray, along: np.ndarray
    ) -> np.ndarray:
        """Share of white paint [h, w]."""
        dash = _step(np.float32(1.5) - np.abs(_wrap(z, 9.0) - np.float32(4.5)), along)
        paint = _step(np.float32(0.07) - np.abs(x), pixel) * dash
        paint = np.maximum(paint, _step(np.float32(0.05) - np.abs(side - np.float32(PARKING)), pixel))
        bays = _lines(z, 6.2, 0.1, along) * _step(side - np.float32(PARKING), pixel)
        paint = np.maximum(paint, bays * _step(np.float32(CURB - 0.2) - side, pixel))
        for middle in self._visible_crossings(z):
            near = _step(np.float32(4.4) - np.abs(z - np.float32(middle)), along)
            paint *= 1.0 - near
            zebra = _step(np.float32(1.6) - np.abs(z - np.float32(middle - 6.5)), along)
            bars = _step(np.float32(0.25) - np.abs(_wrap(x, 1.0) - np.float32(0.5)), pixel)
            inside = _step(np.float32(CURB - 0.3) - side, pixel)
            paint = paint * (1.0 - zebra) + bars * inside * zebra
        return paint


def _wrap(value: np.ndarray, period: float) -> np.ndarray:
    """The remainder in [0, period); much faster than NumPy's ``%``."""
    return value - np.floor(value * np.float32(1.0 / period)) * np.float32(period)


def _tiled(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sample a periodic texture at places in texels."""
    height, width = texture.shape
    return cv2.remap(
        texture, _wrap(x, float(width)), _wrap(y, float(height)), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )


def _step(value: np.ndarray, width: np.ndarray) -> np.ndarray:
    """0 below and 1 above zero, with a ramp as wide as a pixel."""
    return np.clip(value / np.maximum(width, np.float32(1e-3)) + np.float32(0.5), 0.0, 1.0)


def _lines(value: np.ndarray, every: float, width: float, pixel: np.ndarray) -> np.ndarray:
    """Parallel lines at a spacing of ``every`` [m]; lines narrower than a pixel fade to their share of it."""
    distance = np.abs(_wrap(value, every) - np.float32(every / 2.0))
    sharp = _step(np.float32(width / 2.0) - distance, pixel)
    return sharp * np.clip(np.float32(width) / pixel, 0.0, 1.0)


def _beam(beam: Beam, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    ahead = (z - np.float32(beam.z)) * np.float32(beam.towards)
    spread = np.float32(0.9) + np.float32(0.12) * np.maximum(ahead, 0.0)
    level = cv2.exp(np.clip(-(((x - np.float32(beam.x)) / spread) ** 2), -30.0, 0.0))
    reach = np.clip(ahead * np.float32(0.4), 0.0, 1.0) * cv2.exp(np.clip(ahead * np.float32(-0.11), -30.0, 0.0))
    return np.float32(0.35) * level * reach * (ahead > 0)


class Sky:
    """The sky, and a distant skyline at the end of the street.

    :param random: source of all randomness
    :param light: of the street lamps and the night sky
    """

    def __init__(self, random: np.random.Generator, light: StreetLight) -> None:
        self._clouds = value_noise(random, 256, 512, (4, 6), 5)
        self._roofs = value_noise(random, 1, 2048, (1, 90), 3)[0]
        self._light = light

    def paint(self, canvas: Canvas, rays: np.ndarray) -> None:
        """Paint the sky; the ground is painted over its lower part afterwards.

        :param canvas: painted on
        :param rays: float32 [H, W, 3], see :meth:`.SceneCamera.rays`
        """
        rows = int(np.flatnonzero((rays[..., 1] > -0.02).any(axis=1))[-1:].sum()) + 1
        rays, data = rays[:rows], canvas.data[:rows]
        up, heading = rays[..., 1], rays[..., 0] / rays[..., 2]
        elevation = np.maximum(up, 0.0)
        map_x = _wrap(heading * np.float32(512 / 1.6), 512.0)
        map_y = np.clip(np.sqrt(elevation) * 255, 0, 255)
        clouds = cv2.remap(self._clouds, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        high = np.clip(elevation * np.float32(2.2), 0.0, 1.0)[..., None]
        cloud = np.clip(0.5 + 1.4 * clouds, 0.0, 1.0)[..., None]
        blue = np.array([0.72, 0.79, 0.86], np.float32) * (1 - high) + np.array([0.33, 0.50, 0.74], np.float32) * high
        data[..., DAY] = blue * (1.0 - 0.55 * cloud) + np.array([0.78, 0.79, 0.80], np.float32) * (0.55 * cloud)
        low = cv2.exp(-elevation * np.float32(7.0))[..., None]
        town = np.array([0.0026, 0.0019, 0.0014], np.float32)
        data[..., NIGHT] = town * (low * (0.6 + 0.8 * cloud)) + self._light.sky * np.float32(0.25)
        air = canvas.air.temperature
        # Clear sky: cold overhead, near the air's temperature at the horizon, where the path through the air is long.
        kelvin = air - 4.0 - 34.0 * (1.0 - cv2.exp(-elevation * np.float32(4.0))) + 6.0 * cloud[..., 0] * elevation
        data[..., HEAT] = black_body(kelvin)
        data[..., DEPTH] = _FAR
        data[..., BEAM] = 0.0
        canvas.labels[:] = SKY

        at = _wrap(heading * np.float32(2048 / 3.2), 2048.0).astype(np.int32) % 2048
        roofs = np.float32(0.030) + np.float32(0.022) * np.sign(self._roofs[at]) * np.sqrt(np.abs(self._roofs[at]))
        share = np.clip((roofs - up) * np.float32(canvas.camera.focal) + np.float32(0.5), 0.0, 1.0)
        values = np.zeros(CHANNELS, np.float32)
        values[DAY] = (0.42, 0.45, 0.50)
        values[NIGHT] = self._light.sky * 0.15
        values[HEAT] = black_body(air + 0.5)
        values[DEPTH] = _FAR
        canvas.blend((slice(0, rows), slice(None)), share, values, BUILDING)
