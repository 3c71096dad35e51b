"""Pedestrians and bicyclists, composed of limbs."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from textdifuse_ros.scenes.canvas import Canvas, Color, Light, Surface
from textdifuse_ros.scenes.config import BICYCLE, PERSON

SKIN: Color = (0.42, 0.27, 0.20)
CLOTHES: tuple[Color, ...] = (
    (0.03, 0.03, 0.04), (0.05, 0.06, 0.10), (0.10, 0.09, 0.08), (0.16, 0.03, 0.03), (0.08, 0.10, 0.07),
    (0.22, 0.21, 0.20), (0.06, 0.09, 0.16), (0.03, 0.03, 0.03),
)  # fmt: skip
_UP = np.array([0.0, 1.0, 0.0])
_SKIN_TEMPERATURE = 305.5
_SHIN_LENGTH, _THIGH_LENGTH = 0.43, 0.44
_FINE = 11.0  # least pixels per meter at which joints are painted


@dataclass(frozen=True)
class Person:
    """A person at one moment.

    :ivar x: across the street [m]
    :ivar z: along the street [m]
    :ivar heading: direction of walking [rad], 0 along the street
    :ivar phase: of the gait [rad]; 2 pi is two steps
    :ivar stride: from 0 for standing to 1 for a brisk walk
    :ivar height: [m]
    :ivar jacket: albedo, linear RGB
    :ivar trousers: likewise
    :ivar coat: whether the jacket is a coat down to the knees
    :ivar instance: its value in the instance image
    :ivar ground: height of the ground [m]
    """

    x: float
    z: float
    heading: float
    phase: float
    stride: float
    height: float
    jacket: Color
    trousers: Color
    coat: bool
    instance: int
    ground: float = 0.0


class _Figure:
    """Paints limbs in the axes of a person: forward, to the side, up [m]."""

    def __init__(self, canvas: Canvas, person: Person, light: Light, label: int = PERSON) -> None:
        self._canvas, self._light, self._label = canvas, light, label
        self._instance = person.instance
        self.scale = person.height / 1.75
        self.origin = np.array([person.x, person.ground, person.z])
        self.forward = np.array([math.sin(person.heading), 0.0, math.cos(person.heading)])
        self.side = np.array([math.cos(person.heading), 0.0, -math.sin(person.heading)])
        self.limbs: list[tuple[float, list[tuple[np.ndarray, float]], Surface]] = []

    def at(self, forward: float, side: float, up: float) -> np.ndarray:
        return self.origin + self.scale * (forward * self.forward + side * self.side + up * _UP)

    def limb(self, surface: Surface, *joints: tuple[np.ndarray, float], nearer: float = 0.0) -> None:
        """Add a limb; :meth:`paint` paints all limbs from far to near."""
        scaled = [(center, radius * self.scale) for center, radius in joints]
        here = self._canvas.camera.position
        x = sum(float(center[0]) for center, _ in joints) / len(joints) - float(here[0])
        z = sum(float(center[2]) for center, _ in joints) / len(joints) - float(here[2])
        distance = math.hypot(x, z) - nearer
        self.limbs.append((distance, scaled, surface))

    def paint(self) -> None:
        for _, joints, surface in sorted(self.limbs, key=lambda limb: -limb[0]):
            self._canvas.limb(joints, surface, self._light, self._label, self._instance)


def _wear(person: Person) -> tuple[Surface, Surface, Surface, Surface, Surface]:
    """Materials of jacket, sleeves, trousers, shoes and skin. Loose clothes are cooler than tight ones."""
    jacket = Surface(person.jacket, 298.0 - (1.5 if person.coat else 0.0))
    sleeves = Surface(person.jacket, 296.5)
    trousers = Surface(person.trousers, 297.5)
    return jacket, sleeves, trousers, Surface((0.03, 0.03, 0.03), 291.0), Surface(SKIN, _SKIN_TEMPERATURE, 0.98)


def paint_person(canvas: Canvas, person: Person, light: Light) -> None:
    """Paint a walking or standing person and the contact shadow.

    :param canvas: painted on
    :param person: to paint
    :param light: at its place
    """
    figure = _Figure(canvas, person, light)
    jacket, sleeves, trousers, shoes, skin = _wear(person)
    _shadow(canvas, figure.at(0.0, 0.0, 0.0), light)
    fine = canvas.scale(person.z) >= _FINE
    swing = 0.48 * person.stride
    bob = 0.02 * person.stride * math.cos(2.0 * person.phase)
    for sign in (-1.0, 1.0):
        angle = swing * math.sin(person.phase) * sign
        bend = 0.08 + 0.75 * person.stride * max(0.0, math.cos(person.phase) * sign)
        hip = figure.at(0.0, 0.09 * sign, 0.90 + bob)
        knee = hip + figure.scale * _THIGH_LENGTH * _swing(figure, angle)
        ankle = knee + figure.scale * _SHIN_LENGTH * _swing(figure, angle - bend)
        if not fine:
            figure.limb(trousers, (hip, 0.095), (ankle, 0.05))
            continue
        toe = ankle + figure.scale * (0.17 * figure.forward - 0.035 * _UP)
        figure.limb(trousers, (hip, 0.095), (knee, 0.062))
        figure.limb(trousers, (knee, 0.060), (ankle, 0.045))
        figure.limb(shoes, (ankle - 0.02 * _UP, 0.045), (toe, 0.032))
        shoulder = figure.at(0.0, 0.19 * sign, 1.42 + bob)
        elbow = shoulder + figure.scale * 0.29 * _swing(figure, -0.75 * angle - 0.05)
        hand = elbow + figure.scale * 0.25 * _swing(figure, -0.75 * angle + 0.12 + 0.5 * person.stride)
        figure.limb(sleeves, (shoulder, 0.062), (elbow, 0.050))
        figure.limb(sleeves, (elbow, 0.048), (hand, 0.038))
        figure.limb(skin, (hand, 0.043), (hand - 0.05 * figure.scale * _UP, 0.034))
    lean = 0.04 * person.stride
    chest = [(figure.at(lean, side, 1.40 + bob), 0.075 if fine else 0.11) for side in (-0.13, 0.13)]
    waist = [(figure.at(0.0, side, 0.93 + bob), 0.095) for side in (-0.08, 0.08)]
    figure.limb(jacket, *chest, *waist, nearer=0.02)
    if person.coat:
        hem = [(figure.at(0.05 * math.sin(person.phase), side, 0.55), 0.07) for side in (-0.13, 0.13)]
        figure.limb(jacket, *waist, *hem, nearer=0.03)
    _head(figure, lean, 1.62 + bob, skin, (0.03, 0.022, 0.018), fine)
    figure.paint()


def _swing(figure: _Figure, angle: float) -> np.ndarray:
    """The downward unit vector, rotated forward by an angle."""
    return math.sin(angle) * figure.forward - math.cos(angle) * _UP


def _head(figure: _Figure, lean: float, height: float, skin: Surface, hair: Color, fine: bool) -> None:
    neck = (figure.at(lean, 0.0, height - 0.17), 0.055)
    if not fine:
        figure.limb(skin, neck, (figure.at(lean, 0.0, height), 0.1), nearer=0.03)
        return
    figure.limb(skin, neck, (figure.at(lean, 0.0, height - 0.08), 0.05))
    figure.limb(
        skin, (figure.at(lean + 0.02, 0.0, height - 0.05), 0.075), (figure.at(lean + 0.01, 0.0, height + 0.03), 0.09),
        nearer=0.03,
    )  # fmt: skip
    figure.limb(
        Surface(hair, 298.5), (figure.at(lean - 0.025, 0.0, height + 0.07), 0.085),
        (figure.at(lean - 0.05, 0.0, height - 0.005), 0.075),
        nearer=0.03,
    )  # fmt: skip


def _shadow(canvas: Canvas, foot: np.ndarray, light: Light) -> None:
    turn = np.arange(12) * (np.pi / 6)
    points = np.stack([foot[0] + 0.3 * np.cos(turn), np.full(12, 0.01), foot[2] + 0.3 * np.sin(turn)], axis=1)
    heat = canvas.air.temperature + 3.0
    canvas.polygon(points, Surface((0.03, 0.03, 0.03), heat), replace(light, facing=0.03), None, opacity=0.5)


def paint_rider(canvas: Canvas, rider: Person, bicycle: int, light: Light) -> None:
    """Paint a bicycle, which is an instance of its own, and its rider.

    :param canvas: painted on
    :param rider: to paint; ``phase`` is that of the pedals
    :param bicycle: value of the bicycle in the instance image
    :param light: at its place
    """
    _bicycle(canvas, rider, bicycle, light)
    figure = _Figure(canvas, rider, light)
    jacket, sleeves, trousers, shoes, skin = _wear(rider)
    for sign in (-1.0, 1.0):
        turn = rider.phase + (0.0 if sign > 0 else math.pi)
        hip = figure.at(-0.18, 0.09 * sign, 0.98)
        foot = figure.at(0.06 + 0.17 * math.sin(turn), 0.11 * sign, 0.32 + 0.17 * math.cos(turn))
        knee = (hip + foot) / 2.0 + figure.scale * (0.20 * figure.forward + 0.10 * _UP)
        figure.limb(trousers, (hip, 0.10), (knee, 0.065))
        figure.limb(trousers, (knee, 0.06), (foot, 0.045))
        figure.limb(shoes, (foot, 0.045), (foot + 0.14 * figure.scale * figure.forward, 0.035))
        shoulder = figure.at(0.12, 0.18 * sign, 1.45)
        hand = figure.at(0.46, 0.22 * sign, 1.06)
        elbow = (shoulder + hand) / 2.0 + figure.scale * (0.06 * sign * figure.side - 0.05 * _UP)
        figure.limb(sleeves, (shoulder, 0.06), (elbow, 0.05))
        figure.limb(sleeves, (elbow, 0.048), (hand, 0.038))
        figure.limb(skin, (hand, 0.042))
    shoulders = [(figure.at(0.12, side, 1.42), 0.08) for side in (-0.12, 0.12)]
    hips = [(figure.at(-0.18, side, 1.0), 0.11) for side in (-0.07, 0.07)]
    figure.limb(jacket, *shoulders, *hips, nearer=0.02)
    _head(figure, 0.20, 1.66, skin, (0.5, 0.5, 0.45), canvas.scale(rider.z) >= _FINE)
    figure.paint()


def _bicycle(canvas: Canvas, rider: Person, instance: int, light: Light) -> None:
    figure = _Figure(canvas, Person(**{**vars(rider), "instance": instance, "height": 1.75}), light, BICYCLE)
    air = canvas.air.temperature
    rubber = Surface((0.02, 0.02, 0.02), air + 3.0)
    metal = Surface((0.22, 0.05, 0.05), air - 0.5, 0.75)
    pieces = 16 if canvas.scale(rider.z) >= 2.0 * _FINE else 8
    turn = np.arange(pieces + 1) * (2.0 * np.pi / pieces)
    for hub in (-0.52, 0.52):
        ring = [figure.at(hub + 0.33 * math.cos(t), 0.0, 0.34 + 0.33 * math.sin(t)) for t in turn]
        for start, end in itertools.pairwise(ring):
            figure.limb(rubber, (start, 0.022), (end, 0.022))
    seat, crank, head = (-0.20, 0.92), (-0.05, 0.32), (0.40, 0.86)
    rear, front = (-0.52, 0.34), (0.52, 0.34)
    for one, two in ((seat, crank), (crank, head), (seat, head), (rear, crank), (rear, seat), (front, head)):
        figure.limb(metal, (figure.at(one[0], 0.0, one[1]), 0.018), (figure.at(two[0], 0.0, two[1]), 0.018))
    figure.limb(metal, (figure.at(0.46, -0.25, 1.05), 0.016), (figure.at(0.46, 0.25, 1.05), 0.016))
    figure.limb(rubber, (figure.at(-0.30, 0.0, 0.95), 0.05), (figure.at(-0.10, 0.0, 0.95), 0.03))
    tail = Surface((0.3, 0.02, 0.02), air, emission=(1.2, 0.03, 0.02))
    figure.limb(tail, (figure.at(-0.36, 0.0, 0.82), 0.035), nearer=0.4)
    figure.paint()
