"""What the stamps of two cameras say about how to pair them: rates, gaps, jitter, the offset and the tolerance.

**Offset.** All differences between an infrared and a visible stamp within a second (of the cameras' clocks, see below)
have peaks one period apart, the true one among them. The highest peak of their histogram is the mode; where several are
as high, as with two free-running cameras of equal rate, the one nearest to zero is taken, since nothing in the stamps
tells them apart; its neighbors are told of. Its median makes it exact. Where none stands out, there is nothing to gain
by any. Lost images and outliers move none of this.

**Clocks.** Where the clocks of the cameras differ by more than a second, no peak would lie within reach. The median of
stamp less arrival tells each clock's error roughly, and the search begins there.

**Tolerance.** What 99 of 100 images of the slower camera need after the offset, with a quarter on top, and at most
half a period of the faster one: beyond that an image has two counterparts to choose from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from textdifuse_ros.sensors import INFRARED, VISIBLE
from textdifuse_ros.sync.recorded import pair_recording
from textdifuse_ros.sync.stamps import StampSeries

REACH_NS = 1_000_000_000
"""How far apart two stamps may be to be compared."""
BIN_NS = 1_000_000
AS_HIGH = 0.9
"""Peaks of at least this share of the highest count as equally high, as do those within its noise."""
NOISE = 5.0
"""Standard deviations of a count that are not taken for chance."""
REFINEMENTS = 5
GAP = 1.5
"""An interval above this many periods is a gap."""
FEWEST = 3
LEAST_TOLERANCE = 0.001
CLEAR_SHARE = 0.1
"""A peak stands out when it holds this share of the slower stream's images above what an even spread puts there."""
BARS = 21


@dataclass(frozen=True)
class StreamReport:
    """One stream; times in milliseconds.

    :ivar count: stamps in all
    :ivar rate_hz: by the median interval; None where there are too few stamps
    :ivar jitter_ms: median distance of an interval from the median interval
    :ivar gaps: intervals above one and a half periods, with about ``missing`` images in them
    :ivar longest_gap_ms: the longest of them, 0 where there are none
    :ivar zero: stamps of zero; they are left out of all else
    :ivar duplicate: stamps equal to the one before
    :ivar backward: stamps before the one before
    """

    count: int
    rate_hz: float | None
    period_ms: float | None
    jitter_ms: float | None
    gaps: int
    missing: int
    longest_gap_ms: float
    zero: int
    duplicate: int
    backward: int


@dataclass(frozen=True)
class Suggestion:
    """Values for the parameters of the same names, and how good they are.

    :ivar infrared_offset: seconds
    :ivar tolerance: seconds
    :ivar paired: share of the slower stream's images that have a counterpart of their own with these values
    :ivar clear: whether one peak stands out; else the cameras run freely, and the offset is as good as any
    :ivar as_good: the next offsets on either side that fit about as well, a period away [s]; none where jitter tells
    """

    infrared_offset: float
    tolerance: float
    paired: float
    clear: bool
    as_good: list[float]


@dataclass(frozen=True)
class Histogram:
    """Differences infrared minus visible of each image of the slower stream to its nearest counterpart.

    :ivar edges_ms: of the bars, one more than there are bars
    :ivar counts: of the bars
    """

    edges_ms: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Diagnosis:
    """All that :func:`diagnose` found.

    :ivar difference_ms: quantiles ``p1 p50 p99`` of the differences in the histogram; None where there are none
    :ivar remarks: what to look at, in words
    """

    visible: StreamReport
    infrared: StreamReport
    histogram: Histogram | None
    difference_ms: dict[str, float] | None
    suggestion: Suggestion | None
    remarks: list[str]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def diagnose(visible: StampSeries, infrared: StampSeries) -> Diagnosis:
    """Judge the stamps of both streams."""
    reports = {VISIBLE: _report(visible), INFRARED: _report(infrared)}
    left, right = _good(visible), _good(infrared)
    histogram = quantiles = suggestion = None
    if min(len(left), len(right)) >= FEWEST:
        start = _clock_difference(visible, infrared)
        offset, clear, as_good = _mode(left, right, start)
        residual = _nearest(left, right, offset)
        tolerance = _tolerance(residual, reports)
        pairs = pair_recording(visible, infrared, round(1e9 * tolerance), {INFRARED: -offset}).pairs
        paired = min(len(pairs) / min(len(left), len(right)), 1.0)
        offsets = [round(-other / 1e9, 6) for other in as_good]
        suggestion = Suggestion(round(-offset / 1e9, 6) + 0.0, tolerance, round(paired, 4), clear, offsets)
        differences = (residual + offset) / 1e6
        histogram = _histogram(differences)
        low, middle, high = np.percentile(differences, (1, 50, 99))
        quantiles = {"p1": round(low, 3), "p50": round(middle, 3), "p99": round(high, 3)}
    remarks = _remarks(reports, suggestion)
    return Diagnosis(reports[VISIBLE], reports[INFRARED], histogram, quantiles, suggestion, remarks)


