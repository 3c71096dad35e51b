"""The synthetic night drive: a frame depends only on the configuration and its index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from textdifuse_ros.checks import check_number
from textdifuse_ros.config.base import validate
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.scenes.camera import camera_at
from textdifuse_ros.scenes.canvas import HEAT, Canvas
from textdifuse_ros.scenes.cars import Car, paint_car
from textdifuse_ros.scenes.config import LABELS, DriveSceneConfig
from textdifuse_ros.scenes.facades import paint_wall
from textdifuse_ros.scenes.furniture import paint_lamp, paint_sign, paint_tree
from textdifuse_ros.scenes.ground import Beam
from textdifuse_ros.scenes.persons import paint_person, paint_rider
from textdifuse_ros.scenes.thermal import ThermalSensor
from textdifuse_ros.scenes.town import VIEW, Town
from textdifuse_ros.scenes.visible import VisibleSensor

_SMALL = 120.0  # persons and dark cars beyond this distance are not painted [m]: they would be a few pixels large
_LONGEST = 2000.0  # longest drive [m]: the whole street is in memory, about 0.2 MB per meter
START_NS = 1_700_000_000_000_000_000  # fixed, so that a drive is reproducible


@dataclass(frozen=True)
class ObjectBox:
    """The bounding box of the visible part of an object.

    :ivar label: name of its class
    :ivar instance: its value in the instance image; the same in every frame
    :ivar xmin: first column
    :ivar ymin: first row
    :ivar xmax: column after the last one
    :ivar ymax: row after the last one
    """

    label: str
    instance: int
    xmin: int
    ymin: int
    xmax: int
    ymax: int


@dataclass(frozen=True)
class Frame:
    """One frame of the drive; all images are aligned pixel by pixel.

    :ivar stamp_ns: time [ns]
    :ivar visible: uint8 [H, W, 3] RGB, image of the visible camera at night
    :ivar infrared: uint8 [H, W], image of the thermal camera; bright is warm
    :ivar labels: uint8 [H, W], classes, see LABELS
    :ivar instances: uint16 [H, W], cars, persons and bicycles; 0 elsewhere
    :ivar boxes: of the visible instances, sorted by instance
    :ivar visible_clean: uint8 [H, W, 3] RGB, the same scene well lit and without noise
    """

    stamp_ns: int
    visible: np.ndarray
    infrared: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    boxes: list[ObjectBox]
    visible_clean: np.ndarray


class NightDrive:
    """A drive through a street at night, by a vehicle with a visible and a thermal camera.

    The same configuration gives the same bytes, whatever the order of the frames.

    :param config: defaults if None
    :raises ConfigError: a parameter is out of range, or the drive is longer than 2 km
    """

    def __init__(self, config: DriveSceneConfig | None = None) -> None:
        self.config = config or DriveSceneConfig()
        validate(self.config)
        length = self.config.frames / self.config.rate_hz * self.config.speed
        if length > _LONGEST:
            expected = f"such that the vehicle drives at most {_LONGEST:g} m (frames / rate_hz * speed)"
            raise ConfigError("frames", expected, f"{length:.0f} m", "use fewer frames, a lower speed or a higher rate")
        self._town = Town(self.config)
        self._visible = VisibleSensor(self.config)
        self._thermal = ThermalSensor(self.config)

    def __len__(self) -> int:
        return self.config.frames

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(index) for index in range(len(self)))

    def frame(self, index: int) -> Frame:
        """Render one frame.

        :param index: in [0, frames)
        :raises ConfigError: no such frame
        """
        check_number("the index of a frame", index, 0, self.config.frames - 1, integer=True)
        time = index / self.config.rate_hz
        camera = camera_at(self.config, time)
        canvas = Canvas(camera, self._town.air)
        rays = camera.rays()
        self._paint(canvas, rays, time)
        random = np.random.default_rng([self.config.seed, 2, index])
        return Frame(
            stamp_ns=START_NS + round(time * 1e9),
            visible=self._visible.night(canvas, rays, random),
            infrared=self._thermal.image(np.ascontiguousarray(canvas.data[..., HEAT]), random),
            labels=canvas.labels,
            instances=canvas.instances,
            boxes=find_boxes(canvas.labels, canvas.instances),
            visible_clean=self._visible.clean(canvas),
        )

    def _paint(self, canvas: Canvas, rays: np.ndarray, time: float) -> None:
        """Paint the world from far to near."""
        town, here = self._town, float(canvas.camera.position[2])
        cars = [car for car in town.cars(time) if here - 6.0 < car.z < here + (VIEW if car.lit else _SMALL)]
        beams = [Beam(car.x, car.z + 2.2 * car.ahead, car.ahead) for car in cars if car.lit and car.z < here + 110.0]
        town.sky.paint(canvas, rays)
        town.ground.paint(canvas, rays, beams)
        for walls in town.walls:  # fronts are behind everything in the street
            if here - 30.0 < walls[0].corner[2] < here + VIEW:
                for wall in walls:
                    paint_wall(canvas, wall)
        for _, paint in sorted(self._things(canvas, time, cars), key=lambda thing: -thing[0]):
            paint()

    def _things(self, canvas: Canvas, time: float, cars: list[Car]) -> list[tuple[float, Callable[[], None]]]:
        """Painters of all objects in the street, with their distance along it."""
        town, here = self._town, float(canvas.camera.position[2])
        things: list[tuple[float, Callable[[], None]]] = []

        def add(x: float, z: float, reach: float, paint: Callable[..., None], *rest: object) -> None:
            if not here - reach < z < here + VIEW:
                return
            place = np.array([x, 1.0, z])
            box = place + np.array([[-reach, 0, 0], [reach, 0, 0], [0, 0, -reach], [0, 0, reach]])
            if canvas.camera.sees(box):
                things.append((z - here, partial(paint, canvas, *rest, town.light.at(place))))

        for car in cars:
            add(car.x, car.z, 3.0, paint_car, car)
        for person in town.persons(time):
            if person.z < here + _SMALL:
                add(person.x, person.z, 0.5, paint_person, person)
        for rider, bicycle in town.riders(time):
            add(rider.x, rider.z, 1.2, paint_rider, rider, bicycle)
        for tree in town.trees:
            add(tree.x, tree.z, 3.0, paint_tree, tree, town.crowns)
        for lamp in town.lamps:
            add(lamp.x, lamp.z, 2.0, paint_lamp, lamp)
        for sign in town.signs:
            add(sign.x, sign.z, 0.5, paint_sign, sign)
        return things


def find_boxes(labels: np.ndarray, instances: np.ndarray) -> list[ObjectBox]:
    """The bounding box of each instance.

    :param labels: uint8 [H, W]
    :param instances: uint16 [H, W]
    """
    rows, columns = np.nonzero(instances)
    found = instances[rows, columns]
    order = np.argsort(found, kind="stable")
    rows, columns, found = rows[order], columns[order], found[order]
    starts = np.flatnonzero(np.r_[True, found[1:] != found[:-1]]) if len(found) else np.empty(0, int)
    boxes = []
    for start, end in zip(starts, [*starts[1:], len(found)], strict=False):
        y, x = rows[start:end], columns[start:end]
        label = LABELS[int(labels[y[0], x[0]])]
        box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
        boxes.append(ObjectBox(label, int(found[start]), *box))
    return boxes
