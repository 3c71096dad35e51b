"""Street furniture: trees, lamp posts and signs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.scenes.canvas import BEAM, CHANNELS, DAY, DEPTH, HEAT, NIGHT, Canvas, Light, Surface
from textdifuse_ros.scenes.config import POLE, TREE
from textdifuse_ros.scenes.lights import LAMP_HEIGHT, SODIUM
from textdifuse_ros.scenes.noise import value_noise
from textdifuse_ros.scenes.thermal import radiance

_CROWN = 224  # texels of a crown's texture


@dataclass(frozen=True)
class Tree:
    """A tree.

    :ivar x: across the street [m]
    :ivar z: along the street [m]
    :ivar height: [m]
    :ivar width: of the crown [m]
    :ivar crown: index of the texture
    """

    x: float
    z: float
    height: float
    width: float
    crown: int


@dataclass(frozen=True)
class Lamp:
    """A lamp post at the curb, with an arm over the road.

    :ivar x: across the street [m]
    :ivar z: along the street [m]
    :ivar burns: whether it is on
    """

    x: float
    z: float
    burns: bool

    @property
    def luminaire(self) -> tuple[float, float, float]:
        """World position of the light source [m]."""
        return (self.x - np.sign(self.x) * 1.7, LAMP_HEIGHT, self.z)


@dataclass(frozen=True)
class Sign:
    """A round retroreflective traffic sign.

    :ivar x: across the street [m]
    :ivar z: along the street [m]
    """

    x: float
    z: float


class Crowns:
    """Textures of tree crowns: pyramids of float32 [h, w, 3] with coverage, shade and warmth.

    :param random: source of all randomness
    :param count: number of textures
    """

    def __init__(self, random: np.random.Generator, count: int = 4) -> None:
        self._pyramids = [self._pyramid(random) for _ in range(count)]

    def __len__(self) -> int:
        return len(self._pyramids)

    @staticmethod
    def _pyramid(random: np.random.Generator) -> list[np.ndarray]:
        size = _CROWN
        y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
        body = np.zeros((size, size), np.float32)
        for _ in range(34):  # tufts of leaves, scattered over an oval
            angle, reach = random.uniform(0, 2 * np.pi), random.uniform(0.0, 0.30)
            cx, cy, r = reach * np.cos(angle), reach * 1.05 * np.sin(angle), random.uniform(0.09, 0.17)
            body = np.maximum(body, 1.0 - ((x - cx) ** 2 + (y - cy) ** 2) / r**2)
        ragged = value_noise(random, size, size, (20, 20), 4)
        cover = np.clip((body + 0.85 * ragged - 0.02) * 3.5, 0.0, 1.0)
        tufts = value_noise(random, size, size, (11, 11), 4)
        shade = np.clip(0.75 + 0.55 * tufts - 0.5 * y, 0.2, 1.4)
        level: np.ndarray = np.dstack([cover, shade, tufts]).astype(np.float32)
        pyramid = [level]
        while level.shape[0] > 16:
            level = cv2.pyrDown(level)
            pyramid.append(level)
        return pyramid

    def level(self, crown: int, pixels: float) -> np.ndarray:
        """The coarsest texture of a crown that is not coarser than the image.

        :param crown: index of the texture
        :param pixels: size of the crown in the image
        """
        pyramid = self._pyramids[crown % len(self._pyramids)]
        index = int(np.clip(np.floor(np.log2(max(_CROWN / max(pixels, 1.0), 1.0)) + 0.3), 0, len(pyramid) - 1))
        return pyramid[index]


def _above(point: np.ndarray, height: float) -> np.ndarray:
    return point + np.array([0.0, height, 0.0])


def paint_tree(canvas: Canvas, tree: Tree, crowns: Crowns, light: Light) -> None:
    """Paint trunk and crown; the crown always faces the camera.

    :param canvas: painted on
    :param tree: to paint
    :param crowns: textures
    :param light: at its place
    """
    air = canvas.air.temperature
    foot = np.array([tree.x, 0.0, tree.z])
    middle = _above(foot, tree.height * 0.68)
    bark = Surface((0.10, 0.08, 0.06), air + 1.6)
    canvas.limb([(foot, 0.17), (_above(foot, tree.height * 0.35), 0.12)], bark, light, TREE)
    for side in (-0.8, 0.7):
        bough = foot + np.array([side, tree.height * 0.62, 0.0])
        canvas.limb([(_above(foot, tree.height * 0.33), 0.10), (bough, 0.05)], bark, light, TREE)
    local = canvas.camera.to_camera(middle[None])
    depth = float(local[0, 2])
    if depth < 1.0:
        return
    x, y = canvas.camera.to_pixels(local)[0]
    wide, high = np.array([tree.width, tree.height * 0.66]) * canvas.camera.focal / depth
    height, width = canvas.labels.shape
    x0, x1 = max(int(x - wide / 2), 0), min(int(x + wide / 2) + 2, width)
    y0, y1 = max(int(y - high / 2), 0), min(int(y + high / 2) + 2, height)
    if x0 >= x1 or y0 >= y1:
        return
    texture = crowns.level(tree.crown, max(wide, high))
    rows, columns = texture.shape[:2]
    sx, sy = columns / wide, rows / high
    to_texture = np.array([[sx, 0.0, (x0 - x + wide / 2) * sx], [0.0, sy, (y0 - y + high / 2) * sy]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(texture, to_texture, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    shade = patch[..., 1:2]
    values = np.empty((*patch.shape[:2], CHANNELS), np.float32)
    leaf = np.array([0.085, 0.12, 0.045], np.float32)
    values[..., DAY] = leaf * shade * np.float32(light.day)
    values[..., NIGHT] = leaf * shade * light.night
    values[..., HEAT] = canvas.air.transmit(radiance(air + 0.4 + 1.1 * patch[..., 2], 0.97, canvas.air), depth)
    values[..., DEPTH] = depth
    values[..., BEAM] = leaf * shade * np.float32(0.6)
    canvas.blend((slice(y0, y1), slice(x0, x1)), patch[..., 0], values, TREE)


def paint_lamp(canvas: Canvas, lamp: Lamp, light: Light) -> None:
    """Paint a lamp post with its arm and luminaire.

    :param canvas: painted on
    :param lamp: to paint
    :param light: at its place
    """
    air = canvas.air.temperature
    steel = Surface((0.16, 0.17, 0.17), air - 0.8, 0.85)
    foot, head = np.array([lamp.x, 0.0, lamp.z]), np.array(lamp.luminaire)
    top = np.array([lamp.x, LAMP_HEIGHT - 0.25, lamp.z])
    canvas.limb([(foot, 0.11), (_above(foot, 1.0), 0.10)], steel, light, POLE)
    canvas.limb([(foot, 0.075), (top, 0.05)], steel, light, POLE)
    canvas.limb([(top, 0.045), (_above(head, 0.08), 0.035)], steel, light, POLE)
    inwards = -np.sign(lamp.x) * np.array([0.35, 0.0, 0.0])
    casing = Surface((0.2, 0.2, 0.2), air + (9.0 if lamp.burns else -0.8), 0.9)
    canvas.limb([(head - inwards, 0.09), (head + inwards, 0.07)], casing, light, POLE)
    if lamp.burns:
        glow = tuple(float(v) for v in 14.0 * SODIUM)
        bulb = Surface((0.3, 0.3, 0.3), air + 32.0, emission=(glow[0], glow[1], glow[2]))
        low = np.array([0.0, -0.07, 0.0])
        canvas.limb([(head + low - 0.7 * inwards, 0.06), (head + low + 0.7 * inwards, 0.06)], bulb, light, POLE)


def paint_sign(canvas: Canvas, sign: Sign, light: Light) -> None:
    """Paint a traffic sign; it reflects the headlights back to the vehicle and is much brighter than its surroundings.

    :param canvas: painted on
    :param sign: to paint
    :param light: at its place
    """
    air = canvas.air.temperature
    foot = np.array([sign.x, 0.0, sign.z])
    canvas.limb([(foot, 0.035), (_above(foot, 2.3), 0.035)], Surface((0.3, 0.3, 0.3), air - 0.8, 0.8), light, POLE)
    turn = np.arange(16) * (np.pi / 8)
    for radius, foil in ((0.33, (0.55, 0.03, 0.03)), (0.25, (0.75, 0.75, 0.75))):
        disc = np.stack([sign.x + radius * np.cos(turn), 2.35 + radius * np.sin(turn), np.full(16, sign.z)], axis=1)
        bright = Light(light.night, light.day, 6.0)
        canvas.polygon(disc, Surface(foil, air - 1.5, 0.85), bright, POLE)
