"""Training data of the built-in localizer: CamVid, RoadScene, and rendered drives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from textdifuse_ros.data.labels import CLASSES, UNKNOWN, LabeledImage, camvid_items, roadscene_items
from textdifuse_ros.localize.builtin import BuiltinLocalizer
from textdifuse_ros.scenes.config import LABELS, DriveSceneConfig
from textdifuse_ros.scenes.drive import Frame, NightDrive
from textdifuse_ros.train.pseudo_labels import pseudo_labeled

FIRST_SEED = 1000
"""First seed of drives for training; lower ones are for demonstration and evaluation."""

_FRAMES = 16  # per drive, half a second and about four meters apart


def training_labels(root: Path, drives: int, teacher: BuiltinLocalizer | None = None) -> Iterator[LabeledImage]:
    """Yield all labeled images for training.

    :param root: data folder with camvid and roadscene
    :param drives: number of rendered drives
    :param teacher: labels the real pairs that have no labels; without it only those with boxes are used
    :raises FileError: a data set is missing
    """
    yield from camvid_items(root, "train")
    yield from roadscene_items(root) if teacher is None else pseudo_labeled(teacher, root)
    for seed in range(FIRST_SEED, FIRST_SEED + drives):
        yield from drive_items(seed, _FRAMES)


def drive_items(seed: int, frames: int) -> Iterator[LabeledImage]:
    """Yield frames of a rendered drive with true labels and boxes, alternately well lit and at night.

    :param seed: of the town, its weather and its cameras
    :param frames: number of frames
    """
    random = np.random.default_rng(seed)
    config = DriveSceneConfig(
        frames=frames,
        rate_hz=2.0,
        width=480,
        height=360,
        seed=seed,
        speed=float(random.uniform(6, 12)),
        darkness=float(random.uniform(0.4, 1.0)),
        noise=float(random.uniform(0.3, 3.0)),
        cast=float(random.uniform(0, 1)),
        air_temperature=float(random.uniform(265, 295)),
        netd=float(random.uniform(0.02, 0.4)),
        stripes=float(random.uniform(0, 0.3)),
        field_of_view=float(random.uniform(40, 75)),
    )
    drive = NightDrive(config)
    for index in range(frames):
        yield label_frame(f"drive/{seed}/{index:03d}", drive.frame(index), night=bool(index % 2))


def label_frame(name: str, frame: Frame, night: bool) -> LabeledImage:
    """Convert a rendered frame to a labeled pair.

    :param name: of the pair
    :param frame: the rendered frame
    :param night: take the visible image at night instead of the well-lit one
    """
    table = np.full(256, UNKNOWN, np.uint8)
    for value, label in LABELS.items():
        table[value] = CLASSES.index(label)
    instances = np.zeros(frame.labels.shape, np.uint8)
    shown = frame.boxes[:255]
    for number, box in enumerate(shown, 1):
        part = slice(box.ymin, box.ymax), slice(box.xmin, box.xmax)
        instances[part][frame.instances[part] == box.instance] = number
    boxes = np.array([(b.xmin, b.ymin, b.xmax, b.ymax) for b in shown], np.float32).reshape(-1, 4)
    visible = frame.visible if night else frame.visible_clean
    return LabeledImage(name, visible, frame.infrared, table[frame.labels], instances, boxes, night)
