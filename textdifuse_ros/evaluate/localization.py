"""Accuracy of the built-in localizer: classes on CamVid, objects on RoadScene and on rendered drives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.data.labels import (
    BICYCLE,
    CLASSES,
    PERSON,
    RIDER,
    UNKNOWN,
    camvid_codes,
    read_boxes,
    read_road_pair,
    read_with_opencv,
)
from textdifuse_ros.errors import FileError
from textdifuse_ros.localize.base import Instance, Localizer
from textdifuse_ros.localize.builtin import BuiltinLocalizer
from textdifuse_ros.localize.prompt import parse_prompt
from textdifuse_ros.metrics.detection import MatchCounts, class_ious, confusion_matrix, match_boxes
from textdifuse_ros.scenes.config import LABELS, DriveSceneConfig
from textdifuse_ros.scenes.drive import NightDrive

KINDS = ("person", "car", "bicycle")
DRIVE_SEEDS = (7, 8, 9)
"""Seeds of the rendered drives; training uses seeds from 1000 on."""

SMALL = 100
"""Objects with fewer visible pixels need not be found in rendered drives."""

_FRAMES = 8  # of a drive, one second apart
SENSORS_ON = {"both": (True, True), "visible only": (True, False), "infrared only": (False, True)}
"""Whether the visible and the infrared image are used; the other one is black."""


@dataclass(frozen=True)
class Sample:
    """A pair with its ground truth.

    :ivar visible: uint8 [H, W, 3] RGB
    :ivar infrared: uint8 [H, W]
    :ivar objects: class name, box (left, top, right, bottom) [pixels], whether it must be found
    :ivar labels: uint8 [H, W], indices of CLASSES; None if only boxes are known
    """

    visible: np.ndarray
    infrared: np.ndarray
    objects: list[tuple[str, tuple[float, float, float, float], bool]]
    labels: np.ndarray | None = None


def camvid_overlaps(
    localizer: BuiltinLocalizer, root: Path, split: str, progress: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Measure the intersection over union of the classes on CamVid, with a black infrared image.

    ``bicycle`` is CamVid's bicyclist: both person and bicycle are correct there. For ``person``, a person on a
    bicyclist is wrong, as in CamVid's eleven classes; ``person, riders aside`` ignores bicyclists.

    :param localizer: the localizer
    :param root: data folder
    :param split: ``val`` or ``test``
    :param progress: called once per image
    :returns: by class, and ``mean`` over the eleven classes
    :raises FileError: CamVid is not in the data folder
    """
    folder = root / "camvid" / split
    paths = sorted((folder / "images").glob("*"))
    if not paths:
        raise FileError(str(folder), "a folder with CamVid's images and labels", "none")
    table = np.zeros((RIDER + 1, len(CLASSES)), np.int64)
    for path in paths:
        visible = np.ascontiguousarray(read_with_opencv(path, cv2.IMREAD_COLOR)[:, :, ::-1])
        codes = camvid_codes(read_with_opencv(folder / "labels" / f"{path.stem}.png", cv2.IMREAD_UNCHANGED))
        predicted = localizer.classes(visible, np.zeros_like(codes)).probability.argmax(0)
        table += confusion_matrix(np.where(codes == UNKNOWN, 255, codes), predicted, RIDER + 1, len(CLASSES))
        progress()
    overlaps = dict(zip(CLASSES, class_ious(table).tolist(), strict=True))
    correct = table[RIDER, [PERSON, BICYCLE]].sum()
    overlaps["bicycle"] = float(correct / max(1, table[RIDER].sum() + table[:RIDER, BICYCLE].sum()))
    mean = float(np.mean([overlaps[name] for name in CLASSES]))
    return {**overlaps, "mean": mean, "person, riders aside": float(class_ious(table[:RIDER])[PERSON])}


def roadscene_samples(root: Path, part: str = "test") -> Iterator[Sample]:
    """Read the pairs of RoadScene that have boxes.

    :param root: data folder
    :param part: ``train`` or ``test``
    :raises FileError: RoadScene is not in the data folder
    """
    folder = root / "roadscene" / part
    paths = sorted((folder / "boxes").glob("*.txt"))
    if not paths:
        raise FileError(str(folder / "boxes"), "a folder with boxes", "none")
    for path in paths:
        visible, infrared = read_road_pair(folder, path.stem)
        yield Sample(visible, infrared, [(name, box, True) for name, box in read_boxes(path)])


