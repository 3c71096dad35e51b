"""The street and its people: the layout of the world, and the positions of moving objects over time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from textdifuse_ros.scenes.camera import LANE
from textdifuse_ros.scenes.cars import PAINTS, Car
from textdifuse_ros.scenes.config import DriveSceneConfig
from textdifuse_ros.scenes.facades import Wall, build_walls
from textdifuse_ros.scenes.furniture import Crowns, Lamp, Sign, Tree
from textdifuse_ros.scenes.ground import Ground, Sky
from textdifuse_ros.scenes.lights import StreetLight
from textdifuse_ros.scenes.persons import CLOTHES, Person
from textdifuse_ros.scenes.thermal import Air

VIEW = 190.0  # objects beyond this distance are not painted [m]
_CROSSING_EVERY = 130.0
_FIRST_CROSSING = 58.0
_FACE = 9.6  # distance of the fronts from the middle of the street [m]
_KINDS = ("sedan", "hatch", "sedan", "van", "hatch")


@dataclass(frozen=True)
class _Mover:
    """Uniform motion along x and z from a start, which begins at time ``begin``."""

    start_x: float
    start_z: float
    speed_x: float
    speed_z: float
    begin: float = -1e9
    wander: float = 0.0

    def at(self, time: float) -> tuple[float, float]:
        elapsed = time if self.begin < -1e8 else max(time - self.begin, 0.0)
        drift = self.wander * math.sin(0.55 * time)
        return self.start_x + self.speed_x * elapsed, self.start_z + self.speed_z * elapsed + drift


class Town:
    """The whole world, generated from the configuration's seed.

    :param config: of the drive
    """

    def __init__(self, config: DriveSceneConfig) -> None:
        random = np.random.default_rng([config.seed, 1])
        self.config = config
        self.air = Air(config.air_temperature)
        duration = config.frames / config.rate_hz
        self.length = config.speed * duration + VIEW + 30.0
        self._crossings = tuple(np.arange(_FIRST_CROSSING, self.length, _CROSSING_EVERY).tolist())
        self._instances = 0
        self.lamps = self._lamps(random)
        burning = [lamp.luminaire for lamp in self.lamps if lamp.burns]
        self.light = StreetLight(config, np.array(burning, np.float64).reshape(-1, 3))
        self.ground = Ground(random, self.light, self.length, self._crossings)
        self.sky = Sky(random, self.light)
        self.crowns = Crowns(random)
        self.walls = self._buildings(random)
        self.trees = self._trees(random)
        self.signs = [Sign(side * 6.1, z - side * 10.5) for z in self._crossings for side in (-1.0, 1.0)]
        self.signs += [Sign(6.1, float(z)) for z in np.arange(24.0, self.length, 75.0)]
        self._parked = self._park(random)
        self._cars = self._drive(random)
        self._persons = self._walk(random)
        self._riders = self._ride(random)

    def _next(self) -> int:
        self._instances += 1
        return self._instances

    def _near_crossing(self, z: float, margin: float) -> bool:
        return any(abs(z - middle) < margin for middle in self._crossings)

    def _lamps(self, random: np.random.Generator) -> list[Lamp]:
        found = []
        for index, z in enumerate(np.arange(-6.0, self.length, 21.0)):
            side = 1.0 if index % 2 else -1.0
            found.append(Lamp(side * 6.15, float(z), bool(random.random() < 0.75)))
        return found

    def _buildings(self, random: np.random.Generator) -> list[list[Wall]]:
        """The walls of each building, from far to near."""
        houses: list[tuple[float, list[Wall]]] = []
        for side in (-1, 1):
            z = -25.0 + random.uniform(0.0, 8.0)
            while z < self.length:
                length = float(random.uniform(9.0, 19.0))
                middle = next((c for c in self._crossings if z < c + 6.5 and z + length > c - 6.5), None)
                if middle is not None:
                    if z < middle - 14.5:
                        length = middle - 6.5 - z
                    else:
                        z = middle + 6.5
                        continue
                height = float(random.uniform(6.5, 15.0))
                face = _FACE + float(random.choice([0.0, 0.0, 0.6, 1.5]))
                walls = build_walls(random, side, z, length, face, height, self.light, self.air)
                houses.append((z, walls))
                z += length + (float(random.uniform(1.5, 4.5)) if random.random() < 0.3 else 0.0)
        return [walls for _, walls in sorted(houses, key=lambda house: -house[0])]

    def _trees(self, random: np.random.Generator) -> list[Tree]:
        found = []
        for z in np.arange(4.0, self.length, 10.5):
            for side in (-1.0, 1.0):
                place = float(z + 5.0 * (side > 0) + random.uniform(-1.0, 1.0))
                clear = all(abs(place - lamp.z) > 3.5 or lamp.x * side < 0 for lamp in self.lamps)
                if clear and not self._near_crossing(place, 11.0) and random.random() < 0.62:
                    height = float(random.uniform(5.5, 8.5))
                    width = height * float(random.uniform(0.5, 0.66))
                    found.append(Tree(side * 6.9, place, height, width, int(random.integers(8))))
        return found

    def _park(self, random: np.random.Generator) -> list[Car]:
        found = []
        for side in (-1.0, 1.0):
            for z in np.arange(-3.0, self.length, 6.2):
                taken = random.random() < 0.62
                kind, paint = _KINDS[random.integers(len(_KINDS))], PAINTS[random.integers(len(PAINTS))]
                offset, warm = float(random.uniform(-0.3, 0.3)), float(random.random() ** 5 * 0.9)
                if taken and not self._near_crossing(float(z), 12.0):
                    place = float(z) + 3.1 + offset
                    found.append(Car(kind, side * 4.62 + 0.2 * offset, place, side, paint, self._next(), warm))
        return found

    def _drive(self, random: np.random.Generator) -> list[tuple[_Mover, Car]]:
        """One car ahead in the same lane, others oncoming."""
        speed = self.config.speed
        ahead = Car("hatch", LANE, 0.0, 1.0, PAINTS[0], self._next(), 1.0, True)
        found = [(_Mover(LANE - 0.05, 33.0, 0.0, speed, wander=3.0), ahead)]
        z, traveled = 62.0, self.length - VIEW
        while z < traveled * 2.2 + VIEW:
            kind, paint = _KINDS[random.integers(len(_KINDS))], PAINTS[random.integers(len(PAINTS))]
            car = Car(kind, -LANE, 0.0, -1.0, paint, self._next(), 1.0, True)
            found.append((_Mover(-LANE - 0.1, z, 0.0, -max(speed, 6.0) * 1.1), car))
            z += float(random.uniform(45.0, 85.0))
        return found

    def _person(self, random: np.random.Generator, heading: float, stride: float) -> Person:
        colors = random.integers(len(CLOTHES), size=2)
        return Person(
            0.0, 0.0, heading, float(random.uniform(0.0, 6.28)), stride, float(random.uniform(1.58, 1.88)),
            CLOTHES[colors[0]], CLOTHES[colors[1]], bool(random.random() < 0.3), self._next(), 0.0,
        )  # fmt: skip

    def _walk(self, random: np.random.Generator) -> list[tuple[_Mover, Person]]:
        found = []
        z = 9.0
        while z < self.length:
            side = 1.0 if random.random() < 0.55 else -1.0
            along = 1.0 if random.random() < 0.5 else -1.0
            stride = 0.0 if random.random() < 0.12 else float(random.uniform(0.7, 1.0))
            x = side * float(random.uniform(7.6, 9.1) if self._near_crossing(z, 5.0) else random.uniform(7.5, 9.2))
            for _ in range(2 if random.random() < 0.25 else 1):
                person = self._person(random, 0.0 if along > 0 else math.pi, stride)
                found.append((_Mover(x, z, 0.0, 1.35 * along * stride), person))
                x -= 0.65 * side
            z += float(random.uniform(4.0, 10.0))
        for middle in self._crossings:
            arrival = (middle - 6.5) / max(self.config.speed, 1.0)
            for side, begin, offset in ((-1.0, arrival - 4.6, 0.4), (1.0, arrival - 3.4, -0.5)):
                person = self._person(random, -side * math.pi / 2.0, 1.0)
                mover = _Mover(side * 5.6, middle - 6.5 + offset, -side * 1.45, 0.0, max(begin, -1e6))
                found.append((mover, person))
        return found

    def _ride(self, random: np.random.Generator) -> list[tuple[_Mover, Person, int]]:
        found = []
        for z in np.arange(21.0, self.length, 90.0):
            rider = self._person(random, 0.0, 1.0)
            pace = 0.62 * self.config.speed
            found.append((_Mover(3.15, float(z), 0.0, pace), replace(rider, coat=False), self._next()))
        return found

    def cars(self, time: float) -> list[Car]:
        """All cars at a time; each keeps its instance, whether it is visible or not.

        :param time: since the start [s]
        """
        moving = [replace(car, x=mover.at(time)[0], z=mover.at(time)[1]) for mover, car in self._cars]
        return self._parked + moving

    def persons(self, time: float) -> list[Person]:
        """All pedestrians at a time.

        :param time: since the start [s]
        """
        found = []
        for mover, person in self._persons:
            x, z = mover.at(time)
            walks = person.stride > 0 and (mover.begin < -1e8 or time > mover.begin)
            phase = person.phase + 2.0 * math.pi * 0.92 * time
            stride = person.stride if walks else 0.0
            ground = 0.12 if abs(x) > 5.7 else 0.0
            found.append(replace(person, x=x, z=z, phase=phase, stride=stride, ground=ground))
        return found

    def riders(self, time: float) -> list[tuple[Person, int]]:
        """All bicyclists at a time, each with the instance of the bicycle.

        :param time: since the start [s]
        """
        found = []
        for mover, rider, bicycle in self._riders:
            x, z = mover.at(time)
            found.append((replace(rider, x=x, z=z, phase=rider.phase + 2.0 * math.pi * 1.1 * time), bicycle))
        return found
