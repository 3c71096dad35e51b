"""What the built-in localizer finds: classes on CamVid, objects on RoadScene and on rendered drives."""

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
    read_image,
    read_road_pair,
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
"""Rendered drives that are measured; training takes seeds of 1000 and more."""

SMALL = 100
"""Objects of which fewer pixels show need not be found in rendered drives."""

_FRAMES = 8  # of a drive, one second apart
BLIND = {"both": (True, True), "visible only": (True, False), "infrared only": (False, True)}


@dataclass(frozen=True)
class Sample:
    """A pair with all its objects.

    :ivar objects: name of the class, box (left, top, right, bottom) [pixels], whether it must be found
    :ivar labels: uint8 [H, W], indices of CLASSES, or None where only boxes are known
    """

    visible: np.ndarray
    infrared: np.ndarray
    objects: list[tuple[str, tuple[float, float, float, float], bool]]
    labels: np.ndarray | None = None


def camvid_overlaps(
    localizer: BuiltinLocalizer, root: Path, split: str, progress: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Intersection over union of the classes on CamVid, the infrared blind.

    ``bicycle`` is CamVid's bicyclist: a pixel of one is right as person and as bicycle. For ``person`` a person found
    on a bicyclist is wrong, as in CamVid's own eleven classes; for ``person, riders aside`` bicyclists do not count.

    :returns: by class, and ``mean`` over the eleven
    :raises FileError: CamVid is not in the data folder
    """
    folder = root / "camvid" / split
    paths = sorted((folder / "images").glob("*"))
    if not paths:
        raise FileError(str(folder), "a folder with CamVid's images and labels", "none")
    table = np.zeros((RIDER + 1, len(CLASSES)), np.int64)
    for path in paths:
        visible = np.ascontiguousarray(read_image(path, cv2.IMREAD_COLOR)[:, :, ::-1])
        codes = camvid_codes(read_image(folder / "labels" / f"{path.stem}.png", cv2.IMREAD_UNCHANGED))
        found = localizer.classes(visible, np.zeros_like(codes)).probability.argmax(0)
        table += confusion_matrix(np.where(codes == UNKNOWN, 255, codes), found, RIDER + 1, len(CLASSES))
        progress()
    overlaps = dict(zip(CLASSES, class_ious(table).tolist(), strict=True))
    both = table[RIDER, [PERSON, BICYCLE]].sum()
    overlaps["bicycle"] = float(both / max(1, table[RIDER].sum() + table[:RIDER, BICYCLE].sum()))
    aside = float(class_ious(table[:RIDER])[PERSON])
    return {**overlaps, "mean": float(np.mean([overlaps[name] for name in CLASSES])), "person, riders aside": aside}


def roadscene_samples(root: Path, part: str = "test") -> Iterator[Sample]:
    """RoadScene's pairs that have boxes.

    :raises FileError: not in the data folder
    """
    folder = root / "roadscene" / part
    paths = sorted((folder / "boxes").glob("*.txt"))
    if not paths:
        raise FileError(str(folder / "boxes"), "a folder with boxes", "none")
    for path in paths:
        visible, infrared = read_road_pair(folder, path.stem)
        yield Sample(visible, infrared, [(name, box, True) for name, box in read_boxes(path)])


def drive_samples(seeds: Iterable[int] = DRIVE_SEEDS) -> Iterator[tuple[Sample, Sample]]:
    """Frames of rendered drives with their true boxes and labels, each by night and well lit."""
    names = np.array([CLASSES.index(LABELS[value]) for value in range(len(LABELS))], np.uint8)
    for seed in seeds:
        for frame in NightDrive(DriveSceneConfig(frames=_FRAMES, rate_hz=1.0, seed=seed)):
            objects = []
            for box in frame.boxes:
                shown = np.count_nonzero(frame.instances[box.ymin : box.ymax, box.xmin : box.xmax] == box.instance)
                edges = (float(box.xmin), float(box.ymin), float(box.xmax), float(box.ymax))
                objects.append((box.label, edges, bool(shown >= SMALL)))
            labels = names[frame.labels]
            night = Sample(frame.visible, frame.infrared, objects, labels)
            yield night, Sample(frame.visible_clean, frame.infrared, objects, labels)


def find_objects(
    localizer: Localizer, samples: Iterable[Sample], seen: tuple[bool, bool] = (True, True)
) -> list[tuple[Instance, ...]]:
    """What is found of KINDS in each sample, the phrases in their order.

    :param seen: whether the visible and the infrared sensor see; a blind one is black
    """
    prompt = parse_prompt(", ".join(KINDS))
    found = []
    for sample in samples:
        visible, infrared = (
            image if sees else np.zeros_like(image)
            for image, sees in zip((sample.visible, sample.infrared), seen, strict=True)
        )
        found.append(localizer.locate(visible, infrared, prompt).instances)
    return found


def count_hits(
    samples: Iterable[Sample], found: Iterable[tuple[Instance, ...]], least_height: float = 0
) -> dict[str, MatchCounts]:
    """Objects found at an intersection over union of 0.5 or more, by kind.

    :param found: of :func:`find_objects`
    :param least_height: lower objects need not be found [pixels]
    """
    total = dict.fromkeys(KINDS, MatchCounts())
    for sample, instances in zip(samples, found, strict=True):
        for phrase, kind in enumerate(KINDS, 1):
            mine = [item for item in instances if item.phrase == phrase]
            truths = [(box, due) for name, box, due in sample.objects if name == kind]
            hits = match_boxes(
                np.array([item.box for item in mine]).reshape(-1, 4),
                np.array([item.score for item in mine]),
                np.array([box for box, _ in truths]).reshape(-1, 4),
                np.array([not due or box[3] - box[1] < least_height for box, due in truths], bool),
            )
            total[kind] = total[kind].plus(hits)
    return total


def mask_overlaps(samples: Iterable[Sample], found: Iterable[tuple[Instance, ...]]) -> dict[str, float]:
    """Intersection over union, pixel by pixel, of the masks of each kind, over all samples that have labels."""
    table = np.zeros((len(KINDS), 2))
    for sample, instances in zip(samples, found, strict=True):
        for phrase, kind in enumerate(KINDS, 1):
            masks = [item.mask for item in instances if item.phrase == phrase]
            mine = np.any(masks, axis=0) if masks else np.zeros(sample.infrared.shape, bool)
            truth = sample.labels == CLASSES.index(kind)
            table[phrase - 1] += (np.count_nonzero(mine & truth), np.count_nonzero(mine | truth))
    with np.errstate(invalid="ignore"):
        return dict(zip(KINDS, (table[:, 0] / table[:, 1]).tolist(), strict=True))
