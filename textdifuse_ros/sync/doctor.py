"""Diagnosis of the stamps of two cameras: rates, gaps, jitter, and the offset and tolerance to pair with.

**Offset.** The histogram of all differences between an infrared and a visible stamp within a second has peaks one
period apart, and the true offset is one of them. The highest peak is taken. If several are equally high, as with two
free-running cameras of equal rate, the one nearest to zero is taken, since the stamps cannot tell them apart; its
neighbors are reported. The median around the peak refines it. If no peak is clear, no offset is better than another.
The result is robust to lost images and outliers.

**Clocks.** If the clocks of the cameras differ by more than a second, no peak is within reach. The median of stamp
minus arrival is a rough estimate of each clock's error; the search starts there.

**Tolerance.** The 99th percentile of the remaining differences of the slower camera plus 25 %, and at most half a
period of the faster one: beyond that an image has two candidate counterparts.
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
"""Largest difference of two stamps that are compared [ns]."""
BIN_NS = 1_000_000
AS_HIGH = 0.9
"""Peaks of at least this fraction of the highest, or within its noise, are considered equally high."""
NOISE = 5.0
"""Standard deviations of a count that are significant."""
REFINEMENTS = 5
GAP = 1.5
"""An interval above this many periods is a gap."""
FEWEST = 3
LEAST_TOLERANCE = 0.001
CLEAR_SHARE = 0.1
"""A peak is clear if it exceeds a uniform distribution by this fraction of the slower stream's images."""
BARS = 21


