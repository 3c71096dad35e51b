"""What an evaluation measured, and what may be concluded from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from textdifuse_ros.evaluate.methods import Row
from textdifuse_ros.evaluate.statistics import Interval, bootstrap_interval

EQUAL_PSNR = 100.0
"""What two equal images count as [dB]: infinity would be the mean of whatever it enters."""

UNDEFINED = (
    "(3 of 4) behind a figure: it is defined for so many only. Such a row does not lead one that is defined for more."
)
"""Stands beside tables in which there are such figures."""

REFERENCES = ("max", "max+noise15")
"""The controls with which every method is compared image by image."""


@dataclass(frozen=True)
class Metric:
    """How a figure is shown and read.

    :ivar meaning: one sentence with the unit
    :ivar better: 1 where more is better, -1 where less is, 0 where neither
    :ivar digits: behind the point, in tables
    """

    name: str
    meaning: str
    better: int = 1
    digits: int = 3


_METRICS = (
    Metric("EN", "Entropy of the fused grey image [bit]. Noise raises it.", digits=2),
    Metric("AG", "Average gradient [levels a pixel], 0 to 255. Noise and halos raise it.", digits=2),
    Metric("SD", "Standard deviation of the fused grey image [levels]. Clipping and noise raise it.", digits=2),
    Metric("SCD", "Sum of the correlations of differences, at most 2. A plain sum of the sources comes near it."),
    Metric("VIF", "Visual information fidelity (pixel domain), visible plus infrared. A copy of one source gets 1."),
    Metric("VIF_visible", "The part of VIF that compares with the clean visible image."),
    Metric("VIF_infrared", "The part of VIF that compares with the clean infrared image."),
    Metric("VIF_min", "The lesser of the two parts, image by image. A copy of one source gains nothing."),
    Metric("Qabf", "Edges carried over from either source (Xydeas and Petrovic), 0 to 1."),
    Metric("SSIM", "Structural similarity to the clean sources, mean of both, at most 1."),
    Metric(
        "PSNR_consistency",
        "PSNR of the fusion of the degraded pair against the same method's fusion of the clean one [dB]; equal "
        "images count as 100. A method that ignores its input gains by it.",
        digits=2,
    ),
    Metric("dE00", "Chroma error, CIEDE2000 against the clean visible image with its luma. Less is better.", -1, 2),
    Metric("flicker", "Mean change [levels] from frame to frame along the scene's motion. Less is better.", -1, 2),
    Metric("contrast", "Contrast of the objects [levels]: luma inside against a ring of 10 px around.", digits=2),
    Metric("contrast_plain", "The same in the image made without the text.", 0, 2),
    Metric("gain", "Contrast of the objects with the text over that without, minus 1."),
    Metric("changed_outside", "Share of the pixels outside the objects that the text changed. Must be 0.", -1, 6),
    Metric("largest_outside", "Largest change outside the objects [levels]. Must be 0.", -1, 0),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
"""Every figure that a panel may report, in the order of the tables."""


@dataclass(frozen=True)
class Record:
    """The figures of one image, or of one object in it.

    :ivar condition: of the degraded panel, else ""
    :ivar stem: the image's name
    :ivar number: of the object, from 1; 0 for the image
    """

    condition: str
    row: str
    stem: str
    values: dict[str, float]
    number: int = 0

    @property
    def name(self) -> str:
        """Of the image, or of the object: ``STEM#NUMBER``."""
        return f"{self.stem}#{self.number}" if self.number else self.stem


