"""What every pairing policy shares: the counters, the offsets, refused stamps, and time that goes back.

**Time going back** by more than half a second (a recording that loops, a clock that was set) is a reset: what waits
is dropped, and stragglers of the other stream from before the jump are too. Smaller steps back are late messages. What
comes from there for longer than a second is no straggler: one camera's clock was set back, the other's was not.

At every moment and for each stream: received = paired + dropped (by reason) + waiting.
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
STRAGGLE_NS = 1_000_000_000  # how long after a jump images from before it still come
INTERVALS = 16
REMEMBERED = 64  # stamps of each stream, to say how near the nearest one was


@dataclass(eq=False)
class Waiting(Generic[T]):
    """An image without a counterpart so far.

    :ivar at: the stamp, offset added [ns]
    """

    at: int
    stamp_ns: int
    arrived_ns: int
    item: T


class Stream(Generic[T]):
    """One of the two streams.

    :ivar queue: what waits, in the order of ``at``
    :ivar last: the largest ``at`` so far, or None
    :ivar intervals: the last distances between neighboring stamps [ns]
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: list[Waiting[T]] = []
        self.counters = StreamCounters()
        self.last: int | None = None
        self.intervals: deque[int] = deque(maxlen=INTERVALS)
        self.remembered: deque[int] = deque(maxlen=REMEMBERED)

    def forget(self) -> None:
        """As if nothing had come yet; the counters stay."""
        self.last = None
        self.intervals.clear()
        self.remembered.clear()

    def advance(self, at: int) -> None:
        """Note a stamp."""
        self.remembered.append(at)
        if self.last is not None and at > self.last:
            self.intervals.append(at - self.last)
        self.last = at if self.last is None else max(self.last, at)


class Pairing(ABC, Generic[T]):
    """A policy by which images are paired; for one thread.

    :param tolerance_ns: largest difference of the stamps of a pair; may be changed at any time
    :param offsets_ns: added to the stamps of a stream, by its name; 0 where it is not named
    :param wait_ns: longest time an image may wait, on the clock of ``now_ns``; may be changed at any time
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
        """Take in an image with a good stamp, and settle what can be settled."""

    @abstractmethod
    def _expire(self, now_ns: int, outcome: Outcome[T]) -> None:
        """Settle what has waited for longer than ``wait_ns``."""

    def counters(self, stream: str) -> StreamCounters:
        """The counters of ``VISIBLE`` or ``INFRARED``; a copy."""
        found = self._streams[stream]
        own = found.counters
        return StreamCounters(own.received, own.paired, Counter(own.dropped), len(found.queue))

    @property
    def offsets_ns(self) -> dict[str, int]:
        """Added to the stamps of each stream; a copy."""
        return dict(self._offsets)

    def set_offsets(self, offsets_ns: Mapping[str, int], reason: str) -> Outcome[T]:
        """Change the offsets; where they differ, what waits is dropped, since its order no longer holds."""
        offsets = {**self._offsets, **offsets_ns}
        if offsets == self._offsets:
            return Outcome()
        self._offsets = offsets
        return self.reset(reason)

    def add(self, stream: str, stamp_ns: int, item: T, now_ns: int) -> Outcome[T]:
        """Take an image in.

        :param stream: ``VISIBLE`` or ``INFRARED``
        :param stamp_ns: its own stamp, without offset
        :param now_ns: the time of arrival on a clock that never goes back
        :returns: what is settled now, of this image or of earlier ones
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
        """Count an image as received and dropped without a look at its stamp."""
        outcome: Outcome[T] = Outcome()
        own = self._streams[stream]
        own.counters.received += 1
        self._drop(own, Waiting(stamp_ns + self._offsets[stream], stamp_ns, 0, item), reason, outcome)
        return outcome

    def poll(self, now_ns: int) -> Outcome[T]:
        """Settle what has waited for longer than ``wait_ns``; to be called now and then where a stream may end."""
        outcome: Outcome[T] = Outcome()
        self._expire(now_ns, outcome)
        return outcome

    def reset(self, reason: str) -> Outcome[T]:
        """Drop all that waits and forget the past; the counters stay."""
        outcome: Outcome[T] = Outcome()
        for stream in self._streams.values():
            self._drop_some(stream, stream.queue, reason, outcome)
            stream.forget()
        self._lagging = ""
        return outcome

    def rewind(self, to_ns: int) -> Outcome[T]:
        """Reset where stamps are ahead of the cameras' clock, which went back to ``to_ns``.

        Nothing happens where the streams have gone back already, so that the first images of a new lap are kept
        whichever comes first, they or the clock.
        """
        latest = max((stream.last for stream in self._streams.values() if stream.last is not None), default=None)
        ahead = latest is not None and latest > to_ns + JUMP_BACK_NS
        return self.reset(TIME_JUMP) if ahead else Outcome()

    def _jump_back(self, own: Stream[T], other: Stream[T], now_ns: int, outcome: Outcome[T]) -> None:
        """Stream ``own`` has jumped back; ``other`` is expected to follow, unless this was the following."""
        self._drop_some(own, own.queue, TIME_JUMP, outcome)
        own.forget()
        if self._lagging == own.name:
            self._lagging = ""
            return
        self._drop_some(other, other.queue, TIME_JUMP, outcome)
        other.forget()
        self._lagging, self._lagging_since_ns = other.name, now_ns

    def _emit(self, visible: Waiting[T], infrared: Waiting[T], outcome: Outcome[T]) -> None:
        """Count and hand out a pair; its halves are no longer in the queues."""
        for stream in self._streams.values():
            stream.counters.paired += 1
        outcome.pairs.append(StampedPair(visible.item, infrared.item, infrared.at - visible.at))

    def _drop(self, stream: Stream[T], waiting: Waiting[T], reason: str, outcome: Outcome[T]) -> None:
        stream.counters.dropped[reason] += 1
        sign = 1 if stream.name == VISIBLE else -1
        differences = (sign * (at - waiting.at) for at in self._streams[other_sensor(stream.name)].remembered)
        nearest = min(differences, key=abs, default=None)
        behind = 0 if stream.last is None else max(0, stream.last - waiting.at)
        outcome.drops.append(Drop(stream.name, waiting.stamp_ns, waiting.item, reason, nearest, behind))

    def _drop_some(self, stream: Stream[T], some: list[Waiting[T]], reason: str, outcome: Outcome[T]) -> None:
        for waiting in some:
            self._drop(stream, waiting, reason, outcome)
        gone = {id(waiting) for waiting in some}
        stream.queue[:] = [waiting for waiting in stream.queue if id(waiting) not in gone]

    @property
    def _visible(self) -> Stream[T]:
        return self._streams[VISIBLE]

    @property
    def _infrared(self) -> Stream[T]:
        return self._streams[INFRARED]
