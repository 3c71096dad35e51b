"""Cars: a side profile extruded across the width, with wheels, glass and lights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from textdifuse_ros.scenes.canvas import Canvas, Color, Light, Surface
from textdifuse_ros.scenes.config import CAR

# (along the car, height) [m], clockwise from the lower front over hood, windshield, roof and trunk to the lower rear.
_PROFILES = {
    "sedan": ((2.20, 0.28), (2.24, 0.55), (2.12, 0.76), (1.05, 0.97), (0.25, 1.42), (-0.95, 1.44), (-1.65, 1.06),
              (-2.15, 1.00), (-2.24, 0.62), (-2.20, 0.30)),
    "hatch": ((1.95, 0.28), (2.00, 0.58), (1.88, 0.82), (1.05, 1.00), (0.35, 1.48), (-1.15, 1.50), (-1.75, 1.08),
              (-1.92, 1.00), (-1.98, 0.62), (-1.94, 0.30)),
    "van": ((2.25, 0.32), (2.32, 0.66), (2.20, 1.00), (1.60, 1.18), (0.95, 1.92), (-2.20, 1.98), (-2.32, 1.20),
            (-2.34, 1.10), (-2.36, 0.66), (-2.32, 0.34)),
}  # fmt: skip
_HOOD, _WINDSHIELD, _ROOF, _REAR = 2, 3, 4, 5  # segments of the profile, by their first point
PAINTS: tuple[Color, ...] = (
    (0.55, 0.56, 0.58), (0.03, 0.03, 0.035), (0.70, 0.70, 0.69), (0.28, 0.03, 0.03), (0.05, 0.09, 0.24),
    (0.20, 0.21, 0.22), (0.10, 0.16, 0.12), (0.36, 0.32, 0.25),
)  # fmt: skip
_GLASS: Color = (0.055, 0.065, 0.075)
_FINE = 9.0  # least pixels per meter at which hubs, seams and plates are painted
_TURN = [(math.cos(k * math.pi / 8), math.sin(k * math.pi / 8)) for k in range(16)]


@dataclass(frozen=True)
class Car:
    """A car at one moment.

    :ivar kind: a key of the profiles: sedan, hatch or van
    :ivar x: across the street [m]
    :ivar z: along the street [m]
    :ivar ahead: 1 if it points in the driving direction of the camera's vehicle, -1 if it is oncoming
    :ivar paint: albedo, linear RGB
    :ivar instance: its value in the instance image
    :ivar warmth: from 0 for a car parked long ago to 1 for a moving one
    :ivar lit: whether its lights are on
    """

    kind: str
    x: float
    z: float
    ahead: float
    paint: Color
    instance: int
    warmth: float = 0.0
    lit: bool = False


class _Body:
    """Transforms points of a car, (along, across, height) [m], to the world."""

    def __init__(self, car: Car) -> None:
        self._car = car

    def place(self, points: list[tuple[float, float, float]]) -> np.ndarray:
        x, z, ahead = self._car.x, self._car.z, self._car.ahead
        return np.array([(x + ahead * side, up, z + ahead * along) for along, side, up in points])

    def half(self, height: float, belt: float, top: float) -> float:
        """Half the width at a height: the cabin narrows above the belt line."""
        return 0.88 - 0.2 * max(0.0, height - belt) / (top - belt)


def paint_car(canvas: Canvas, car: Car, light: Light) -> None:
    """Paint a car and its shadow.

    :param canvas: painted on
    :param car: to paint
    :param light: at its place
    """
    body = _Body(car)
    profile = _PROFILES[car.kind]
    belt, top = profile[3][1], profile[5][1]
    air = canvas.air.temperature
    shadow = Surface((0.012, 0.012, 0.013), air + 2.6 + 4.0 * car.warmth)
    nose, tail = profile[1][0], profile[8][0]
    floor = [(nose + 0.05, -1.0, 0.01), (nose + 0.05, 1.0, 0.01), (tail - 0.1, 1.0, 0.01), (tail - 0.1, -1.0, 0.01)]
    canvas.polygon(body.place(floor), shadow, replace(light, facing=0.03), None, opacity=0.75)

    position = canvas.camera.position
    sides = [1.0, -1.0]
    sides.sort(key=lambda side: -abs(car.x + car.ahead * side * 0.9 - position[0]))
    _wheels(canvas, car, body, sides, light, profile)
    strips = []
    for index in range(len(profile) - 1):
        (a0, h0), (a1, h1) = profile[index], profile[index + 1]
        w0, w1 = body.half(h0, belt, top), body.half(h1, belt, top)
        corners = body.place([(a0, -w0, h0), (a0, w0, h0), (a1, w1, h1), (a1, -w1, h1)])
        normal = np.array([0.0, a0 - a1, (h1 - h0) * car.ahead])
        if normal @ (corners[0] - position) < 0:
            distance = math.dist(corners.sum(axis=0) / 4.0, position)
            strips.append((distance, index, corners, float(normal[1]) / math.hypot(*normal)))
    near_side = sides[-1]
    if abs(position[0] - car.x) > 0.88:
        _side(canvas, car, body, near_side, light, profile)
    for _, index, corners, tilt in sorted(strips, key=lambda strip: -strip[0]):
        surface, day = _strip(car, index, air), 0.62 + 0.38 * max(tilt, 0.0)
        facing = 0.25 if tilt > 0.7 else 0.9
        turned = light.turned(day)
        canvas.polygon(corners, surface, Light(turned.night, turned.day, facing), CAR, car.instance)
    _lamps(canvas, car, body, light, profile)


def _strip(car: Car, index: int, air: float) -> Surface:
    """The material of a strip of the profile. The roof radiates to the cold sky and cools below the air."""
    warm = car.warmth
    if index in (_WINDSHIELD, _REAR):
        return Surface(_GLASS, air + 1.0 + 3.0 * warm, 0.82)
    if index == _HOOD:
        return Surface(car.paint, air - 1.0 + 18.0 * warm, 0.88)
    if index == _ROOF:
        return Surface(car.paint, air - 2.5 + 2.0 * warm, 0.86)
    if index in (0, 1):
        return Surface(_darker(car.paint, 0.55), air + 0.5 + 15.0 * warm, 0.92)
    return Surface(_darker(car.paint, 0.8), air + 0.5 + 4.0 * warm, 0.9)


def _darker(color: Color, factor: float) -> Color:
    return (color[0] * factor, color[1] * factor, color[2] * factor)


def _side(
    canvas: Canvas, car: Car, body: _Body, side: float, light: Light, profile: tuple[tuple[float, float], ...]
) -> None:
    belt, top = profile[3][1], profile[5][1]
    air = canvas.air.temperature
    facing = Light(light.night, light.day * 0.75, 0.2)
    outline = [(along, side * body.half(height, belt, top), height) for along, height in profile]
    metal = Surface(car.paint, air + 0.3 + 2.0 * car.warmth, 0.9)
    canvas.polygon(body.place(outline), metal, facing, CAR, car.instance)
    front, back = profile[4], profile[5]
    low_front, low_back = profile[3][0] - 0.12, profile[6][0] + 0.22
    pillar = (front[0] + back[0]) / 2.0
    sill, head = belt + 0.03, top - 0.09
    glass = Surface(_GLASS, air + 0.5 + 3.0 * car.warmth, 0.82)

    def pane(points: list[tuple[float, float]]) -> None:
        shape = [(along, side * (body.half(height, belt, top) + 0.004), height) for along, height in points]
        canvas.polygon(body.place(shape), glass, facing, CAR, car.instance)

    pane([(low_front, sill), (front[0] - 0.02, head), (pillar + 0.05, head), (pillar + 0.05, sill)])
    rear_top = min(back[0] + 0.12, pillar - 0.3)
    if car.kind != "van":
        pane([(pillar - 0.05, sill), (pillar - 0.05, head), (rear_top, head), (low_back, sill)])
    if canvas.scale(car.z) < _FINE:
        return
    seam = Surface(_darker(car.paint, 0.35), air)
    for start in (pillar, profile[3][0] - 0.15):
        shape = [(start, 0.4), (start + 0.025, 0.4), (start + 0.025, belt), (start, belt)]
        canvas.polygon(body.place([(a, side * 0.886, h) for a, h in shape]), seam, facing, CAR, car.instance)


def _wheels(
    canvas: Canvas, car: Car, body: _Body, sides: list[float], light: Light, profile: tuple[tuple[float, float], ...]
) -> None:
    air = canvas.air.temperature
    tire = Surface((0.02, 0.02, 0.022), air + 1.0 + 13.0 * car.warmth)
    hub = Surface((0.30, 0.30, 0.31), air + 1.0 + 20.0 * car.warmth, 0.7)
    axles = (profile[1][0] - 0.82, profile[8][0] + 0.78)
    dim = Light(light.night * 0.6, light.day * 0.6, 0.2)
    fine = canvas.scale(car.z) >= _FINE
    for side in sides:
        shown = (canvas.camera.position[0] - car.x) * car.ahead * side > 0.9
        for axle in axles if shown else ():
            for surface, radius, out in ((tire, 0.33, 0.90), (hub, 0.19, 0.905))[: 2 if fine else 1]:
                ring = [(axle + radius * c, side * out, 0.33 + radius * s) for c, s in _TURN]
                canvas.polygon(body.place(ring), surface, dim, CAR, car.instance)
        # From behind or ahead a wheel looks like a block under the body.
        for axle in axles if fine else ():
            end = axle - 0.3 if (canvas.camera.position[2] < car.z) == (car.ahead > 0) else axle + 0.3
            block = [(end, side * 0.9, 0.0), (end, side * 0.68, 0.0), (end, side * 0.68, 0.45), (end, side * 0.9, 0.45)]
            canvas.polygon(body.place(block), tire, dim, CAR, car.instance)


def _lamps(canvas: Canvas, car: Car, body: _Body, light: Light, profile: tuple[tuple[float, float], ...]) -> None:
    air = canvas.air.temperature
    from_front = (canvas.camera.position[2] - car.z) * car.ahead > 0
    along, height = (profile[1][0] - 0.02, 0.66) if from_front else (profile[8][0] - 0.02, 0.80)
    if car.kind == "van":
        height += 0.12

    def plate(left: float, right: float, low: float, high: float, surface: Surface) -> None:
        shape = [(along, left, low), (along, right, low), (along, right, high), (along, left, high)]
        canvas.polygon(body.place(shape), surface, light, CAR, car.instance)

    for side in (-1.0, 1.0):
        if from_front:
            lamp = Surface((0.6, 0.6, 0.6), air + 3.0 * car.warmth, 0.9, (16.0, 15.0, 13.0) if car.lit else (0, 0, 0))
            plate(side * 0.48, side * 0.80, height - 0.07, height + 0.09, lamp)
        else:
            lamp = Surface((0.35, 0.02, 0.02), air + 3.0 * car.warmth, 0.9, (1.5, 0.05, 0.03) if car.lit else (0, 0, 0))
            plate(side * 0.60, side * 0.84, height - 0.09, height + 0.12, lamp)
    if canvas.scale(car.z) < _FINE:
        return
    number = Surface((0.6, 0.6, 0.55), air + 0.5, 0.9, (0.05, 0.05, 0.04) if car.lit else (0, 0, 0))
    plate(-0.26, 0.26, 0.48, 0.59, number)
    if from_front:
        grille = Surface((0.02, 0.02, 0.02), air + 22.0 * car.warmth)
        plate(-0.45, 0.45, 0.36, 0.62 if car.kind != "van" else 0.85, grille)
    elif car.warmth > 0.5:
        plate(0.42, 0.52, 0.27, 0.35, Surface((0.05, 0.05, 0.05), air + 60.0))  # the exhaust