@dataclass(frozen=True)
class StreamReport:
    """Statistics of the stamps of one stream.

    :ivar count: number of stamps
    :ivar rate_hz: rate from the median interval [Hz]; None if there are too few stamps
    :ivar period_ms: median interval [ms]; None if there are too few stamps
    :ivar jitter_ms: median absolute deviation of the intervals from the median [ms]; None if there are too few stamps
    :ivar gaps: number of intervals above one and a half periods
    :ivar missing: estimated number of images missing in the gaps
    :ivar longest_gap_ms: longest gap [ms], 0 if there is none
    :ivar zero: number of zero stamps, which are excluded from all other values
    :ivar duplicate: number of stamps equal to the previous one
    :ivar backward: number of stamps before the previous one
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
    """Suggested values of the node's parameters of the same names, and their quality.

    :ivar infrared_offset: offset added to infrared stamps [s]
    :ivar tolerance: largest difference of the stamps of a pair [s]
    :ivar paired: fraction of the slower stream's images that are paired with these values, in [0, 1]
    :ivar clear: whether there is a clear peak; if not, the cameras are free-running and any offset is equally good
    :ivar as_good: the next offsets on either side, a period away, that fit about equally well [s]; may be empty
    """

    infrared_offset: float
    tolerance: float
    paired: float
    clear: bool
    as_good: list[float]


@dataclass(frozen=True)
class Histogram:
    """Histogram of the differences infrared minus visible of each image of the slower stream to its nearest image.

    :ivar edges_ms: edges of the bars [ms], one more than there are bars
    :ivar counts: counts of the bars
    """

    edges_ms: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Diagnosis:
    """The result of :func:`diagnose`.

    :ivar visible: statistics of the visible stamps
    :ivar infrared: statistics of the infrared stamps
    :ivar histogram: differences to the nearest image, without offset; None if there are too few stamps
    :ivar difference_ms: percentiles ``p1``, ``p50`` and ``p99`` of these differences [ms]; None likewise
    :ivar suggestion: parameters to pair with; None likewise
    :ivar remarks: problems found, a sentence each
    """

    visible: StreamReport
    infrared: StreamReport
    histogram: Histogram | None
    difference_ms: dict[str, float] | None
    suggestion: Suggestion | None
    remarks: list[str]

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def diagnose(visible: StampSeries, infrared: StampSeries) -> Diagnosis:
    """Diagnose the stamps of both streams.

    :param visible: header stamps and times of arrival of the visible images
    :param infrared: likewise
    """
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
    """Return the positive stamps, sorted, without duplicates."""
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
    """Return roughly how far the infrared clock is ahead [ns]; 0 if less than ``REACH_NS``."""
    errors = []
    for series in (visible, infrared):
        used = series.stamps_ns > 0
        errors.append(float(np.median((series.stamps_ns - series.arrived_ns)[used])))
    ahead = errors[1] - errors[0]
    return round(ahead) if abs(ahead) > REACH_NS else 0


def _mode(left: np.ndarray, right: np.ndarray, start: int) -> tuple[int, bool, list[int]]:
    """Find the most frequent difference right minus left within reach of ``start`` [ns].

    :returns: the difference [ns], whether it is a clear peak, and the next equally frequent ones on either side [ns]
    """
    begins = np.searchsorted(right, left + start - REACH_NS)
    ends = np.searchsorted(right, left + start + REACH_NS, side="right")
    found = [right[begin:end] - stamp for stamp, begin, end in zip(left, begins, ends, strict=True)]
    differences = np.concatenate(found) - start
    if not len(differences):
        return start, False, []
    counts, edges = np.histogram(differences, bins=2 * REACH_NS // BIN_NS, range=(-REACH_NS, REACH_NS))
    # Sum of three bins: a peak on an edge would be half as high as one in the middle of a bin.
    smooth = np.convolve(counts, np.ones(3, int), mode="same")
    centers = (edges[:-1] + edges[1:]) / 2
    most = float(smooth.max())
    uniform = 3 * BIN_NS * len(differences) / (2 * REACH_NS)
    if most <= uniform + max(CLEAR_SHARE * min(len(left), len(right)), NOISE * np.sqrt(uniform)):
        return start, False, []
    high = smooth >= min(AS_HIGH * most, most - NOISE / 2 * np.sqrt(most))
    nearest = int(np.argmin(np.where(high, np.abs(centers), np.inf)))
    # This may be the flank of its peak: take the highest bin of the run of high bins, refined by the median around it.
    begin, end = nearest, nearest
    while begin > 0 and high[begin - 1]:
        begin -= 1
    while end + 1 < len(high) and high[end + 1]:
        end += 1
    peak = float(centers[begin + int(np.argmax(smooth[begin : end + 1]))])
    for _ in range(REFINEMENTS):
        peak = float(np.median(differences[np.abs(differences - peak) <= 2.5 * BIN_NS]))
    apart = 0.5 * min(float(np.median(np.diff(stamps))) for stamps in (left, right))  # nearer ones are the same peak
    sides = (centers[high & (centers < peak - apart)][-1:], centers[high & (centers > peak + apart)][:1])
    return start + round(peak), True, [start + round(float(side[0])) for side in sides if len(side)]


def _nearest(left: np.ndarray, right: np.ndarray, offset: int) -> np.ndarray:
    """Return the smallest difference right - left - offset of each stamp of the slower stream [ns]."""
    flip = len(right) < len(left)
    few, many, sign = (right - offset, left, -1) if flip else (left, right - offset, 1)
    index = np.clip(np.searchsorted(many, few), 1, len(many) - 1) if len(many) > 1 else np.zeros(len(few), int)
    before, after = many[np.maximum(index - 1, 0)] - few, many[index] - few
    return sign * np.where(np.abs(before) < np.abs(after), before, after)


def _tolerance(residual: np.ndarray, reports: Mapping[str, StreamReport]) -> float:
    """Return the tolerance [s] for the differences ``residual`` that remain after the offset [ns]."""
    distances = np.abs(residual) / 1e9
    periods = [report.period_ms / 1e3 for report in reports.values() if report.period_ms]
    half = 0.5 * min(periods) if periods else float("inf")
    plausible = distances[distances <= half] if (distances <= half).any() else distances
    tolerance = min(max(1.25 * float(np.percentile(plausible, 99)), LEAST_TOLERANCE), half)
    return round(float(np.ceil(1e4 * tolerance) / 1e4), 4)


def _histogram(differences: np.ndarray) -> Histogram:
    """Return the histogram between the 1st and the 99th percentile; the outermost bars hold the rest."""
    low, high = np.percentile(differences, (1, 99))
    middle, half = (low + high) / 2, max((high - low) / 2, 0.5) * BARS / (BARS - 2)
    edges = np.linspace(middle - half, middle + half, BARS + 1)
    counts, _ = np.histogram(np.clip(differences, edges[0], edges[-1]), edges)
    return Histogram([round(float(edge), 3) for edge in edges], [int(count) for count in counts])


def _remarks(reports: Mapping[str, StreamReport], suggestion: Suggestion | None) -> list[str]:
    remarks = []
    for name, report in reports.items():
        if report.zero:
            remarks.append(f"{report.zero} {name} images have no stamp and cannot be paired; fix the driver")
        if report.duplicate:
            remarks.append(f"{report.duplicate} {name} stamps repeat the previous one: are images sent twice?")
        if report.backward:
            remarks.append(f"{report.backward} {name} stamps go back: a loop, a clock that was set, or a wrong order")
        if report.missing:
            remarks.append(f"about {report.missing} {name} images are missing in {report.gaps} gaps")
    if suggestion is None:
        return [*remarks, "too few stamped images of both cameras to compare them"]
    if abs(suggestion.infrared_offset) > 10.0:
        remarks.append(
            f"the cameras' clocks differ by about {abs(suggestion.infrared_offset):.1f} s, more than an offset can "
            "correct; set them to the same time"
        )
    elif not suggestion.clear:
        remarks.append("no difference is more frequent: the cameras are free-running, and no offset improves pairing")
    if suggestion.as_good:
        others = " or ".join(f"{offset:.4f}" for offset in suggestion.as_good)
        remarks.append(f"infrared_offset {others} fits as well, a period away: the stamps cannot tell which is true")
    rates = [report.rate_hz for report in reports.values() if report.rate_hz]
    if len(rates) == 2 and max(rates) > 1.2 * min(rates):
        remarks.append(f"the cameras' rates differ ({rates[0]:g} and {rates[1]:g} Hz): the slower one limits the pairs")
    return remarks
