"""Labeled images for the localizer: its classes, CamVid's labels, RoadScene's boxes.

A label image contains codes. The first ones are the classes; further codes allow several classes, where the source is
ambiguous: CamVid labels a bicyclist as a whole, and boxes do not label the pixels outside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.errors import FileError

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "person", "bicycle")
"""Classes of the localizer, in the order of its channels."""

CAR, PERSON, BICYCLE = (CLASSES.index(name) for name in ("car", "person", "bicycle"))
THINGS = (CAR, PERSON, BICYCLE)
"""Classes of countable objects."""

RIDER, STUFF, UNKNOWN = len(CLASSES), len(CLASSES) + 1, len(CLASSES) + 2
"""Codes beyond the classes: person or bicycle; any class but the things; any class."""

CODES = UNKNOWN + 1
"""Number of codes."""

_CAMVID_BICYCLIST, _CAMVID_UNLABELED = 10, 11
_LEAST_AREA = 24  # of an object [pixels]
# Connected regions of CamVid's labels with another ratio of width to height are several objects, or parts of one.
_RATIOS = {CAR: (0.5, 2.8), PERSON: (0.15, 0.75), RIDER: (0.2, 1.3)}
_LEAST_FILL = {CAR: 0.55, PERSON: 0.35, RIDER: 0.35}


@dataclass(frozen=True)
class LabeledImage:
    """A visible image or a pair with its labels.

    :ivar name: source and stem
    :ivar visible: uint8 [H, W, 3] RGB
    :ivar infrared: uint8 [H, W], or None where it is to be synthesized
    :ivar codes: uint8 [H, W], a class, RIDER, STUFF or UNKNOWN
    :ivar instances: uint8 [H, W], 0 or the number of an object
    :ivar boxes: float32 [N, 4], xmin, ymin, xmax, ymax of object number n + 1 [pixels]; NaN where its extent is unknown
    :ivar night: whether the visible image is already dark
    """

    name: str
    visible: np.ndarray
    infrared: np.ndarray | None
    codes: np.ndarray
    instances: np.ndarray
    boxes: np.ndarray
    night: bool = False


def allowed_classes() -> np.ndarray:
    """The classes that each code allows, bool [CODES, classes]."""
    table = np.zeros((CODES, len(CLASSES)), bool)
    table[range(len(CLASSES)), range(len(CLASSES))] = True
    table[RIDER, [PERSON, BICYCLE]] = True
    table[STUFF] = True
    table[STUFF, list(THINGS)] = False
    table[UNKNOWN] = True
    return table


def camvid_items(root: Path, split: str) -> Iterator[LabeledImage]:
    """Read the labeled frames of CamVid, by name.

    :param root: data folder that contains ``camvid``
    :param split: train, val or test
    :raises FileError: the data set is missing, or a frame has no labels
    """
    folder = root / "camvid" / split
    images = sorted((folder / "images").glob("*"))
    if not images:
        raise FileError(str(folder), "a folder with CamVid's images and labels", "none")
    for path in images:
        labels = read_with_opencv(folder / "labels" / f"{path.stem}.png", cv2.IMREAD_UNCHANGED)
        visible = np.ascontiguousarray(read_with_opencv(path, cv2.IMREAD_COLOR)[:, :, ::-1])
        codes, instances, boxes = _camvid_objects(camvid_codes(labels))
        yield LabeledImage(f"camvid/{split}/{path.stem}", visible, None, codes, instances, boxes)


def camvid_codes(labels: np.ndarray) -> np.ndarray:
    """Convert CamVid's indices to codes; a bicyclist becomes RIDER as a whole.

    :param labels: uint8 [H, W], CamVid's indices
    :returns: uint8 [H, W]
    """
    codes = labels.copy()  # the first ten indices are the same
    codes[labels == _CAMVID_BICYCLIST] = RIDER
    codes[labels >= _CAMVID_UNLABELED] = UNKNOWN
    return codes


def _camvid_objects(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split a label image into objects by connected regions; a rider becomes a person above a bicycle.

    :returns: codes, instances and boxes as in :class:`LabeledImage`
    """
    split = codes.copy()
    instances = np.zeros_like(codes)
    boxes: list[tuple[float, ...]] = []

    def add(mask: np.ndarray, box: tuple[float, ...]) -> None:
        if len(boxes) < 255:
            boxes.append(box)
            instances[mask] = len(boxes)

    for code in (CAR, PERSON, RIDER):
        _, regions, figures, _ = cv2.connectedComponentsWithStats((codes == code).astype(np.uint8))
        for number, (x, y, width, height, area) in enumerate(figures[1:].tolist(), 1):
            if area < _LEAST_AREA:
                continue
            mask = regions == number
            low, high = _RATIOS[code]
            whole = low <= width / height <= high and area >= _LEAST_FILL[code] * width * height
            box = (x, y, x + width, y + height) if whole else (np.nan,) * 4
            if code != RIDER or not whole:
                add(mask, box)
                continue
            rows = np.arange(codes.shape[0])[:, None]
            upper, lower = mask & (rows < y + 0.45 * height), mask & (rows >= y + 0.65 * height)
            split[upper], split[lower] = PERSON, BICYCLE
            add(upper, box)
            add(lower, (x, y + 0.4 * height, x + width, y + height))
    return split, instances, np.array(boxes, np.float32).reshape(-1, 4)