def _good(series: StampSeries) -> np.ndarray:
    """Stamps that are not zero, each once, rising."""
    return np.unique(series.stamps_ns[series.stamps_ns > 0])


def _report(series: StampSeries) -> StreamReport:
    stamps = series.stamps_ns[series.stamps_ns > 0]
    steps = np.diff(stamps)
    forward = steps[steps > 0]
    zero = len(series.stamps_ns) - len(stamps)
    duplicate, backward = int((steps == 0).sum()), int((steps < 0).sum())
    if len(forward) < FEWEST - 1:
        return StreamReport(len(series.stamps_ns), None, None, None, 0, 0, 0.0, zero, duplicate, backward)
    period = float(np.median(forward))
    gaps = forward[forward > GAP * period]
    return StreamReport(
        count=len(series.stamps_ns),
        rate_hz=round(1e9 / period, 3),
        period_ms=round(period / 1e6, 3),
        jitter_ms=round(float(np.median(np.abs(forward - period))) / 1e6, 3),
        gaps=len(gaps),
        missing=int(np.round(gaps / period - 1).sum()),
        longest_gap_ms=round(float(gaps.max(initial=0)) / 1e6, 3),
        zero=zero,
        duplicate=duplicate,
        backward=backward,
    )


def _clock_difference(visible: StampSeries, infrared: StampSeries) -> int:
    """By how much the infrared clock is ahead, roughly [ns]; 0 where it is less than can be told."""
    errors = []
    for series in (visible, infrared):
        used = series.stamps_ns > 0
        errors.append(float(np.median((series.stamps_ns - series.arrived_ns)[used])))
    ahead = errors[1] - errors[0]
    return round(ahead) if abs(ahead) > REACH_NS else 0


