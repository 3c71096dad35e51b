"""Pairing of a whole recording: nearest stamps, as :mod:`.pairing` defines it, with nothing lost on the way.

A node must decide while images still come: what waits too long, comes late, or is one too many is dropped. Here both
streams are there from their beginning to their end: what finds no counterpart has none within the tolerance. What is
left of :class:`.NearestPairing`'s reasons is ``unmatched`` and ``zero_stamp``.

**Time going back** by more than half a second (a recording of a loop, a clock that was set) splits both streams into
stretches that are paired each for itself. One stream jumps first; images of the other that come after it and still
belong to the time before are told by their stamps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, other_sensor
from textdifuse_ros.sync.base import JUMP_BACK_NS
from textdifuse_ros.sync.outcome import UNMATCHED, ZERO_STAMP, Outcome
from textdifuse_ros.sync.pairing import NearestPairing
from textdifuse_ros.sync.stamps import StampSeries

_UNBOUNDED = 2**62

Stretch = dict[str, list[tuple[int, int]]]
"""Of each stream (stamp with offset [ns], index of the image), sorted."""


@dataclass(frozen=True)
class RecordedPair:
    """Two images that belong together, by their places in the recording.

    :ivar visible: index of the image within its topic, from 0; infrared likewise
    :ivar difference_ns: infrared stamp minus visible stamp, offsets added
    """

    visible: int
    infrared: int
    difference_ns: int


@dataclass(frozen=True)
class RecordedPairs:
    """All pairs in the order of their stamps, stretch after stretch; and of each stream what is in none, by reason."""

    pairs: list[RecordedPair]
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: {stream: Counter() for stream in SENSORS})


def pair_recording(
    visible: StampSeries, infrared: StampSeries, tolerance_ns: int, offsets_ns: Mapping[str, int]
) -> RecordedPairs:
    """Pair the images of two topics.

    :param visible: header stamps and log times in the order of the recording; infrared likewise
    :param tolerance_ns: largest difference of the stamps of a pair
    :param offsets_ns: added to the stamps of a stream, by its name; 0 where it is not named
    """
    series = {VISIBLE: visible, INFRARED: infrared}
    found = RecordedPairs([])
    for stream in SENSORS:
        zero = int((series[stream].stamps_ns <= 0).sum())
        if zero:
            found.dropped[stream][ZERO_STAMP] = zero
    for stretch in _stretches(series, offsets_ns):
        pairs = _paired(stretch, tolerance_ns, offsets_ns)
        found.pairs.extend(pairs)
        for stream in SENSORS:
            missed = len(stretch[stream]) - len(pairs)
            if missed:
                found.dropped[stream][UNMATCHED] += missed
    return found


def _stretches(series: Mapping[str, StampSeries], offsets_ns: Mapping[str, int]) -> list[Stretch]:
    """Both streams, cut where time goes back."""
    arrivals = sorted(
        (int(arrived), order, index)
        for order, stream in enumerate(SENSORS)
        for index, arrived in enumerate(series[stream].arrived_ns)
    )
    stretches: list[Stretch] = [{stream: [] for stream in SENSORS}]
    place = dict.fromkeys(SENSORS, 0)
    latest: dict[str, int | None] = dict.fromkeys(SENSORS)
    for _, order, index in arrivals:
        stream = SENSORS[order]
        stamp = int(series[stream].stamps_ns[index])
        if stamp <= 0:
            continue
        at, other = stamp + offsets_ns.get(stream, 0), other_sensor(stream)
        own_latest, other_latest = latest[stream], latest[other]
        jumped = own_latest is not None and at < own_latest - JUMP_BACK_NS
        behind = place[stream] < place[other]
        if jumped and not behind:
            stretches.append({name: [] for name in SENSORS})
        # A stream that is behind has followed when it jumps, or when its stamps are such as the other's are now: it may
        # have begun with the jump, or never have jumped at all.
        if jumped or (behind and other_latest is not None and at <= other_latest + JUMP_BACK_NS):
            place[stream] = len(stretches) - 1
            latest[stream] = None
        stretches[place[stream]][stream].append((at, index))
        before = latest[stream]
        latest[stream] = at if before is None else max(at, before)
    for stretch in stretches:
        for stream in SENSORS:
            stretch[stream].sort()
    return stretches


def _paired(stretch: Stretch, tolerance_ns: int, offsets_ns: Mapping[str, int]) -> list[RecordedPair]:
    """The pairs of a stretch.

    The stream that is behind is fed next: then the other one's last stamp always is ahead, every image is settled
    with the next ones at the latest, and the queues stay as short as the tolerance is.
    """
    pairing: NearestPairing[int] = NearestPairing(
        tolerance_ns, offsets_ns, queue=_UNBOUNDED, wait_ns=_UNBOUNDED, anticipate=False
    )

    def add(stream: str, at: int, index: int) -> None:
        outcomes.append(pairing.add(stream, at - offsets_ns.get(stream, 0), index, 0))

    outcomes: list[Outcome[int]] = []
    fed = dict.fromkeys(SENSORS, 0)
    while all(fed[stream] < len(stretch[stream]) for stream in SENSORS):
        behind = min(SENSORS, key=lambda stream: stretch[stream][fed[stream] - 1][0] if fed[stream] else -_UNBOUNDED)
        at, index = stretch[behind][fed[behind]]
        fed[behind] += 1
        add(behind, at, index)
    for stream in SENSORS:
        # The other one has ended: what is out of its last image's reach has no counterpart.
        others = stretch[other_sensor(stream)]
        for at, index in stretch[stream][fed[stream] :] if others else []:
            if at > others[-1][0] + tolerance_ns:
                break
            add(stream, at, index)
    pairing.wait_ns = 0
    outcomes.append(pairing.poll(0))
    return [
        RecordedPair(pair.visible, pair.infrared, pair.difference_ns) for outcome in outcomes for pair in outcome.pairs
    ]
