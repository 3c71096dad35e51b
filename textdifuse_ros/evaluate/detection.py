"""The panel "detection": average precision of a fixed detector on the sensors, on ``max`` and on fused images.

The row ``late`` joins the boxes found in the visible and in the infrared image: what a user with two detector passes
gets without any fusion. The row ``textdifuse_text`` is fused with a text, whose objects the localizer finds, as in the
node; the labels are used for the figures only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdifuse_ros.data.labels import read_boxes
from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate.detector import Boxes, Detected, OnnxDetector, kind_of
from textdifuse_ros.evaluate.methods import MODEL, InputPair, Row, check_results, save_fused
from textdifuse_ros.evaluate.panels import PanelPlan
from textdifuse_ros.evaluate.pool import map_jobs
from textdifuse_ros.evaluate.results import Differences, Evaluation, Part, Record, in_order, rank
from textdifuse_ros.evaluate.sets import read_pair
from textdifuse_ros.evaluate.statistics import Interval, central_part, draw_images
from textdifuse_ros.image.files import Pair, stored_path
from textdifuse_ros.image.intake import AlignedPair
from textdifuse_ros.localize.prompt import parse_prompt
from textdifuse_ros.metrics.average_precision import average_precision, match_detections, score_detections

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser
    from textdifuse_ros.runtime.image_target import ImageTarget

VISIBLE, INFRARED, LATE = "visible", "infrared", "late"
SENSORS = (VISIBLE, INFRARED)
TEXT = "_text"
"""Ending of the model's row with the text."""
BETTER_SENSOR = "better_sensor"
"""Name of the better of the two sensors, for each figure, in the differences."""
SHOWN_SCORE = 0.3
"""Least score of the boxes that are counted per image and drawn."""
PARTS = {"D": "day", "N": "night"}
"""Parts of a set in which every name is a number followed by one of these letters, as in MSRS."""


@dataclass(frozen=True)
class Judge:
    """What judges the images.

    :ivar detector: the ONNX file
    :ivar boxes: folder with ``STEM.txt``, a line ``class left top right bottom`` [pixels] per object
    :ivar text: the text of the row ``textdifuse_text``; the figures AP50 and AP are means over its classes
    """

    detector: Path
    boxes: Path
    text: str

    def truths(self, stem: str) -> dict[str, np.ndarray]:
        """Read the labeled boxes of an image by class, float64 [N, 4].

        :param stem: name of the image without suffix
        :raises FileError: the file is missing or malformed
        """
        labeled: dict[str, list[tuple[float, ...]]] = {}
        for name, box in read_boxes(stored_path(self.boxes / f"{stem}.txt")):
            labeled.setdefault(kind_of(name), []).append(box)
        return {kind: np.array(boxes, float) for kind, boxes in labeled.items()}


@dataclass(frozen=True)
class DetectionJob:
    """One pair to be searched in every row.

    :ivar rows: all rows but ``late``
    """

    pair: Pair
    rows: tuple[Row, ...]
    detector: Path


@dataclass(frozen=True, eq=False)
class DetectedImage:
    """The labels of one image, and what the detector found in every row.

    :ivar stem: name of the image without suffix
    :ivar truths: labeled boxes by class, float64 [N, 4]
    :ivar found: by name of the row
    """

    stem: str
    truths: dict[str, np.ndarray]
    found: dict[str, Detected]

    def boxes(self, row: str, kind: str) -> Boxes:
        """Return what was found of class ``kind`` in ``row``."""
        return self.found[row][kind]

    def labels(self, kind: str) -> np.ndarray:
        """Return the labeled boxes of class ``kind``, float64 [N, 4]."""
        return self.truths.get(kind, np.zeros((0, 4)))


