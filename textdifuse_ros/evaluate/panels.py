"""The panels "clean" and "degraded": the fused images of every row, measured against the clean sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from textdifuse_ros.data.conditions import SATURATED, SUITE, saturated_part
from textdifuse_ros.errors import ImageError
from textdifuse_ros.evaluate.methods import CLEAN, InputPair, Row, check_results, fuse_into, save_inputs
from textdifuse_ros.evaluate.pool import map_jobs
from textdifuse_ros.evaluate.results import EQUAL_PSNR, Evaluation, Record, summarize
from textdifuse_ros.evaluate.sets import PairSet, read_pair
from textdifuse_ros.image.files import Pair
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.similarity import VIF_MIN_SIZE, correlation_inside, psnr
from textdifuse_ros.metrics.table import clean_metrics

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

Work = TypeVar("Work")


@dataclass(frozen=True)
class PanelPlan:
    """What a panel measures.

    :ivar pairs: the pairs
    :ivar rows: all rows of the tables
    :ivar conditions: names of the degradations; () for the clean panel
    :ivar model_rows: the rows fused by the model, which fills their folders
    :ivar inputs: folder for the input images of the methods, or None
    """

    pairs: PairSet
    rows: tuple[Row, ...]
    conditions: tuple[str, ...] = ()
    model_rows: tuple[Row, ...] = ()
    inputs: Path | None = None

    @property
    def layout(self) -> tuple[str, ...]:
        """Sub-folders of the results of a method; ("",) in the clean panel."""
        return (CLEAN, *self.conditions) if self.conditions else ("",)


@dataclass(frozen=True)
class PairJob:
    """The unit of parallel work: one pair with all rows and conditions."""

    pair: Pair
    rows: tuple[Row, ...]
    conditions: tuple[str, ...]


def run_pairs(
    plan: PanelPlan, fuser: Fuser | None, workers: int, progress: Callable[[], object] = lambda: None
) -> Evaluation:
    """Measure the clean panel, or the degraded one if the plan has conditions.

    :param plan: pairs, rows and conditions
    :param fuser: the model, for ``plan.model_rows``; None if there are none
    :param workers: number of processes for the metrics; the model runs in this process
    :param progress: called once per pair
    :raises FileError: a result is missing
    :raises ImageError: an image has another size than its pair, or an infrared image is colored
    """
    for row in plan.rows:
        if row.folder is not None and row not in plan.model_rows:
            check_results(row, plan.pairs.pairs, plan.layout)
    records = gather(measure_pair, _jobs(plan, fuser), workers, progress)
    by_condition = {
        name: summarize([record for record in records if record.condition == name], plan.rows)
        for name in plan.conditions
    }
    averaged = tuple(name for name in plan.conditions if name in SUITE) or plan.conditions
    apart = [name for name in plan.conditions if name not in averaged]
    return Evaluation(
        "degraded" if plan.conditions else "clean",
        plan.pairs.name,
        len(plan.pairs.pairs),
        plan.rows,
        records,
        summarize([record for record in records if record.condition in ("", *averaged)], plan.rows),
        by_condition,
        notes=(f"Not in the means over conditions: {', '.join(apart)}.",) if apart else (),
        averaged=averaged,
    )


def gather(
    function: Callable[[Work], tuple[str, list[Record]]],
    jobs: Iterable[Work],
    workers: int,
    progress: Callable[[], object],
) -> tuple[Record, ...]:
    """Measure all jobs and return the records sorted by image name.

    :param function: returns the stem and the records of a job
    :param jobs: the work
    :param workers: number of processes
    :param progress: called once per job
    """
    by_stem = dict(map_jobs(function, jobs, workers, progress))
    return tuple(record for stem in sorted(by_stem) for record in by_stem[stem])


def measure_pair(job: PairJob) -> tuple[str, list[Record]]:
    """Compute all metrics of one pair.

    :param job: a pair whose fused images exist
    :returns: the stem, and one record per condition and row
    :raises ImageError: the image is too small for the metrics
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
            records.append(Record("", row.name, stem, clean_metrics(inputs.fused_image(row), visible, infrared)))
        return stem, records
    clean = InputPair(stem, CLEAN, visible, infrared)
    clean_fusion = {row.name: clean.fused_image(row) for row in job.rows}
    for condition in job.conditions:
        inputs = InputPair(stem, condition, visible, infrared)
        for row in job.rows:
            fused = inputs.fused_image(row)
            values = clean_metrics(fused, visible, infrared)
            values["PSNR_consistency"] = min(psnr(fused, clean_fusion[row.name]), EQUAL_PSNR)
            if condition == SATURATED:
                part = saturated_part(inputs.pair[0], visible)
                values["corr_saturated"] = correlation_inside(to_grey(fused), infrared, part)
            records.append(Record(condition, row.name, stem, values))
    return stem, records


def _jobs(plan: PanelPlan, fuser: Fuser | None) -> Iterator[PairJob]:
    """Fuse each pair by the model, then yield its job."""
    for pair in plan.pairs.pairs:
        if plan.model_rows or plan.inputs:
            visible, infrared = read_pair(pair)
            for condition in plan.layout:
                inputs = InputPair(pair.stem, condition, visible, infrared)
                for row in plan.model_rows:
                    assert fuser is not None
                    fuse_into(row, fuser, inputs, pair)
                if plan.inputs:
                    save_inputs(plan.inputs, inputs)
        yield PairJob(pair, plan.rows, plan.conditions)
