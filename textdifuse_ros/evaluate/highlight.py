"""The panel "text": how much the contrast of the named objects rises, and whether anything else changes.

A method consists of two folders with images of the same pairs: ``NAME`` fused with the text, ``NAME_plain`` without it.
The model under test fuses both itself. It receives the labeled objects instead of a localizer's detections: this panel
measures the emphasis, not the detection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdifuse_ros.data.labels import read_boxes
from textdifuse_ros.errors import ConfigError, FileError
from textdifuse_ros.evaluate.methods import InputPair, Row, check_results, save_fused
from textdifuse_ros.evaluate.panels import PanelPlan, gather
from textdifuse_ros.evaluate.results import Evaluation, Record, rank, summarize
from textdifuse_ros.evaluate.sets import PairSet, check_size, read_grey, read_pair
from textdifuse_ros.evaluate.statistics import Interval, bootstrap_ratio
from textdifuse_ros.image.files import Pair, stored_path
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.regions import box_masks, change_outside, contrast_gain, instance_masks, object_contrast

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

PLAIN = "_plain"


@dataclass(frozen=True)
class Objects:
    """A folder with the labeled objects of the images.

    :ivar folder: contains ``STEM.txt`` with a line ``class left top right bottom`` [pixels] per object, or
        ``STEM.png``, grey, with one level per object and 0 for the background
    :ivar masks: True for ``STEM.png``, False for ``STEM.txt``
    """

    folder: Path
    masks: bool

    def path(self, stem: str) -> Path:
        """Return the path of the objects of the image named ``stem``."""
        return stored_path(self.folder / f"{stem}{'.png' if self.masks else '.txt'}")

    def read(self, stem: str, visible: np.ndarray) -> np.ndarray:
        """Read one mask per object, bool [N, H, W].

        :param stem: name of the image without suffix
        :param visible: uint8 [H, W, 3], the image itself, for its size
        :raises FileError: the file is missing or malformed
        :raises ImageError: the mask image has another size or is colored
        """
        path = self.path(stem)
        if self.masks:
            levels = read_grey(path, "the mask", "give every object its own grey level", tolerance=0)
            check_size(path, levels, visible)
            return instance_masks(levels)
        return box_masks([box for _, box in read_boxes(path)], *visible.shape[:2])


@dataclass(frozen=True)
class TextJob:
    """One pair to measure, with its objects.

    :ivar rows: rows fused with the text, and the controls
    :ivar plain: rows fused without the text, ``NAME_plain``
    """

    pair: Pair
    rows: tuple[Row, ...]
    plain: tuple[Row, ...]
    objects: Objects


def select_labeled(pairs: PairSet, objects: Objects) -> PairSet:
    """Select the ``pairs`` that have a file of ``objects``.

    :raises FileError: the folder is missing, or has no file for any pair
    """
    if not objects.folder.is_dir():
        raise FileError(str(objects.folder), "a folder with the objects of the images", "no such folder")
    known = tuple(pair for pair in pairs.pairs if objects.path(pair.stem).is_file())
    if not known:
        raise FileError(str(objects.folder), f"a folder with {objects.path(pairs.pairs[0].stem).name}", "none")
    return replace(pairs, pairs=known)


def run_text(
    plan: PanelPlan,
    objects: Objects,
    fuser: Fuser | None,
    strength: float,
    workers: int,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Measure object contrast, its gain by the text, and changes outside the objects.

    :param plan: its rows contain ``NAME`` and ``NAME_plain`` of every method; its pairs come from
        :func:`select_labeled`
    :param objects: the labeled objects
    :param fuser: the model, for ``plan.model_rows``; None if there are none
    :param strength: strength of the objects for the model, in [-1, 2]
    :param workers: number of processes for the metrics
    :param progress: called once per pair
    :raises CheckpointError: the model has no text modulation
    :raises ConfigError: a method lacks its plain images
    :raises FileError: an image is missing
    """
    plain = tuple(row for row in plan.rows if row.folder is not None and row.name.endswith(PLAIN))
    rows = tuple(row for row in plan.rows if row not in plain)
    _check_counterparts(rows, plain)
    for row in plan.rows:
        if row.folder is not None and row not in plan.model_rows:
            check_results(row, plan.pairs.pairs, ())
    if fuser is not None:
        fuser.require_modulation()
    jobs = (TextJob(pair, rows, plain, objects) for pair in plan.pairs.pairs)
    records = gather(measure_objects, _fused(jobs, plan, fuser, strength), workers, progress)
    table = summarize(records, rows).rows
    for row in rows:
        if row.folder is not None:
            table[row.name]["gain"] = gain_interval(records, row.name)
    count = len({record.name for record in records if record.number})
    regions = "the masks" if objects.masks else "the boxes"
    notes = (
        f"{count} objects in {len(plan.pairs.pairs)} images. Contrast and gain are means over objects; their intervals "
        "are over images, since the objects of one image are not independent.",
        f"Changes are counted outside {regions}. A control uses no text: its contrast is the baseline.",
    )
    return Evaluation("text", plan.pairs.name, len(plan.pairs.pairs), rows, records, rank(table, rows), notes=notes)