@dataclass(frozen=True)
class Table:
    """Means with their intervals.

    :ivar rows: by name of row and metric
    :ivar leaders: the best row of each metric that two or more rows have, as :func:`first` finds it
    :ivar proves_nothing: metrics that a control leads, alone or together with others
    """

    rows: dict[str, dict[str, Interval]]
    leaders: dict[str, str]
    proves_nothing: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that some row has, in the order of the tables."""
        return tuple(name for name in METRICS if any(name in row for row in self.rows.values()))


@dataclass(frozen=True)
class Evaluation:
    """One run of one panel over one set.

    :ivar table: over all images; in the degraded panel over all conditions too
    :ivar conditions: a table for each condition of the degraded panel
    :ivar about: what was measured with what, for people: name to text
    :ivar notes: sentences that belong beside the tables
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

    @property
    def mean_over(self) -> str:
        """What a mean is taken over, in words; its interval is over images always."""
        return "objects (of what is outside them: over the images)" if self.panel == "text" else "images"

    @property
    def partly_undefined(self) -> bool:
        """Whether some figure is over fewer images than there are."""
        tables = (self.table, *self.conditions.values())
        return any(figure.undefined for table in tables for row in table.rows.values() for figure in row.values())


def summarise(records: Iterable[Record], rows: Sequence[Row]) -> Table:
    """Mean and bootstrap interval of every row and metric.

    An image that has several records of one row (one for each condition) counts once, with their mean: the interval
    is over images. So it is where the mean is over objects. A value that is not defined (NaN) leaves the mean and is
    counted in it; a mean over conditions is not defined where one of them is not.
    """
    values: dict[str, dict[str, _Values]] = {row.name: {} for row in rows}
    for record in records:
        for metric, value in record.values.items():
            values[record.row].setdefault(metric, {}).setdefault((record.stem, record.number), []).append(value)
    table = {row: {metric: _interval(found) for metric, found in metrics.items()} for row, metrics in values.items()}
    return rank(table, rows)


def differences(records: Sequence[Record], row: str, reference: str) -> dict[str, Interval]:
    """How far a row is ahead of another, image by image: mean difference and interval of each common metric.

    :returns: by metric, the row's figure minus the reference's; over objects where the metric is of objects
    """
    apart: dict[str, _Values] = {}
    known = {
        (record.condition, record.stem, record.number): record.values for record in records if record.row == reference
    }
    for record in records:
        other = known.get((record.condition, record.stem, record.number), {})
        if record.row == row:
            for metric in record.values.keys() & other.keys():
                difference = record.values[metric] - other[metric]
                apart.setdefault(metric, {}).setdefault((record.stem, record.number), []).append(difference)
    return {metric: _interval(apart[metric]) for metric in METRICS if metric in apart}


def rank(table: dict[str, dict[str, Interval]], rows: Sequence[Row]) -> Table:
    """Find the leader of every metric, and which of them a control leads."""
    leaders: dict[str, str] = {}
    nothing = []
    for metric in METRICS.values():
        having = [row for row in rows if not math.isnan(_mean_of(table, row, metric.name))]
        if not metric.better or len(having) < 2:  # nobody leads alone
            continue
        leaders[metric.name] = first(table, rows, metric.name)
        best = table[leaders[metric.name]][metric.name]
        for row in having:
            figure = table[row.name][metric.name]
            if row.is_control and (figure.mean, figure.undefined) == (best.mean, best.undefined):
                nothing.append(metric.name)
                break
    return Table(table, leaders, tuple(nothing))


def first(table: dict[str, dict[str, Interval]], rows: Sequence[Row], metric: str) -> str:
    """The name of the row that is best in a metric; "" where no row has it.

    Only rows compete that are undefined for the fewest images: a mean over some of the images says nothing about
    who is better on all of them.
    """
    means = {row.name: _mean_of(table, row, metric) for row in rows}
    having = [name for name, mean in means.items() if not math.isnan(mean)]
    fewest = min((table[name][metric].undefined for name in having), default=0)
    competing = [name for name in having if table[name][metric].undefined == fewest]
    return max(competing, key=lambda name: means[name] * METRICS[metric].better, default="")


_Values = dict[tuple[str, int], list[float]]
"""Figures by image and number of the object; several where there are conditions."""


def _mean_of(table: dict[str, dict[str, Interval]], row: Row, metric: str) -> float:
    return table[row.name][metric].mean if metric in table[row.name] else math.nan


def _interval(values: _Values) -> Interval:
    images: dict[str, list[float]] = {}
    for stem, number in sorted(values):
        found = values[stem, number]
        images.setdefault(stem, []).append(sum(found) / len(found))
    return bootstrap_interval(list(images.values()))
