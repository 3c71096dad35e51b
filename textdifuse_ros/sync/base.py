"""Base class of the pairing policies: counters, offsets, zero stamps, and jumps back in time.

**Jumps back in time** by more than half a second (a looped recording, a clock that was set) reset the pairing: waiting
images are dropped, and so are stragglers of the other stream from before the jump. Smaller steps back are late
messages. If the other stream has not followed after a second, its images are no stragglers: only one camera's clock
was set back.

For each stream, at any time: received = paired + dropped (by reason) + waiting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, other_sensor
from textdifuse_ros.sync.outcome import (
    COUNTERPART_SET_BACK,
    TIME_JUMP,
    ZERO_STAMP,
    Drop,
    Outcome,
    StampedPair,
    StreamCounters,
)

T = TypeVar("T")

JUMP_BACK_NS = 500_000_000
STRAGGLE_NS = 1_000_000_000  # images from before a jump may still arrive this long after it
INTERVALS = 16
RECENT_STAMPS = 64  # per stream, to report the nearest stamp of a dropped image


@dataclass(eq=False)
class Waiting(Generic[T]):
    """An image that waits for its counterpart.

    :ivar at: the stamp, offset added [ns]
    :ivar stamp_ns: the stamp, without offset [ns]
    :ivar arrived_ns: time of arrival, on the clock of ``now_ns`` [ns]
    :ivar item: the image
    """

    at: int
    stamp_ns: int
    arrived_ns: int
    item: T


class Stream(Generic[T]):
    """State of one of the two streams.

    :param name: ``VISIBLE`` or ``INFRARED``
    :ivar queue: waiting images, sorted by ``at``
    :ivar counters: its counters; ``waiting`` is not kept up to date, it is the length of ``queue``
    :ivar last: the largest ``at`` so far, or None
    :ivar intervals: the last intervals between consecutive stamps [ns]
    :ivar recent: the last stamps, offset added [ns]
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: list[Waiting[T]] = []
        self.counters = StreamCounters()
        self.last: int | None = None
        self.intervals: deque[int] = deque(maxlen=INTERVALS)
        self.recent: deque[int] = deque(maxlen=RECENT_STAMPS)

    def reset(self) -> None:
        """Forget all stamps; keep the queue and the counters."""
        self.last = None
        self.intervals.clear()
        self.recent.clear()

    def advance(self, at: int) -> None:
        """Record the stamp ``at``, offset added [ns]."""
        self.recent.append(at)
        if self.last is not None and at > self.last:
            self.intervals.append(at - self.last)
        self.last = at if self.last is None else max(self.last, at)