def _mode(left: np.ndarray, right: np.ndarray, start: int) -> tuple[int, bool, list[int]]:
    """The most frequent difference right minus left within reach of ``start`` [ns], and whether it stands out.

    With it the nearest others, on either side, that are as frequent.
    """
    begins = np.searchsorted(right, left + start - REACH_NS)
    ends = np.searchsorted(right, left + start + REACH_NS, side="right")
    found = [right[begin:end] - stamp for stamp, begin, end in zip(left, begins, ends, strict=True)]
    differences = np.concatenate(found) - start
    if not len(differences):
        return start, False, []
    counts, edges = np.histogram(differences, bins=2 * REACH_NS // BIN_NS, range=(-REACH_NS, REACH_NS))
    # Three bins together, or a peak on an edge would be half as high as one in the middle of a bin.
    smooth = np.convolve(counts, np.ones(3, int), mode="same")
    centers = (edges[:-1] + edges[1:]) / 2
    most = float(smooth.max())
    even = 3 * BIN_NS * len(differences) / (2 * REACH_NS)
    if most <= even + max(CLEAR_SHARE * min(len(left), len(right)), NOISE * np.sqrt(even)):
        return start, False, []
    high = smooth >= min(AS_HIGH * most, most - NOISE / 2 * np.sqrt(most))
    nearest = int(np.argmin(np.where(high, np.abs(centers), np.inf)))
    # That may be the flank of its peak: the highest bin of the run of high ones, made exact by the median around it.
    begin, end = nearest, nearest
    while begin > 0 and high[begin - 1]:
        begin -= 1
    while end + 1 < len(high) and high[end + 1]:
        end += 1
    peak = float(centers[begin + int(np.argmax(smooth[begin : end + 1]))])
    for _ in range(REFINEMENTS):
        peak = float(np.median(differences[np.abs(differences - peak) <= 2.5 * BIN_NS]))
    apart = 0.5 * min(float(np.median(np.diff(stamps))) for stamps in (left, right))  # else it is the same peak
    sides = (centers[high & (centers < peak - apart)][-1:], centers[high & (centers > peak + apart)][:1])
    return start + round(peak), True, [start + round(float(side[0])) for side in sides if len(side)]


def _nearest(left: np.ndarray, right: np.ndarray, offset: int) -> np.ndarray:
    """For each stamp of the slower stream the smallest of all differences right - left - offset."""
    flip = len(right) < len(left)
    few, many, sign = (right - offset, left, -1) if flip else (left, right - offset, 1)
    index = np.clip(np.searchsorted(many, few), 1, len(many) - 1) if len(many) > 1 else np.zeros(len(few), int)
    before, after = many[np.maximum(index - 1, 0)] - few, many[index] - few
    return sign * np.where(np.abs(before) < np.abs(after), before, after)


def _tolerance(residual: np.ndarray, reports: Mapping[str, StreamReport]) -> float:
    """The tolerance [s] that the differences left after the offset [ns] ask for."""
    distances = np.abs(residual) / 1e9
    periods = [report.period_ms / 1e3 for report in reports.values() if report.period_ms]
    half = 0.5 * min(periods) if periods else float("inf")
    plausible = distances[distances <= half] if (distances <= half).any() else distances
    tolerance = min(max(1.25 * float(np.percentile(plausible, 99)), LEAST_TOLERANCE), half)
    return round(float(np.ceil(1e4 * tolerance) / 1e4), 4)


def _histogram(differences: np.ndarray) -> Histogram:
    """Of what lies between the 1st and the 99th percentile, the rest in the outermost bars."""
    low, high = np.percentile(differences, (1, 99))
    middle, half = (low + high) / 2, max((high - low) / 2, 0.5) * BARS / (BARS - 2)
    edges = np.linspace(middle - half, middle + half, BARS + 1)
    counts, _ = np.histogram(np.clip(differences, edges[0], edges[-1]), edges)
    return Histogram([round(float(edge), 3) for edge in edges], [int(count) for count in counts])


def _remarks(reports: Mapping[str, StreamReport], suggestion: Suggestion | None) -> list[str]:
    remarks = []
    for name, report in reports.items():
        if report.zero:
            remarks.append(f"{report.zero} {name} images have no stamp and cannot be paired; let the driver stamp")
        if report.duplicate:
            remarks.append(f"{report.duplicate} {name} stamps repeat the one before: the same image is sent twice?")
        if report.backward:
            remarks.append(f"{report.backward} {name} stamps go back: a loop, a clock that was set, or a wrong order")
        if report.missing:
            remarks.append(f"about {report.missing} {name} images are missing in {report.gaps} gaps")
    if suggestion is None:
        return [*remarks, "too few stamped images of both cameras to compare them"]
    if abs(suggestion.infrared_offset) > 10.0:
        remarks.append(
            f"the cameras' clocks differ by about {abs(suggestion.infrared_offset):.1f} s, more than an offset may "
            "make up for; set them to the same time"
        )
    elif not suggestion.clear:
        remarks.append("no difference stands out: the cameras run freely, and no offset makes them meet better")
    if suggestion.as_good:
        others = " or ".join(f"{offset:.4f}" for offset in suggestion.as_good)
        remarks.append(f"infrared_offset {others} fits as well, a period away: which is true the stamps do not tell")
    rates = [report.rate_hz for report in reports.values() if report.rate_hz]
    if len(rates) == 2 and max(rates) > 1.2 * min(rates):
        remarks.append(f"the cameras' rates differ ({rates[0]:g} and {rates[1]:g} Hz): at most the slower one's pair")
    return remarks
