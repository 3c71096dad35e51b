"""Results of an evaluation, and the conclusions they allow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from textdifuse_ros.evaluate.methods import Row
from textdifuse_ros.evaluate.statistics import Interval, bootstrap_interval, signed_rank_p

EQUAL_PSNR = 100.0
"""PSNR of two equal images [dB]; infinity would make every mean infinite."""

UNDEFINED = (
    "(3 of 4) after a figure: it is defined for 3 of 4 only. Such a row never ranks above one that is defined for more."
)
"""Printed beside tables with such figures."""

REFERENCES = ("max", "max+noise15")
"""The controls that every method is compared with, image by image."""


@dataclass(frozen=True)
class Metric:
    """How a metric is displayed and read.

    :ivar name: name in all outputs
    :ivar meaning: one sentence with the unit
    :ivar better: 1 if higher is better, -1 if lower is, 0 if neither
    :ivar digits: decimals in tables
    """

    name: str
    meaning: str
    better: int = 1
    digits: int = 3


_METRICS = (
    Metric("EN", "Entropy of the fused grey image [bit]. Noise raises it.", digits=2),
    Metric("AG", "Average gradient [levels per pixel], 0 to 255. Noise and halos raise it.", digits=2),
    Metric("SD", "Standard deviation of the fused grey image [levels]. Clipping and noise raise it.", digits=2),
    Metric("SCD", "Sum of the correlations of differences, at most 2. The plain sum of the sources comes close."),
    Metric("VIF", "Visual information fidelity (pixel domain), visible plus infrared. A copy of one source gets 1."),
    Metric("VIF_visible", "The term of VIF for the clean visible image."),
    Metric("VIF_infrared", "The term of VIF for the clean infrared image."),
    Metric("VIF_min", "The smaller of the two terms, per image. A copy of one source gains nothing."),
    Metric("Qabf", "Edges transferred from either source (Xydeas and Petrovic), 0 to 1."),
    Metric("SSIM", "Structural similarity to the clean sources, mean of both, at most 1."),
    Metric("SSIM_day", "Structural similarity to the clean visible image where that is well exposed, at most 1."),
    Metric("MI", "Mutual information with both sources [bit]. A copy of one source gets its entropy.", digits=2),
    Metric("FMI", "Mutual information of the gradients with those of the sources, normalized, 0 to 1."),
    Metric("Qncie", "Nonlinear correlation information entropy of the fused image and the sources, 0 to 1.", digits=4),
    Metric("Qcv", "Difference to the sources as an eye sees it (Chen and Varshney). Lower is better.", -1, 1),
    Metric(
        "PSNR_consistency",
        "PSNR of the fusion of the degraded pair against the same method's fusion of the clean one [dB]; equal "
        "images count as 100. A method that ignores its input gains by it.",
        digits=2,
    ),
    Metric("corr_saturated", "Correlation with the infrared where the condition glare saturates the visible image."),
    Metric("dE00", "Chroma error, CIEDE2000 against the clean visible image with its luma. Lower is better.", -1, 2),
    Metric("flicker", "Mean change [levels] from frame to frame along the scene's motion. Lower is better.", -1, 2),
    Metric("contrast", "Contrast of the objects [levels]: mean luma inside against a ring of 10 px around.", digits=2),
    Metric("contrast_plain", "The same in the image fused without the text.", 0, 2),
    Metric("gain", "Contrast of the objects with the text divided by that without, minus 1."),
    Metric("changed_outside", "Share of the pixels outside the objects that differ with the text. Must be 0.", -1, 6),
    Metric("largest_outside", "Largest change outside the objects [levels]. Must be 0.", -1, 0),
    Metric("AP50", "Average precision of the detector at an intersection over union of 0.5, 0 to 1."),
    Metric("AP", "Average precision of the detector, mean over intersections over union of 0.5 to 0.95."),
    Metric("PSNR_draw", "PSNR of one draw against the clean image [dB], mean over the seeds.", digits=2),
    Metric("PSNR_mean", "PSNR of the mean over the seeds against the clean image [dB].", digits=2),
    Metric("SSIM_draw", "Structural similarity of one draw to the clean image, at most 1."),
    Metric("gradient_energy", "Mean squared gradient of a draw, divided by that of the clean image. Best is 1.", 0),
    Metric("brightness", "Mean level minus that of the clean image [levels]. Best is 0.", 0, 2),
    Metric("spread", "Standard deviation over the seeds, mean over the image [levels].", 0, 2),
    Metric("spread_lit", "The same where the clean image is well exposed [levels].", -1, 2),
    Metric(
        "change_lit", "Mean difference of the mean over the seeds from that of the fewest steps, there [levels].", 0, 2
    ),
    Metric("spread_error_corr", "Rank correlation over the pixels of spread and error of the mean, at most 1."),
    Metric("objects", "Number of labeled objects.", 0, 0),
    Metric("found", "Number of labeled objects that the detector finds, at a score of at least 0.3.", 1, 0),
    Metric("false", "Number of boxes without a labeled object, at a score of at least 0.3.", -1, 0),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
"""Every metric that a panel may report, in the order of the tables; see also :func:`metric_of`."""


def metric_of(name: str) -> Metric:
    """Return a metric by its ``name``: one of :data:`METRICS`, or one of them for a class, as in ``AP50_person``."""
    if name in METRICS:
        return METRICS[name]
    base, _, kind = name.partition("_")
    return replace(METRICS[base], name=name, meaning=f"{METRICS[base].meaning} Class {kind}.")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort ``names`` of metrics in the order of the tables, each once; those of classes follow the metric itself."""
    places = {name: place for place, name in enumerate(METRICS)}

    def place(name: str) -> tuple[int, bool]:
        return places[name if name in places else name.partition("_")[0]], name not in places

    return tuple(sorted(dict.fromkeys(names), key=place))