class Pairing(ABC, Generic[T]):
    """A pairing policy. Not thread-safe.

    :param tolerance_ns: largest difference of the stamps of a pair [ns]; may be changed at any time
    :param offsets_ns: offset added to the stamps of each stream, by its name [ns]; 0 if not given
    :param wait_ns: longest time an image may wait, on the clock of ``now_ns`` [ns]; may be changed at any time
    """

    def __init__(self, tolerance_ns: int, offsets_ns: Mapping[str, int] | None, wait_ns: int) -> None:
        self.tolerance_ns = tolerance_ns
        self.wait_ns = wait_ns
        self._offsets = {stream: (offsets_ns or {}).get(stream, 0) for stream in SENSORS}
        self._streams: dict[str, Stream[T]] = {name: self._new_stream(name) for name in SENSORS}
        self._lagging, self._lagging_since_ns = "", 0

    def _new_stream(self, name: str) -> Stream[T]:
        return Stream(name)

    @abstractmethod
    def _match(self, own: Stream[T], new: Waiting[T], outcome: Outcome[T]) -> None:
        """Add an image with a valid stamp, then pair or drop what can be decided."""

    @abstractmethod
    def _expire(self, now_ns: int, outcome: Outcome[T]) -> None:
        """Pair or drop the images that have waited for ``wait_ns``."""

    def counters(self, stream: str) -> StreamCounters:
        """Return a copy of the counters of ``stream`` (``VISIBLE`` or ``INFRARED``)."""
        found = self._streams[stream]
        own = found.counters
        return StreamCounters(own.received, own.paired, Counter(own.dropped), len(found.queue))

    @property
    def offsets_ns(self) -> dict[str, int]:
        """The offset added to the stamps of each stream [ns]; a copy."""
        return dict(self._offsets)

    def set_offsets(self, offsets_ns: Mapping[str, int], reason: str) -> Outcome[T]:
        """Change the offsets. If they differ, drop all waiting images, since their order no longer holds.

        :param offsets_ns: offset of each stream to change, by its name [ns]
        :param reason: reason of the drops
        :returns: the drops
        """
        offsets = {**self._offsets, **offsets_ns}
        if offsets == self._offsets:
            return Outcome()
        self._offsets = offsets
        return self.reset(reason)

    def add(self, stream: str, stamp_ns: int, item: T, now_ns: int) -> Outcome[T]:
        """Add an image.

        :param stream: ``VISIBLE`` or ``INFRARED``
        :param stamp_ns: its own stamp, without offset [ns]
        :param item: the image
        :param now_ns: the time of arrival on a monotonic clock [ns]
        :returns: the pairs and drops decided by this call, including earlier images
        """
        outcome: Outcome[T] = Outcome()
        own, other = self._streams[stream], self._streams[other_sensor(stream)]
        own.counters.received += 1
        new = Waiting(stamp_ns + self._offsets[stream], stamp_ns, now_ns, item)
        if stamp_ns <= 0:
            self._drop(own, new, ZERO_STAMP, outcome)
            return outcome
        if own.last is not None and new.at < own.last - JUMP_BACK_NS:
            self._jump_back(own, other, now_ns, outcome)
        elif self._lagging == own.name:
            if other.last is not None and new.at > other.last + JUMP_BACK_NS:
                straggles = now_ns - self._lagging_since_ns <= STRAGGLE_NS
                self._drop(own, new, TIME_JUMP if straggles else COUNTERPART_SET_BACK, outcome)
                return outcome
            self._lagging = ""
        own.advance(new.at)
        self._match(own, new, outcome)
        self._expire(now_ns, outcome)
        return outcome

    def refuse(self, stream: str, stamp_ns: int, item: T, reason: str) -> Outcome[T]:
        """Count an image as received and dropped, whatever its stamp.

        :param stream: ``VISIBLE`` or ``INFRARED``
        :param stamp_ns: its own stamp, without offset [ns]
        :param item: the image
        :param reason: reason of the drop
        :returns: the drop
        """
        outcome: Outcome[T] = Outcome()
        own = self._streams[stream]
        own.counters.received += 1
        self._drop(own, Waiting(stamp_ns + self._offsets[stream], stamp_ns, 0, item), reason, outcome)
        return outcome

    def poll(self, now_ns: int) -> Outcome[T]:
        """Pair or drop the images that have waited for ``wait_ns``. Call it regularly: a stream may end.

        :param now_ns: the time on the clock of :meth:`add` [ns]
        :returns: the pairs and drops
        """
        outcome: Outcome[T] = Outcome()
        self._expire(now_ns, outcome)
        return outcome

    def reset(self, reason: str) -> Outcome[T]:
        """Drop all waiting images for ``reason`` and forget the past stamps; keep the counters. Returns the drops."""
        outcome: Outcome[T] = Outcome()
        for stream in self._streams.values():
            self._drop_some(stream, stream.queue, reason, outcome)
            stream.reset()
        self._lagging = ""
        return outcome

    def rewind(self, to_ns: int) -> Outcome[T]:
        """Reset if the stamps are ahead of the cameras' clock, which jumped back to ``to_ns`` [ns].

        Does nothing if the streams have jumped back already, so that the first images of a new lap are kept whether
        they or the clock come first.
        """
        latest = max((stream.last for stream in self._streams.values() if stream.last is not None), default=None)
        ahead = latest is not None and latest > to_ns + JUMP_BACK_NS
        return self.reset(TIME_JUMP) if ahead else Outcome()

    def _jump_back(self, own: Stream[T], other: Stream[T], now_ns: int, outcome: Outcome[T]) -> None:
        """Handle a jump back of stream ``own``; ``other`` is expected to follow, unless it jumped first."""
        self._drop_some(own, own.queue, TIME_JUMP, outcome)
        own.reset()
        if self._lagging == own.name:
            self._lagging = ""
            return
        self._drop_some(other, other.queue, TIME_JUMP, outcome)
        other.reset()
        self._lagging, self._lagging_since_ns = other.name, now_ns

    def _emit(self, visible: Waiting[T], infrared: Waiting[T], outcome: Outcome[T]) -> None:
        """Count a pair and add it to ``outcome``; its images have been removed from the queues."""
        for stream in self._streams.values():
            stream.counters.paired += 1
        outcome.pairs.append(StampedPair(visible.item, infrared.item, infrared.at - visible.at))

    def _drop(self, stream: Stream[T], waiting: Waiting[T], reason: str, outcome: Outcome[T]) -> None:
        stream.counters.dropped[reason] += 1
        sign = 1 if stream.name == VISIBLE else -1
        differences = (sign * (at - waiting.at) for at in self._streams[other_sensor(stream.name)].recent)
        nearest = min(differences, key=abs, default=None)
        behind = 0 if stream.last is None else max(0, stream.last - waiting.at)
        outcome.drops.append(Drop(stream.name, waiting.stamp_ns, waiting.item, reason, nearest, behind))

    def _drop_some(self, stream: Stream[T], some: list[Waiting[T]], reason: str, outcome: Outcome[T]) -> None:
        for waiting in some:
            self._drop(stream, waiting, reason, outcome)
        dropped = {id(waiting) for waiting in some}
        stream.queue[:] = [waiting for waiting in stream.queue if id(waiting) not in dropped]

    @property
    def _visible(self) -> Stream[T]:
        return self._streams[VISIBLE]

    @property
    def _infrared(self) -> Stream[T]:
        return self._streams[INFRARED]
