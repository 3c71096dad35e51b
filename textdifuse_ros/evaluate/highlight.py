"""The panel "text": how much more the named objects stand out, and whether anything else changed.

A method is two folders of images of the same pairs: ``NAME`` made with the text, ``NAME_plain`` without it. The model
under test makes both itself. It is given the objects, in place of what a localizer finds: this panel measures what
becomes of them, not whether they are found.
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
from textdifuse_ros.evaluate.results import Evaluation, Record, rank, summarise
from textdifuse_ros.evaluate.sets import PairSet, check_size, read_grey, read_pair
from textdifuse_ros.evaluate.statistics import Interval, bootstrap_ratio
from textdifuse_ros.image.files import Pair
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.regions import box_masks, change_outside, contrast_gain, instance_masks, object_contrast

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

PLAIN = "_plain"


@dataclass(frozen=True)
class Objects:
    """Where the objects of the images are.

    :ivar folder: with ``STEM.txt``, a line ``class left top right bottom`` [pixels] for each object, or with
        ``STEM.png``, grey, a level for each object and 0 where there is none
    :ivar masks: whether it holds the latter
    """

    folder: Path
    masks: bool

    def path(self, stem: str) -> Path:
        """The file of an image's objects."""
        return self.folder / f"{stem}{'.png' if self.masks else '.txt'}"

    def read(self, stem: str, visible: np.ndarray) -> np.ndarray:
        """One mask for each object of an image, bool [N, H, W].

        :param visible: the image, for its size
        :raises FileError: missing or not in the form said
        :raises ImageError: a mask of another size, or in colors
        """
        path = self.path(stem)
        if self.masks:
            levels = read_grey(path, "the mask", "give every object a grey level of its own", tolerance=0)
            check_size(path, levels, visible)
            return instance_masks(levels)
        return box_masks([box for _, box in read_boxes(path)], *visible.shape[:2])


@dataclass(frozen=True)
class TextJob:
    """One pair with its objects."""

    pair: Pair
    rows: tuple[Row, ...]
    plain: tuple[Row, ...]
    objects: Objects


def labeled(pairs: PairSet, objects: Objects) -> PairSet:
    """The pairs whose objects are known.

    :raises FileError: no folder, or none of them
    """
    if not objects.folder.is_dir():
        raise FileError(str(objects.folder), "a folder with the objects of the images", "no such folder")
    known = tuple(pair for pair in pairs.pairs if objects.path(pair.stem).is_file())
    if not known:
        raise FileError(str(objects.folder), f"a folder with {objects.path(pairs.pairs[0].stem).name}", "none such")
    return replace(pairs, pairs=known)