def drive_samples(seeds: Iterable[int] = DRIVE_SEEDS) -> Iterator[tuple[Sample, Sample]]:
    """Render drives with true boxes and labels; yields each frame at night and well lit.

    :param seeds: one drive per seed
    """
    classes = np.array([CLASSES.index(LABELS[value]) for value in range(len(LABELS))], np.uint8)
    for seed in seeds:
        for frame in NightDrive(DriveSceneConfig(frames=_FRAMES, rate_hz=1.0, seed=seed)):
            objects = []
            for box in frame.boxes:
                pixels = np.count_nonzero(frame.instances[box.ymin : box.ymax, box.xmin : box.xmax] == box.instance)
                edges = (float(box.xmin), float(box.ymin), float(box.xmax), float(box.ymax))
                objects.append((box.label, edges, bool(pixels >= SMALL)))
            labels = classes[frame.labels]
            night = Sample(frame.visible, frame.infrared, objects, labels)
            yield night, Sample(frame.visible_clean, frame.infrared, objects, labels)


def find_objects(
    localizer: Localizer, samples: Iterable[Sample], sensors_on: tuple[bool, bool] = (True, True)
) -> list[tuple[Instance, ...]]:
    """Locate the objects of KINDS in each sample; phrase n is the n-th kind, from 1.

    :param localizer: the localizer
    :param samples: pairs
    :param sensors_on: whether the visible and the infrared image are used; the other one is black
    """
    prompt = parse_prompt(", ".join(KINDS))
    found = []
    for sample in samples:
        visible, infrared = (
            image if is_on else np.zeros_like(image)
            for image, is_on in zip((sample.visible, sample.infrared), sensors_on, strict=True)
        )
        found.append(localizer.locate(visible, infrared, prompt).instances)
    return found


def count_hits(
    samples: Iterable[Sample], found: Iterable[tuple[Instance, ...]], least_height: float = 0
) -> dict[str, MatchCounts]:
    """Count the objects found at an intersection over union of at least 0.5, by kind.

    :param samples: pairs with their ground truth
    :param found: the result of :func:`find_objects`
    :param least_height: objects of lower height need not be found [pixels]
    """
    total = dict.fromkeys(KINDS, MatchCounts())
    for sample, instances in zip(samples, found, strict=True):
        for phrase, kind in enumerate(KINDS, 1):
            mine = [item for item in instances if item.phrase == phrase]
            truths = [(box, required) for name, box, required in sample.objects if name == kind]
            hits = match_boxes(
                np.array([item.box for item in mine]).reshape(-1, 4),
                np.array([item.score for item in mine]),
                np.array([box for box, _ in truths]).reshape(-1, 4),
                np.array([not required or box[3] - box[1] < least_height for box, required in truths], bool),
            )
            total[kind] = total[kind].plus(hits)
    return total


def mask_overlaps(samples: Iterable[Sample], found: Iterable[tuple[Instance, ...]]) -> dict[str, float]:
    """Measure the pixel-wise intersection over union of the masks of each kind.

    :param samples: pairs with labels
    :param found: the result of :func:`find_objects`
    :returns: by kind; NaN if a kind is neither there nor found
    """
    table = np.zeros((len(KINDS), 2))
    for sample, instances in zip(samples, found, strict=True):
        for phrase, kind in enumerate(KINDS, 1):
            masks = [item.mask for item in instances if item.phrase == phrase]
            mine = np.any(masks, axis=0) if masks else np.zeros(sample.infrared.shape, bool)
            truth = sample.labels == CLASSES.index(kind)
            table[phrase - 1] += (np.count_nonzero(mine & truth), np.count_nonzero(mine | truth))
    with np.errstate(invalid="ignore"):
        return dict(zip(KINDS, (table[:, 0] / table[:, 1]).tolist(), strict=True))