@dataclass(frozen=True)
class Record:
    """The metrics of one image, or of one object in it.

    :ivar condition: name of the degradation in the degraded panel, else ""
    :ivar row: name of the row
    :ivar stem: name of the image without suffix
    :ivar values: by name of the metric
    :ivar number: number of the object, from 1; 0 for the image
    """

    condition: str
    row: str
    stem: str
    values: dict[str, float]
    number: int = 0

    @property
    def name(self) -> str:
        """Name of the image, or of the object: ``STEM#NUMBER``."""
        return f"{self.stem}#{self.number}" if self.number else self.stem


@dataclass(frozen=True)
class Table:
    """Means with their intervals.

    :ivar rows: by name of row and metric
    :ivar leaders: the best row of each metric that at least two rows have, see :func:`best_row`
    :ivar proves_nothing: metrics on which a control ranks first, alone or tied
    """

    rows: dict[str, dict[str, Interval]]
    leaders: dict[str, str]
    proves_nothing: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that some row has, in the order of the tables."""
        return in_order(name for row in self.rows.values() for name in row)


Differences = dict[str, dict[str, dict[str, Interval]]]
"""Mean paired differences, by the row that is subtracted, row and metric."""


@dataclass(frozen=True)
class Part:
    """The figures of a part of the images, as of those by night.

    :ivar pairs: number of pairs
    :ivar table: the figures
    :ivar against: differences to other rows
    """

    pairs: int
    table: Table
    against: Differences


@dataclass(frozen=True)
class Evaluation:
    """One run of one panel over one set.

    :ivar panel: name of the panel
    :ivar set_name: name of the set
    :ivar pairs: number of pairs
    :ivar rows: the rows in order
    :ivar records: the metrics of every image
    :ivar table: means over all images, in the degraded panel also over :attr:`averaged`
    :ivar conditions: one table per condition of the degraded panel
    :ivar about: what was measured, for readers: names and values
    :ivar notes: sentences printed beside the tables
    :ivar parts: parts of the images by name
    :ivar paired: differences to other rows; None for those of :data:`REFERENCES`
    :ivar averaged: names of the conditions that means are taken over
    """

    panel: str
    set_name: str
    pairs: int
    rows: tuple[Row, ...]
    records: tuple[Record, ...]
    table: Table
    conditions: dict[str, Table] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parts: dict[str, Part] = field(default_factory=dict)
    paired: Differences | None = None
    averaged: tuple[str, ...] = ()

    @property
    def against(self) -> Differences:
        """The mean paired differences of the methods to other rows."""
        if self.paired is not None:
            return self.paired
        methods = [row.name for row in self.rows if not row.is_control]
        records = [record for record in self.records if not record.condition or record.condition in self.averaged]
        return {other: {name: differences(records, name, other) for name in methods} for other in REFERENCES}

    @property
    def figures(self) -> str:
        """What the figures are, in words; the interval is always over images."""
        if self.panel == "detection":
            return "Average precision over all images"
        over = "objects (what is outside them: over the images)" if self.panel == "text" else "images"
        return f"Mean over the {over}"

    @property
    def led_by_control(self) -> str:
        """What it means that a control ranks first, in words before the names of the metrics."""
        if self.panel == "steps":
            return ", so leaving the image untouched is better in these:"
        if self.panel == "detection":
            return ", so for this detector no method replaces it in these:"
        return ", so these prove nothing for this set:"

    @property
    def partly_undefined(self) -> bool:
        """Whether some mean leaves out undefined values."""
        tables = (self.table, *self.conditions.values(), *(part.table for part in self.parts.values()))
        return any(figure.undefined for table in tables for row in table.rows.values() for figure in row.values())


def summarize(records: Iterable[Record], rows: Sequence[Row]) -> Table:
    """Compute mean and bootstrap interval of every row and metric, and rank the rows.

    An image with several records of one row (one per condition) counts once, with their mean: the interval is over
    images, also where the mean is over objects. An undefined value (NaN) is left out of the mean and counted. A mean
    over conditions is undefined if the value under one of them is.

    :param records: the metrics of every image
    :param rows: the rows of the table
    """
    values: dict[str, dict[str, _Values]] = {row.name: {} for row in rows}
    for record in records:
        for metric, value in record.values.items():
            values[record.row].setdefault(metric, {}).setdefault((record.stem, record.number), []).append(value)
    table = {row: {name: _interval(images) for name, images in metrics.items()} for row, metrics in values.items()}
    return rank(table, rows)


def differences(records: Sequence[Record], row: str, reference: str) -> dict[str, Interval]:
    """Compute the mean paired difference of a row to another, with interval, for each common metric.

    :param records: the metrics of every image
    :param row: name of the row
    :param reference: name of the row to subtract
    :returns: by metric, ``row`` minus ``reference``, paired by image, or by object for metrics of objects
    """
    paired: dict[str, _Values] = {}
    subtracted = {
        (record.condition, record.stem, record.number): record.values for record in records if record.row == reference
    }
    for record in records:
        other = subtracted.get((record.condition, record.stem, record.number), {})
        if record.row == row:
            for metric in record.values.keys() & other.keys():
                difference = record.values[metric] - other[metric]
                paired.setdefault(metric, {}).setdefault((record.stem, record.number), []).append(difference)
    return {metric: _difference(paired[metric]) for metric in in_order(paired)}


def rank(table: dict[str, dict[str, Interval]], rows: Sequence[Row]) -> Table:
    """Find the best row of every metric, and the metrics on which a control ranks first.

    :param table: means by name of row and metric
    :param rows: the rows in order; the first of several equal ones leads
    """
    leaders: dict[str, str] = {}
    proves_nothing = []
    for metric in map(metric_of, in_order(name for row in table.values() for name in row)):
        having = [row for row in rows if not math.isnan(_mean_of(table, row, metric.name))]
        if not metric.better or len(having) < 2:  # a single row does not lead
            continue
        leaders[metric.name] = best_row(table, rows, metric.name)
        best = table[leaders[metric.name]][metric.name]
        for row in having:
            figure = table[row.name][metric.name]
            if row.is_control and (figure.mean, figure.undefined) == (best.mean, best.undefined):
                proves_nothing.append(metric.name)
                break
    return Table(table, leaders, tuple(proves_nothing))


def best_row(table: dict[str, dict[str, Interval]], rows: Sequence[Row], metric: str) -> str:
    """Find the row with the best mean of a metric.

    Only the rows that are undefined for the fewest images compete: a mean over some of the images says nothing about
    which row is better on all of them.

    :param table: means by name of row and metric
    :param rows: the rows that compete
    :param metric: name of the metric
    :returns: name of the row, "" if no row has the metric
    """
    means = {row.name: _mean_of(table, row, metric) for row in rows}
    having = [name for name, mean in means.items() if not math.isnan(mean)]
    fewest = min((table[name][metric].undefined for name in having), default=0)
    competing = [name for name in having if table[name][metric].undefined == fewest]
    return max(competing, key=lambda name: means[name] * metric_of(metric).better, default="")


_Values = dict[tuple[str, int], list[float]]
"""Values by image and number of the object, one per condition."""


def _mean_of(table: dict[str, dict[str, Interval]], row: Row, metric: str) -> float:
    return table[row.name][metric].mean if metric in table[row.name] else math.nan


def _difference(values: _Values) -> Interval:
    return replace(_interval(values), p=signed_rank_p([fmean(of_image) for of_image in _by_image(values).values()]))


def _interval(values: _Values) -> Interval:
    return bootstrap_interval(list(_by_image(values).values()))


def _by_image(values: _Values) -> dict[str, list[float]]:
    images: dict[str, list[float]] = {}
    for stem, number in sorted(values):
        of_conditions = values[stem, number]
        images.setdefault(stem, []).append(sum(of_conditions) / len(of_conditions))
    return images