def run_text(
    plan: PanelPlan,
    objects: Objects,
    fuser: Fuser | None,
    strength: float,
    workers: int,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Measure contrast, gain and change of all pairs of the plan.

    :param plan: its rows hold ``NAME`` and ``NAME_plain`` for every method; its pairs are those of :func:`labeled`
    :param fuser: fuses the rows that the plan gives to the model
    :param strength: of the objects in the model's images, in [-1, 2]
    :param progress: called once for each pair
    :raises CheckpointError: the model has no text re-modulation
    :raises ConfigError: a method without its plain images
    :raises FileError: an image is missing
    """
    plain = tuple(row for row in plan.rows if row.folder is not None and row.name.endswith(PLAIN))
    rows = tuple(row for row in plan.rows if row not in plain)
    _check_counterparts(rows, plain)
    for row in plan.rows:
        if row.folder is not None and row not in plan.modeled:
            check_results(row, plan.pairs.pairs, ())
    if fuser is not None:
        fuser.require_modulation()
    jobs = (TextJob(pair, rows, plain, objects) for pair in plan.pairs.pairs)
    records = gather(measure_objects, _fused(jobs, plan, fuser, strength), workers, progress)
    table = summarise(records, rows).rows
    for row in rows:
        if row.folder is not None:
            table[row.name]["gain"] = gain_interval(records, row.name)
    many = len({record.name for record in records if record.number})
    covered = "the masks" if objects.masks else "the boxes"
    notes = (
        f"{many} objects in {len(plan.pairs.pairs)} images. Contrast and gain are means over objects, their "
        "intervals over images, for objects of one image are not independent.",
        f"Changed is counted outside {covered}. A control has no text: its contrast is what the objects have anyway.",
    )
    return Evaluation("text", plan.pairs.name, len(plan.pairs.pairs), rows, records, rank(table, rows), notes=notes)


def _fused(jobs: Iterator[TextJob], plan: PanelPlan, fuser: Fuser | None, strength: float) -> Iterator[TextJob]:
    """The jobs; each only once the model has fused its pair with and without its objects."""
    from textdifuse_ros.fusion.emphasis import Emphasis

    for job in jobs:
        if fuser is not None:
            visible, infrared = read_pair(job.pair)
            masks = job.objects.read(job.pair.stem, visible)
            apart = np.zeros(masks.shape[1:], np.uint16)
            for number in np.argsort(-masks.sum((1, 2)), kind="stable"):  # of boxes that overlap, the smaller is seen
                apart[masks[number]] = number + 1
            strengths = np.where(apart > 0, np.float32(strength), np.float32(0))
            for row in plan.modeled:
                emphasis = None if row.name.endswith(PLAIN) else Emphasis(strengths, strength=strength, objects=apart)
                save_fused(row, job.pair, fuser.fuse(visible, infrared, emphasis=emphasis))
        yield job


def measure_objects(job: TextJob) -> tuple[str, list[Record]]:
    """Contrast of every object, and what changed elsewhere.

    :returns: the pair's stem; for each row a record for each object, and for a method one of the image
    """
    visible, infrared = read_pair(job.pair)
    stem = job.pair.stem
    masks = job.objects.read(stem, visible)
    inputs = InputPair(stem, "", visible, infrared)
    plain = {row.name: row for row in job.plain}
    records = []
    for row in job.rows:
        image = inputs.fused(row)
        figures = [{"contrast": float(value)} for value in object_contrast(to_grey(image), masks)]
        if row.folder is not None:
            without = inputs.fused(plain[row.name + PLAIN])
            for values, contrast in zip(figures, object_contrast(to_grey(without), masks), strict=True):
                values["contrast_plain"] = float(contrast)
            change = change_outside(image, without, np.asarray(masks.any(0)))
            outside = {"changed_outside": change.share, "largest_outside": change.largest}
            records.append(Record("", row.name, stem, outside))
        records.extend(Record("", row.name, stem, values, n + 1) for n, values in enumerate(figures))
    return stem, records


def gain_interval(records: Sequence[Record], row: str, seed: int = 0) -> Interval:
    """The contrast gain over all objects with its bootstrap interval over images.

    :param records: of :func:`measure_objects`
    """
    by_image: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        if record.row == row and "contrast_plain" in record.values:
            pair = (record.values["contrast"], record.values["contrast_plain"])
            by_image.setdefault(record.stem, []).append(pair)
    images = [np.array(pairs) for pairs in by_image.values()]
    if not images:
        return Interval(np.nan, np.nan, np.nan, 0)
    together = np.concatenate(images)
    gain = contrast_gain(together[:, 0], together[:, 1])
    undefined = int(np.isnan(together).any(1).sum())
    defined = len(together) - undefined
    sums = np.array([pairs[~np.isnan(pairs).any(1)].sum(0) for pairs in images])
    low, high = bootstrap_ratio(sums[:, 0], sums[:, 1], seed=seed)
    return Interval(gain, low - 1, high - 1, defined, undefined)


def _check_counterparts(rows: Sequence[Row], plain: Sequence[Row]) -> None:
    names = {row.name for row in rows if row.folder is not None}
    counterparts = {row.name.removesuffix(PLAIN) for row in plain}
    for name in sorted(names ^ counterparts):
        missing = name + PLAIN if name in names else name
        remedy = "the panel compares images made with the text and without it"
        raise ConfigError("--method", f"given for {missing} too", "its counterpart only", remedy)
    if not names:
        due = f"given with --model, or with --method NAME=DIR and NAME{PLAIN}=DIR"
        raise ConfigError("--panel text", due, "neither")