def _fused(jobs: Iterator[TextJob], plan: PanelPlan, fuser: Fuser | None, strength: float) -> Iterator[TextJob]:
    """Fuse each pair with and without its objects, then yield its job."""
    from textdifuse_ros.fusion.emphasis import Emphasis

    for job in jobs:
        if fuser is not None:
            visible, infrared = read_pair(job.pair)
            masks = job.objects.read(job.pair.stem, visible)
            labels = np.zeros(masks.shape[1:], np.uint16)
            for number in np.argsort(-masks.sum((1, 2)), kind="stable"):  # where boxes overlap, the smaller one wins
                labels[masks[number]] = number + 1
            strengths = np.where(labels > 0, np.float32(strength), np.float32(0))
            for row in plan.model_rows:
                emphasis = None if row.name.endswith(PLAIN) else Emphasis(strengths, strength=strength, objects=labels)
                save_fused(row, job.pair, fuser.fuse(visible, infrared, emphasis=emphasis))
        yield job


def measure_objects(job: TextJob) -> tuple[str, list[Record]]:
    """Measure the contrast of every object, and the change outside the objects.

    :param job: a pair whose fused images exist
    :returns: the stem of the pair; per row one record per object, and for a method one record of the whole image
    """
    visible, infrared = read_pair(job.pair)
    stem = job.pair.stem
    masks = job.objects.read(stem, visible)
    inputs = InputPair(stem, "", visible, infrared)
    plain = {row.name: row for row in job.plain}
    records = []
    for row in job.rows:
        image = inputs.fused_image(row)
        figures = [{"contrast": float(value)} for value in object_contrast(to_grey(image), masks)]
        if row.folder is not None:
            without = inputs.fused_image(plain[row.name + PLAIN])
            for values, contrast in zip(figures, object_contrast(to_grey(without), masks), strict=True):
                values["contrast_plain"] = float(contrast)
            change = change_outside(image, without, np.asarray(masks.any(0)))
            outside = {"changed_outside": change.share, "largest_outside": change.largest}
            records.append(Record("", row.name, stem, outside))
        records.extend(Record("", row.name, stem, values, n + 1) for n, values in enumerate(figures))
    return stem, records


def gain_interval(records: Sequence[Record], row: str, seed: int = 0) -> Interval:
    """Compute the contrast gain over all objects, with its bootstrap interval over images.

    :param records: from :func:`measure_objects`
    :param row: name of the row
    :param seed: seed of the bootstrap
    :returns: ratio of the contrasts minus 1
    """
    by_image: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        if record.row == row and "contrast_plain" in record.values:
            pair = (record.values["contrast"], record.values["contrast_plain"])
            by_image.setdefault(record.stem, []).append(pair)
    images = [np.array(pairs) for pairs in by_image.values()]
    if not images:
        return Interval(np.nan, np.nan, np.nan, 0)
    contrasts = np.concatenate(images)
    gain = contrast_gain(contrasts[:, 0], contrasts[:, 1])
    undefined = int(np.isnan(contrasts).any(1).sum())
    defined = len(contrasts) - undefined
    sums = np.array([pairs[~np.isnan(pairs).any(1)].sum(0) for pairs in images])
    low, high = bootstrap_ratio(sums[:, 0], sums[:, 1], seed=seed)
    return Interval(gain, low - 1, high - 1, defined, undefined)


def _check_counterparts(rows: Sequence[Row], plain: Sequence[Row]) -> None:
    names = {row.name for row in rows if row.folder is not None}
    counterparts = {row.name.removesuffix(PLAIN) for row in plain}
    for name in sorted(names ^ counterparts):
        missing = name + PLAIN if name in names else name
        remedy = "the panel compares images fused with and without the text"
        raise ConfigError("--method", f"given for {missing} too", "its counterpart only", remedy)
    if not names:
        expected = f"given with --model, or with --method NAME=DIR and NAME{PLAIN}=DIR"
        raise ConfigError("--panel text", expected, "neither")
