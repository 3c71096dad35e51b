"""Pairing of a whole recording by nearest stamps, as :mod:`.pairing` defines it.

A node must decide while images still arrive, and drops those that wait too long, come late, or exceed the queue. A
recording is complete: an image without a counterpart has none within the tolerance. The only reasons of drops are
``unmatched`` and ``zero_stamp``.

**Jumps back in time** by more than half a second (a recorded loop, a clock that was set) split both streams into
sections that are paired separately. One stream jumps first; later images of the other that still belong to the section
before are recognized by their stamps.
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

Section = dict[str, list[tuple[int, int]]]
"""(stamp with offset [ns], index of the image) for each stream, sorted."""


@dataclass(frozen=True)
class RecordedPair:
    """Two images that belong together, by their indices in the recording.

    :ivar visible: index of the visible image within its topic, from 0
    :ivar infrared: likewise
    :ivar difference_ns: infrared stamp minus visible stamp, offsets added [ns]
    """

    visible: int
    infrared: int
    difference_ns: int


@dataclass(frozen=True)
class RecordedPairs:
    """The result of :func:`pair_recording`.

    :ivar pairs: all pairs, section by section, each in the order of its stamps
    :ivar dropped: number of unpaired images by reason, for each stream
    """

    pairs: list[RecordedPair]
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: {stream: Counter() for stream in SENSORS})


def pair_recording(
    visible: StampSeries, infrared: StampSeries, tolerance_ns: int, offsets_ns: Mapping[str, int]
) -> RecordedPairs:
    """Pair the images of two topics.

    :param visible: header stamps and log times in the order of the recording
    :param infrared: likewise
    :param tolerance_ns: largest difference of the stamps of a pair [ns]
    :param offsets_ns: offset added to the stamps of each stream, by its name [ns]; 0 if not given
    """
    series = {VISIBLE: visible, INFRARED: infrared}
    found = RecordedPairs([])
    for stream in SENSORS:
        zero = int((series[stream].stamps_ns <= 0).sum())
        if zero:
            found.dropped[stream][ZERO_STAMP] = zero
    for section in _sections(series, offsets_ns):
        pairs = _pair_section(section, tolerance_ns, offsets_ns)
        found.pairs.extend(pairs)
        for stream in SENSORS:
            missed = len(section[stream]) - len(pairs)
            if missed:
                found.dropped[stream][UNMATCHED] += missed
    return found


def _sections(series: Mapping[str, StampSeries], offsets_ns: Mapping[str, int]) -> list[Section]:
    """Split both streams where time jumps back."""
    arrivals = sorted(
        (int(arrived), order, index)
        for order, stream in enumerate(SENSORS)
        for index, arrived in enumerate(series[stream].arrived_ns)
    )
    sections: list[Section] = [{stream: [] for stream in SENSORS}]
    current = dict.fromkeys(SENSORS, 0)
    latest: dict[str, int | None] = dict.fromkeys(SENSORS)
    for _, order, index in arrivals:
        stream = SENSORS[order]
        stamp = int(series[stream].stamps_ns[index])
        if stamp <= 0:
            continue
        at, other = stamp + offsets_ns.get(stream, 0), other_sensor(stream)
        own_latest, other_latest = latest[stream], latest[other]
        jumped = own_latest is not None and at < own_latest - JUMP_BACK_NS
        behind = current[stream] < current[other]
        if jumped and not behind:
            sections.append({name: [] for name in SENSORS})
        # A stream that is behind has followed if it jumps, or if its stamps match the other's current ones: it may
        # start after the jump, or never have jumped at all.
        if jumped or (behind and other_latest is not None and at <= other_latest + JUMP_BACK_NS):
            current[stream] = len(sections) - 1
            latest[stream] = None
        sections[current[stream]][stream].append((at, index))
        before = latest[stream]
        latest[stream] = at if before is None else max(at, before)
    for section in sections:
        for stream in SENSORS:
            section[stream].sort()
    return sections


def _pair_section(section: Section, tolerance_ns: int, offsets_ns: Mapping[str, int]) -> list[RecordedPair]:
    """Return the pairs of a section.

    The stream that is behind is always fed next. The other's last stamp is then ahead, every image is decided soon, and
    the queues are no longer than the tolerance requires.
    """
    pairing: NearestPairing[int] = NearestPairing(
        tolerance_ns, offsets_ns, queue=_UNBOUNDED, wait_ns=_UNBOUNDED, anticipate=False
    )

    def add(stream: str, at: int, index: int) -> None:
        outcomes.append(pairing.add(stream, at - offsets_ns.get(stream, 0), index, 0))

    outcomes: list[Outcome[int]] = []
    fed = dict.fromkeys(SENSORS, 0)
    while all(fed[stream] < len(section[stream]) for stream in SENSORS):
        behind = min(SENSORS, key=lambda stream: section[stream][fed[stream] - 1][0] if fed[stream] else -_UNBOUNDED)
        at, index = section[behind][fed[behind]]
        fed[behind] += 1
        add(behind, at, index)
    for stream in SENSORS:
        # The other stream has ended: images out of reach of its last one have no counterpart.
        others = section[other_sensor(stream)]
        for at, index in section[stream][fed[stream] :] if others else []:
            if at > others[-1][0] + tolerance_ns:
                break
            add(stream, at, index)
    pairing.wait_ns = 0
    outcomes.append(pairing.poll(0))
    return [
        RecordedPair(pair.visible, pair.infrared, pair.difference_ns) for outcome in outcomes for pair in outcome.pairs
    ]