def detection_rows(model_rows: Sequence[Row], methods: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows of the panel: the sensors, ``max``, ``late``, then methods and the model.

    :param model_rows: rows of the model
    :param methods: rows read from folders
    """
    return (*map(Row, SENSORS), Row("max"), Row(LATE, baseline=True), *methods, *model_rows)


def run_detection(
    plan: PanelPlan,
    judge: Judge,
    fuser: Fuser | None,
    target: ImageTarget | None,
    workers: int,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Measure the average precision of the detector on every row.

    :param plan: its pairs all have labels; its rows come from :func:`detection_rows`
    :param judge: detector, labels and text
    :param fuser: the model, for ``plan.model_rows``; None if there are none
    :param target: finds the objects of the text for the row ``textdifuse_text``
    :param workers: number of processes that run the detector; the model runs in this process
    :param progress: called once per pair
    :raises CheckpointError: the model has no text modulation
    :raises FileError: an image or the detector is missing or unsuitable, or no labeled class is one of the detector's
    """
    detector = _detector(judge.detector)
    truths = {pair.stem: judge.truths(pair.stem) for pair in plan.pairs.pairs}
    kinds, unknown = _labeled_kinds(truths, detector, judge)
    for row in plan.rows:
        if row.folder is not None and row not in plan.model_rows:
            check_results(row, plan.pairs.pairs, ())
    if fuser is not None and target is not None:
        fuser.require_modulation()
    searched = tuple(row for row in plan.rows if row.name != LATE)
    jobs = (DetectionJob(pair, searched, judge.detector) for pair in plan.pairs.pairs)
    found = dict(map_jobs(search_pair, _fused(jobs, plan, fuser, target), workers, progress))
    images = [DetectedImage(stem, truths[stem], found[stem]) for stem in sorted(found)]

    named = [kind_of(phrase.text) for phrase in parse_prompt(judge.text, "--text").phrases]
    main = tuple(kind for kind in kinds if kind in named) or kinds
    parts = split_images(images)
    whole = measure(images, plan.rows, kinds, main)
    notes = [_counts_note(images, parts, kinds), f"AP50 and AP are means over the classes {', '.join(main)}."]
    if parts:
        letters = " and ".join(f"{letter} is {name}" for letter, name in PARTS.items() if name in parts)
        notes.append(f"Parts by the last letter of the images' names: {letters}.")
    if unknown:
        notes.append(f"Labeled classes that the detector does not know, not measured: {', '.join(unknown)}.")
    return Evaluation(
        "detection",
        plan.pairs.name,
        len(images),
        plan.rows,
        tuple(record for image in images for record in count_boxes(image, plan.rows, kinds)),
        whole.table,
        about={"detector": detector.summary, "text": judge.text},
        notes=tuple(notes),
        parts={name: measure(of_part, plan.rows, kinds, main) for name, of_part in parts.items()},
        paired=whole.against,
    )


def search_pair(job: DetectionJob) -> tuple[str, dict[str, Detected]]:
    """Run the detector on every row of a pair.

    :param job: a pair whose fused images exist
    :returns: the stem of the pair, and what was found by name of the row, with ``late``
    """
    detector = _detector(job.detector)
    visible, infrared = read_pair(job.pair)
    inputs = InputPair(job.pair.stem, "", visible, infrared)
    found = {row.name: detector.detect(row_image(inputs, row)) for row in job.rows}
    pairs = {kind: [found[sensor][kind] for sensor in SENSORS] for kind in detector.kinds}
    return job.pair.stem, {**found, LATE: {kind: a.joined(b) for kind, (a, b) in pairs.items()}}


def row_image(inputs: InputPair, row: Row) -> np.ndarray:
    """Return the image that the detector receives in a row, uint8 [H, W, 3] RGB.

    The controls of other panels keep the visible image's color; here the sensors' images are passed on as they are.

    :param inputs: the pair
    :param row: a row; for ``late`` the visible image, to draw its boxes on
    """
    visible, infrared = inputs.pair
    if row.name in (VISIBLE, LATE):
        return visible
    if row.name == INFRARED:
        return np.repeat(infrared[:, :, None], 3, 2)
    return inputs.fused_image(row)


def split_images(images: Sequence[DetectedImage]) -> dict[str, list[DetectedImage]]:
    """Split images by day and night if all names tell, see :data:`PARTS`.

    :param images: of a set
    :returns: by name of the part; empty if a name does not tell, or all are of one part
    """
    if not all(image.stem[-1:] in PARTS and image.stem[-2:-1].isdigit() for image in images):
        return {}
    parts = {name: [image for image in images if image.stem[-1] == letter] for letter, name in PARTS.items()}
    return parts if all(parts.values()) else {}


def measure(images: Sequence[DetectedImage], rows: Sequence[Row], kinds: Sequence[str], main: Sequence[str]) -> Part:
    """Compute the average precision of every row, and the differences of the methods.

    Intervals are over images: matches do not depend on other images, so a resampled set is the same matches with other
    weights. All rows use the same resampled sets, so differences are paired.

    :param images: with the boxes found in every row
    :param rows: the rows
    :param kinds: the classes to measure
    :param main: the classes of the means AP50 and AP
    """
    drawn = draw_images(len(images))
    figures = {row.name: _figures(images, row.name, kinds, main, drawn) for row in rows}
    table = {
        row: {name: _interval(*figure, len(images)) for name, figure in of_row.items()}
        for row, of_row in figures.items()
    }
    visible, infrared = (figures[sensor] for sensor in SENSORS)
    figures[BETTER_SENSOR] = {
        name: visible[name] if visible[name][0] >= infrared[name][0] else infrared[name] for name in visible
    }
    methods = [row.name for row in rows if not row.is_control]
    against: Differences = {
        other: {row: _paired(figures[row], figures[other], len(images)) for row in methods}
        for other in (BETTER_SENSOR, LATE)
    }
    if MODEL + TEXT in methods:
        against[MODEL] = {MODEL + TEXT: _paired(figures[MODEL + TEXT], figures[MODEL], len(images))}
    return Part(len(images), rank(table, rows), against)


_Figure = tuple[float, np.ndarray]
"""A figure, and that of every resampled set, float64 [R]."""


def _figures(
    images: Sequence[DetectedImage], row: str, kinds: Sequence[str], main: Sequence[str], drawn: np.ndarray
) -> dict[str, _Figure]:
    """Compute the figures of one row by name."""
    figures: dict[str, _Figure] = {}
    for kind in kinds:
        boxes = [image.boxes(row, kind) for image in images]
        scored = score_detections(
            [item.edges for item in boxes], [item.scores for item in boxes], [image.labels(kind) for image in images]
        )
        point, samples = average_precision(scored)[0], average_precision(scored, drawn)
        figures[f"AP50_{kind}"] = float(point[0]), samples[:, 0]
        figures[f"AP_{kind}"] = float(point.mean()), samples.mean(1)
    for name in ("AP50", "AP"):  # undefined if that of a class is
        of_classes = [figures[f"{name}_{kind}"] for kind in main]
        points, sampled = zip(*of_classes, strict=True)
        figures[name] = sum(points) / len(points), np.mean(sampled, 0)
    return figures


def _interval(point: float, samples: np.ndarray, images: int) -> Interval:
    if images < 2 or np.isnan(point):
        return Interval(point, float("nan"), float("nan"), images)
    return Interval(point, *central_part(samples), images)


def _paired(figures: dict[str, _Figure], others: dict[str, _Figure], images: int) -> dict[str, Interval]:
    return {
        name: _interval(figures[name][0] - others[name][0], figures[name][1] - others[name][1], images)
        for name in in_order(figures)
    }


def count_boxes(image: DetectedImage, rows: Sequence[Row], kinds: Sequence[str]) -> list[Record]:
    """Count labeled, found and false boxes of an image in every row.

    :param image: with the boxes found in every row
    :param rows: the rows
    :param kinds: the classes to count
    """
    records = []
    for row in rows:
        values = {}
        for kind in kinds:
            truths, shown = image.labels(kind), image.boxes(row.name, kind).above(SHOWN_SCORE)
            found = int(np.count_nonzero(match_detections(shown.edges, shown.scores, truths)[0] >= 0))
            counts: dict[str, int] = {"objects": len(truths), "found": found, "false": len(shown.scores) - found}
            values.update({f"{name}_{kind}": float(count) for name, count in counts.items()})
        records.append(Record("", row.name, image.stem, values))
    return records


@functools.lru_cache(maxsize=1)
def _detector(path: Path) -> OnnxDetector:
    """Load the detector once per process."""
    return OnnxDetector(path)


def _labeled_kinds(
    truths: dict[str, dict[str, np.ndarray]], detector: OnnxDetector, judge: Judge
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labeled classes that the detector finds, those named by the text first; and the other ones."""
    labeled = sorted({kind for of_image in truths.values() for kind in of_image})
    named = [kind_of(phrase.text) for phrase in parse_prompt(judge.text, "--text").phrases]
    ordered = [*(kind for kind in named if kind in labeled), *(kind for kind in labeled if kind not in named)]
    known = tuple(kind for kind in dict.fromkeys(ordered) if kind in detector.kinds)
    if not known:
        found = ", ".join(labeled) or "no object"
        raise FileError(f"the boxes {judge.boxes}", "of a class that the detector knows", found)
    return known, tuple(kind for kind in labeled if kind not in known)


def _fused(
    jobs: Iterator[DetectionJob], plan: PanelPlan, fuser: Fuser | None, target: ImageTarget | None
) -> Iterator[DetectionJob]:
    """Fuse each pair without and with the text, then yield its job."""
    if fuser is None:
        yield from jobs
        return
    from textdifuse_ros.runtime.engine import DirectBackend, FusionRequest
    from textdifuse_ros.runtime.processor import PairProcessor

    config = fuser.config
    request = FusionRequest(config.steps, config.sampler, config.seed)
    backend = DirectBackend(fuser)
    processors = {MODEL: PairProcessor(backend), MODEL + TEXT: PairProcessor(backend, target)}
    for job in jobs:
        visible, infrared = read_pair(job.pair)
        for row in plan.model_rows:
            save_fused(row, job.pair, processors[row.name].process(AlignedPair(visible, infrared), request))
        yield job


def _counts_note(images: Sequence[DetectedImage], parts: dict[str, list[DetectedImage]], kinds: Sequence[str]) -> str:
    counts = [f"{sum(len(image.labels(kind)) for image in images)} {kind}" for kind in kinds]
    shares = ", ".join(f"{len(of_part)} {name}" for name, of_part in parts.items())
    return f"Labeled objects: {', '.join(counts)}, in {len(images)} images{f' ({shares})' if shares else ''}."
