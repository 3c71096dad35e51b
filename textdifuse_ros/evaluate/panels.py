"""The panels "clean" and "degraded": every row's image of every pair against the clean sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from textdifuse_ros.errors import ImageError
from textdifuse_ros.evaluate.methods import CLEAN, InputPair, Row, check_results, fuse_into, save_inputs
from textdifuse_ros.evaluate.pool import spread
from textdifuse_ros.evaluate.results import EQUAL_PSNR, Evaluation, Record, summarise
from textdifuse_ros.evaluate.sets import PairSet, read_pair
from textdifuse_ros.image.files import Pair
from textdifuse_ros.metrics.similarity import VIF_MIN_SIZE, psnr
from textdifuse_ros.metrics.table import clean_metrics

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

Work = TypeVar("Work")


@dataclass(frozen=True)
class PanelPlan:
    """What a panel measures.

    :ivar rows: of the tables; the model's have an empty folder, which it fills
    :ivar conditions: of the degraded panel; () for the clean one
    :ivar modeled: the rows that the model fuses
    :ivar inputs: folder to save what the methods are given, or None
    """

    pairs: PairSet
    rows: tuple[Row, ...]
    conditions: tuple[str, ...] = ()
    modeled: tuple[Row, ...] = ()
    inputs: Path | None = None

    @property
    def layout(self) -> tuple[str, ...]:
        """Sub-folders of a method's results: none in the clean panel."""
        return (CLEAN, *self.conditions) if self.conditions else ("",)


@dataclass(frozen=True)
class PairJob:
    """One pair, all rows and conditions: the work of one process at a time."""

    pair: Pair
    rows: tuple[Row, ...]
    conditions: tuple[str, ...]


def run_pairs(
    plan: PanelPlan, fuser: Fuser | None, workers: int, progress: Callable[[], object] = lambda: None
) -> Evaluation:
    """Measure the clean panel, or where the plan has conditions the degraded one.

    :param fuser: fuses the rows that the plan gives to the model
    :param workers: processes for the metrics; the model stays in this one
    :param progress: called once for each pair measured
    :raises FileError: a result is missing
    :raises ImageError: an image is of another size than its pair, or an infrared one colored
    """
    for row in plan.rows:
        if row.folder is not None and row not in plan.modeled:
            check_results(row, plan.pairs.pairs, plan.layout)
    records = gather(measure_pair, _jobs(plan, fuser), workers, progress)
    by_condition = {
        name: summarise([record for record in records if record.condition == name], plan.rows)
        for name in plan.conditions
    }
    return Evaluation(
        "degraded" if plan.conditions else "clean",
        plan.pairs.name,
        len(plan.pairs.pairs),
        plan.rows,
        records,
        summarise(records, plan.rows),
        by_condition,
    )


def gather(
    function: Callable[[Work], tuple[str, list[Record]]],
    jobs: Iterable[Work],
    workers: int,
    progress: Callable[[], object],
) -> tuple[Record, ...]:
    """All records of a panel in the order of the images' names, whatever the order in which they were measured.

    :param function: gives an image's stem and its records
    """
    found = dict(spread(function, jobs, workers, progress))
    return tuple(record for stem in sorted(found) for record in found[stem])


def measure_pair(job: PairJob) -> tuple[str, list[Record]]:
    """All figures of one pair.

    :returns: its stem, and a record for each condition and row
    """
    visible, infrared = read_pair(job.pair)
    stem = job.pair.stem
    if min(infrared.shape) < VIF_MIN_SIZE:
        found = f"{infrared.shape[1]} x {infrared.shape[0]}"
        raise ImageError(f"the image {job.pair.visible}", f"at least {VIF_MIN_SIZE} x {VIF_MIN_SIZE} pixels", found)
    records = []
    if not job.conditions:
        inputs = InputPair(stem, "", visible, infrared)
        for row in job.rows:
            records.append(Record("", row.name, stem, clean_metrics(inputs.fused(row), visible, infrared)))
        return stem, records
    undegraded = InputPair(stem, CLEAN, visible, infrared)
    own = {row.name: undegraded.fused(row) for row in job.rows}
    for condition in job.conditions:
        inputs = InputPair(stem, condition, visible, infrared)
        for row in job.rows:
            fused = inputs.fused(row)
            values = clean_metrics(fused, visible, infrared)
            values["PSNR_consistency"] = min(psnr(fused, own[row.name]), EQUAL_PSNR)
            records.append(Record(condition, row.name, stem, values))
    return stem, records


def _jobs(plan: PanelPlan, fuser: Fuser | None) -> Iterator[PairJob]:
    """The jobs; each only once the model has fused its pair."""
    for pair in plan.pairs.pairs:
        if plan.modeled or plan.inputs:
            visible, infrared = read_pair(pair)
            for condition in plan.layout:
                inputs = InputPair(pair.stem, condition, visible, infrared)
                for row in plan.modeled:
                    assert fuser is not None
                    fuse_into(row, fuser, inputs, pair)
                if plan.inputs:
                    save_inputs(plan.inputs, inputs)
        yield PairJob(pair, plan.rows, plan.conditions)