def roadscene_items(root: Path) -> Iterator[LabeledImage]:
    """Read RoadScene's training pairs that have boxes, by name, without those close to a test frame.

    Inside a box the object is segmented by GrabCut on luma, infrared and color; outside all boxes the code is STUFF.

    :param root: data folder that contains ``roadscene``
    :raises FileError: the data set is missing
    """
    folder = root / "roadscene" / "train"
    names = [name for name in roadscene_names(root) if (folder / "boxes" / f"{name}.txt").is_file()]
    for name in names:
        visible, infrared = read_road_pair(folder, name)
        objects = read_boxes(folder / "boxes" / f"{name}.txt")
        yield label_from_boxes(f"roadscene/{name}", visible, infrared, objects)


def roadscene_names(root: Path) -> list[str]:
    """The names of RoadScene's training pairs, without those close to a test frame.

    :param root: data folder that contains ``roadscene``
    :raises FileError: the data set is missing
    """
    road = root / "roadscene"
    near: set[str] = set()
    if (road / "train_near_test.txt").is_file():
        near = set((road / "train_near_test.txt").read_text(encoding="utf-8").split())
    names = [path.stem for path in sorted((road / "train" / "vis").glob("*")) if path.stem not in near]
    if not names:
        raise FileError(str(road / "train"), "a folder with RoadScene's pairs", "none")
    return names


def read_road_pair(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a RoadScene pair.

    :param folder: contains ``vis`` and ``ir``
    :param name: stem of the pair
    :returns: visible uint8 [H, W, 3] RGB and infrared uint8 [H, W]
    :raises FileError: missing or unreadable
    """
    visible = read_with_opencv(folder / "vis" / f"{name}.jpg", cv2.IMREAD_COLOR)[:, :, ::-1]
    return np.ascontiguousarray(visible), read_with_opencv(folder / "ir" / f"{name}.jpg", cv2.IMREAD_GRAYSCALE)


def read_boxes(path: Path) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Read the objects of a file with lines of the form ``class left top right bottom``.

    :param path: of the text file
    :returns: class and box (xmin, ymin, xmax, ymax) [pixels] of each object
    :raises FileError: unreadable, a malformed line, or an empty box
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(str(path), "a readable text file", error) from error
    objects = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            name, *edges = words
            xmin, ymin, xmax, ymax = map(float, edges)
            # This form also rejects NaN.
            if not (-math.inf < xmin < xmax < math.inf and -math.inf < ymin < ymax < math.inf):
                raise ValueError
        except ValueError as error:
            form = "'class left top right bottom' [pixels]"
            raise FileError(f"line {number} of {path}", form, repr(line)) from error
        objects.append((name, (xmin, ymin, xmax, ymax)))
    return objects


def label_from_boxes(
    name: str,
    visible: np.ndarray,
    infrared: np.ndarray,
    objects: list[tuple[str, tuple[float, float, float, float]]],
) -> LabeledImage:
    """Label a pair from its boxes.

    :param name: source and stem
    :param visible: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W]
    :param objects: class and box of each object; a box of a class outside THINGS becomes UNKNOWN
    """
    codes = np.full(infrared.shape, STUFF, np.uint8)
    instances = np.zeros(infrared.shape, np.uint8)
    boxes: list[tuple[float, ...]] = []
    ordered = sorted(objects, key=lambda item: item[1][3])  # objects that reach lower are nearer and cover the others
    for _, box in ordered:
        codes[_inside(box)] = UNKNOWN
    for kind, box in ordered:
        if kind not in CLASSES or CLASSES.index(kind) not in THINGS or len(boxes) == 255:
            continue
        boxes.append(box)
        mask = np.zeros(codes.shape, bool)
        mask[_inside(box)] = _segment(visible, infrared, box)
        codes[mask], instances[mask] = CLASSES.index(kind), len(boxes)
    return LabeledImage(name, visible, infrared, codes, instances, np.array(boxes, np.float32).reshape(-1, 4))


def _inside(box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    xmin, ymin, xmax, ymax = (max(0, round(value)) for value in box)
    return slice(ymin, max(ymax, ymin + 1)), slice(xmin, max(xmax, xmin + 1))


def _segment(visible: np.ndarray, infrared: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Segment the object within its box, bool [h, w]: by GrabCut if it is large enough, else by an ellipse."""
    rows, columns = _inside(box)
    height, width = infrared[rows, columns].shape
    y, x = np.mgrid[:height, :width]
    ellipse = ((y + 0.5) / height * 2 - 1) ** 4 + ((x + 0.5) / width * 2 - 1) ** 4 < 0.75
    if min(height, width) < 14:
        return ellipse
    margin = max(6, min(height, width) // 2)
    area = (
        slice(max(0, rows.start - margin), rows.stop + margin),
        slice(max(0, columns.start - margin), columns.stop + margin),
    )
    color = cv2.cvtColor(np.ascontiguousarray(visible[area]), cv2.COLOR_RGB2YCrCb)
    image = np.dstack((color[..., 0], infrared[area], color[..., 1]))
    guess = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
    top, left = rows.start - area[0].start, columns.start - area[1].start
    guess[top : top + height, left : left + width] = np.where(ellipse, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    cv2.setRNGSeed(0)
    cv2.grabCut(image, guess, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    found = np.isin(guess[top : top + height, left : left + width], (cv2.GC_FGD, cv2.GC_PR_FGD))
    overlap = (found & ellipse).sum() / max(1, (found | ellipse).sum())
    return found if overlap > 0.5 else ellipse


def read_with_opencv(path: Path, flags: int) -> np.ndarray:
    """Read an image with OpenCV.

    :param path: of the image
    :param flags: of ``cv2.imread``
    :raises FileError: missing or unreadable
    """
    image = cv2.imread(str(path), flags)
    if image is None:
        raise FileError(str(path), "a readable image", "none")
    return image
