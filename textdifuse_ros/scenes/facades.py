"""Buildings: procedural textures of their walls, painted in perspective."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from textdifuse_ros.scenes.camera import clip_near
from textdifuse_ros.scenes.canvas import BEAM, CHANNELS, DAY, DEPTH, HEAT, NIGHT, Canvas
from textdifuse_ros.scenes.config import BUILDING
from textdifuse_ros.scenes.lights import StreetLight
from textdifuse_ros.scenes.noise import value_noise
from textdifuse_ros.scenes.thermal import Air, radiance

_DENSITY = 18.0  # texels per meter
_HEAT_LOW, _HEAT_SPAN = 0.35, 0.9  # radiance at 0 in the texture, and its span up to 255
_WALLS = (
    (0.36, 0.17, 0.12), (0.50, 0.44, 0.34), (0.40, 0.40, 0.40), (0.52, 0.38, 0.22), (0.30, 0.22, 0.18),
    (0.55, 0.52, 0.47), (0.33, 0.36, 0.40), (0.46, 0.28, 0.20),
)  # fmt: skip
_BULBS = ((1.0, 0.72, 0.38), (1.0, 0.82, 0.58), (0.85, 0.92, 1.0), (1.0, 0.6, 0.28))


@dataclass(frozen=True)
class Wall:
    """A textured flat rectangle.

    :ivar corner: lower near corner, float64 [3], world [m]
    :ivar along: unit vector of its length
    :ivar up: unit vector of its height (inclined for a roof)
    :ivar normal: outward unit vector
    :ivar length: [m]
    :ivar height: [m]
    :ivar levels: mipmap of pairs of uint8 [h, w, 4] textures: square root of the color by day and radiance; square root
        of the light at night and emissivity
    :ivar gable: height of the gable, which is part of the height [m]; 0 for a rectangle
    """

    corner: np.ndarray
    along: np.ndarray
    up: np.ndarray
    normal: np.ndarray
    length: float
    height: float
    levels: list[tuple[np.ndarray, np.ndarray]]
    gable: float = 0.0

    def outline(self) -> np.ndarray:
        """Its corners, float64 [N, 3], world [m]."""
        across, high = self.along * self.length, self.up * self.height
        top = [self.corner + across + high, self.corner + high]
        if self.gable:
            eaves = self.up * (self.height - self.gable)
            top = [self.corner + across + eaves, self.corner + across / 2.0 + high, self.corner + eaves]
        return np.array([self.corner, self.corner + across, *top])


class _Front:
    """Draws the texture of a wall: [rows from the roof down, columns, ...]."""

    def __init__(self, random: np.random.Generator, length: float, height: float, air: float) -> None:
        self.random, self.air = random, air
        self.rows, self.columns = max(round(height * _DENSITY), 4), max(round(length * _DENSITY), 4)
        self.length, self.height = length, height
        grain = value_noise(random, self.rows, self.columns, (9, 14), 5)[..., None]
        fine = random.uniform(-1.0, 1.0, (self.rows, self.columns, 1)).astype(np.float32)
        base = np.array(_WALLS[random.integers(len(_WALLS))], np.float32) * random.uniform(0.8, 1.15)
        self.day = base * (1.0 + 0.16 * grain + 0.05 * fine)
        self.glow = np.zeros_like(self.day)
        self.heat = air + 3.2 + 0.7 * grain[..., 0] + random.uniform(-1.6, 1.4)
        self.emissivity = np.full((self.rows, self.columns), 0.94, np.float32)

    def box(self, left: float, bottom: float, width: float, height: float) -> tuple[slice, slice]:
        """The texels of a rectangle, given in meters from the lower left."""
        top = self.height - bottom - height
        rows = slice(max(round(top * _DENSITY), 0), max(round((top + height) * _DENSITY), 0))
        return rows, slice(max(round(left * _DENSITY), 0), max(round((left + width) * _DENSITY), 0))

    def band(self, bottom: float, height: float, factor: float, warmer: float = 0.0) -> None:
        area = self.box(0.0, bottom, self.length, height)
        self.day[area] *= factor
        self.heat[area] += warmer

    def window(self, left: float, bottom: float, width: float, height: float, lit: float, bars: int) -> None:
        """Draw a window with frame and sill, lit with probability ``lit``."""
        random = self.random
        frame = self.box(left - 0.1, bottom - 0.1, width + 0.2, height + 0.2)
        self.day[frame] = 0.58
        self.heat[frame] = self.air + 3.6
        self.day[self.box(left - 0.16, bottom - 0.2, width + 0.32, 0.1)] *= 0.72
        self.heat[self.box(left, bottom - 0.75, width, 0.5)] += random.uniform(0.2, 1.6)  # the radiator below
        glass = self.box(left, bottom, width, height)
        count = self.day[glass].shape[0]
        if not count or not self.day[glass].shape[1]:
            return
        slope = np.linspace(1.0, 0.35, count, dtype=np.float32)[:, None, None]
        self.day[glass] = np.array([0.13, 0.16, 0.19], np.float32) * slope
        self.emissivity[glass] = 0.84
        if random.random() < lit:
            bulb = np.array(_BULBS[random.integers(len(_BULBS))], np.float32) * random.uniform(0.12, 0.7)
            self.glow[glass] = bulb * (0.55 + 0.45 * slope[::-1] ** 2)
            if random.random() < 0.5:  # curtains
                share = random.uniform(0.15, 0.4) * width
                for start in (left, left + width - share):
                    self.glow[self.box(start, bottom, share, height)] *= 0.35
            self.heat[glass] = self.air + random.uniform(7.0, 10.0)
        else:
            self.heat[glass] = self.air + random.uniform(1.5, 5.0)
        for bar in range(1, bars):
            self._bar(self.box(left + bar * width / bars - 0.03, bottom, 0.07, height))
        self._bar(self.box(left, bottom + 0.66 * height, width, 0.06))

    def _bar(self, area: tuple[slice, slice]) -> None:
        self.day[area] = 0.5
        self.glow[area] *= 0.1
        self.heat[area] = self.air + 3.4

    def door(self, left: float, width: float) -> None:
        self.day[self.box(left - 0.12, 0.0, width + 0.24, 2.5)] = 0.45
        color = self.random.uniform(0.04, 0.2, 3).astype(np.float32)
        self.day[self.box(left, 0.0, width, 2.35)] = color
        self.heat[self.box(left, 0.0, width, 2.35)] = self.air + 5.0

    def texture(
        self, flux: np.ndarray, light: StreetLight, day: float, air: Air
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """All levels of the texture.

        :param flux: float32 [rows, columns], illuminance by the lamps
        """
        down = np.linspace(1.0, 0.72, self.rows, dtype=np.float32)[:, None, None]
        color = self.day * (day * down) + 0.5 * self.glow
        night = self.day * light.night(flux) + self.glow
        heat = (radiance(self.heat, self.emissivity, air) - _HEAT_LOW) / _HEAT_SPAN
        first = np.dstack([np.sqrt(np.clip(color, 0, 1)), np.clip(heat, 0, 1)])
        second = np.dstack([np.sqrt(np.clip(night, 0, 1)), self.emissivity])
        pair = (np.rint(first * 255).astype(np.uint8), np.rint(second * 255).astype(np.uint8))
        levels = [pair]
        while min(pair[0].shape[:2]) >= 8 and len(levels) < 6:
            pair = (cv2.pyrDown(pair[0]), cv2.pyrDown(pair[1]))
            levels.append(pair)
        return levels


def _draw_front(random: np.random.Generator, length: float, height: float, air: float) -> _Front:
    front = _Front(random, length, height, air)
    ground, story = random.uniform(3.4, 4.0), random.uniform(2.9, 3.3)
    pitch, width, tall = random.uniform(2.2, 3.2), random.uniform(1.0, 1.5), random.uniform(1.4, 1.8)
    columns = max(int((length - 0.6) / pitch), 1)
    margin = (length - columns * pitch) / 2.0
    if random.random() < 0.5:
        front.band(0.0, ground - 0.3, random.uniform(0.6, 1.3))
    front.band(0.0, 0.7, 0.6, 0.6)
    shop = random.random() < 0.45
    shop_lit = random.random() < 0.4
    entrance = int(random.integers(columns))
    for column in range(columns):
        left = margin + column * pitch + (pitch - width) / 2.0
        if column == entrance:
            front.door(left, min(width, 1.15))
        elif shop:
            front.window(margin + column * pitch + 0.2, 0.5, pitch - 0.4, 2.2, 1.0 if shop_lit else 0.05, 1)
        else:
            front.window(left, 1.1, width, tall, 0.15, 2)
        floor = ground
        while floor + story <= height - 0.3:
            front.window(left, floor + 0.8, width, tall, 0.2, 2)
            floor += story
    floor = ground
    while floor < height - 1.0:
        front.band(floor - 0.12, 0.22, 1.18, 0.8)  # the warm edge of each floor slab
        floor += story
    front.band(height - 0.5, 0.5, 1.3, -0.6)
    if shop and shop_lit:
        sign = front.box(margin, 2.95, length - 2 * margin, 0.45)
        front.day[sign] = random.uniform(0.1, 0.6, 3)
        front.glow[sign] = random.uniform(0.02, 0.5, 3) * (random.random() < 0.5)
    pipe = front.box(0.15, 0.0, 0.12, height)
    front.day[pipe] *= 0.45
    return front


def build_walls(
    random: np.random.Generator, side: int, near: float, length: float, face: float, height: float,
    light: StreetLight, air: Air,
) -> list[Wall]:  # fmt: skip
    """Build a building beside the street: the end that faces the vehicle, the roof and the front.

    :param random: source of all randomness
    :param side: -1 for the left, 1 for the right
    :param near: Z of the near end [m]
    :param length: along the street [m]
    :param face: distance of the front from the middle of the street [m]
    :param height: up to the eaves [m]
    :param light: of the street lamps
    :param air: its temperature determines that of the walls
    """
    up, along = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    outwards = np.array([float(side), 0.0, 0.0])
    corner = np.array([side * face, 0.0, near])
    depth = 9.0
    walls = []

    ridge = float(random.uniform(2.2, 3.6))
    end = _Front(random, depth, height + ridge, air.temperature)
    if random.random() < 0.6:
        for floor in np.arange(4.4, height - 2.0, 3.1):
            end.window(2.0, floor, 0.9, 1.3, 0.15, 1)
    walls.append(replace(_wall(end, corner, outwards, up, -along, light, 0.62, air), gable=ridge))

    slope = float(np.hypot(depth / 2.0, ridge))
    sine, cosine = ridge / slope, depth / 2.0 / slope
    lean = np.array([cosine * side, sine, 0.0])
    roof = _Front(random, length, slope, air.temperature)
    tiles = 1.0 + 0.15 * np.sign(np.sin(np.arange(roof.rows) * (2 * np.pi / 0.35 / _DENSITY)))[:, None, None]
    roof.day[:] = np.array([0.24, 0.12, 0.09] if random.random() < 0.5 else [0.13, 0.13, 0.14]) * tiles
    roof.heat[:] = air.temperature - 4.0
    for left in np.arange(2.0, length - 2.0, random.uniform(3.5, 6.0)):
        if random.random() < 0.5:
            roof.window(left, 0.8, 0.9, 1.1, 0.2, 1)
    normal = np.array([-sine * side, cosine, 0.0])
    walls.append(_wall(roof, corner + height * up, along, lean, normal, light, 0.9, air))

    front = _draw_front(random, length, height, air.temperature)
    walls.append(_wall(front, corner, along, up, -outwards, light, 0.85 if side < 0 else 0.72, air))
    return walls


def _wall(
    front: _Front, corner: np.ndarray, along: np.ndarray, up: np.ndarray, normal: np.ndarray,
    light: StreetLight, day: float, air: Air,
) -> Wall:  # fmt: skip
    across = np.linspace(0.0, front.length, 16)[None, :, None] * along
    high = np.linspace(front.height, 0.0, 12)[:, None, None] * up
    coarse = light.flux((corner + across + high).astype(np.float32), tuple(normal))
    flux = cv2.resize(coarse, (front.columns, front.rows), interpolation=cv2.INTER_LINEAR)
    levels = front.texture(flux, light, day, air)
    return Wall(corner, along, up, normal, front.length, front.height, levels)


def paint_wall(canvas: Canvas, wall: Wall) -> None:
    """Paint a wall if it faces the camera.

    :param canvas: painted on
    :param wall: to paint
    """
    camera = canvas.camera
    away = float(wall.normal @ (wall.corner - camera.position))
    if away >= -1e-3:
        return
    outline = wall.outline()
    if not camera.sees(outline):
        return
    local = clip_near(camera.to_camera(outline))
    if len(local) < 3:
        return
    covered = canvas.mask(camera.to_pixels(local))
    if covered is None:
        return
    (rows, columns), share = covered
    height, width = share.shape
    first, second, to_texture = _at_level(wall, canvas, columns.start, rows.start, float(np.median(local[:, 2])))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    one = cv2.warpPerspective(first, to_texture, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    two = cv2.warpPerspective(second, to_texture, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    normal = camera.rotation @ wall.normal
    x = (np.arange(columns.start, columns.stop) - camera.center[0]) / camera.focal
    y = (np.arange(rows.start, rows.stop) - camera.center[1]) / camera.focal
    slant = normal[0] * x[None] + normal[1] * y[:, None] + normal[2]
    depth = np.clip(away / np.minimum(slant, -1e-6), 0.4, 400.0).astype(np.float32)

    values = np.empty((height, width, CHANNELS), np.float32)
    color = one[..., :3].astype(np.float32) * np.float32(1 / 255)
    color *= color
    values[..., DAY] = color
    values[..., BEAM] = color * np.minimum(np.float32(-away) / depth, 1.0)[..., None]
    glow = two[..., :3].astype(np.float32) * np.float32(1 / 255)
    values[..., NIGHT] = glow * glow
    sent = one[..., 3].astype(np.float32) * np.float32(_HEAT_SPAN / 255) + np.float32(_HEAT_LOW)
    values[..., HEAT] = canvas.air.transmit(sent, depth)
    values[..., DEPTH] = depth
    canvas.blend((rows, columns), share, values, BUILDING)


def _at_level(
    wall: Wall, canvas: Canvas, left: int, top: int, depth: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The textures of the mipmap level for a depth, and the homography from the region's pixels to them."""
    camera = canvas.camera
    finest = wall.levels[0][0].shape
    # Perspective compresses a wall along the street more than in height: use the geometric mean.
    squeeze = max(float(abs(wall.normal @ (wall.corner - camera.position))) / depth, 0.05) ** 0.5
    texels = _DENSITY * depth / camera.focal / squeeze
    level = int(np.clip(np.floor(np.log2(max(texels, 1e-6)) + 0.25), 0, len(wall.levels) - 1))
    first, second = wall.levels[level]
    across = wall.along * (wall.length / finest[1]) * (finest[1] / first.shape[1])
    down = -wall.up * (wall.height / first.shape[0])
    origin = wall.corner + wall.up * wall.height - camera.position + 0.5 * (across + down)
    to_camera = camera.rotation @ np.stack([across, down, origin], axis=1)
    shift = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
    return first, second, np.linalg.inv(shift @ camera.matrix @ to_camera)
