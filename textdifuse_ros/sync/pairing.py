"""Nearest-stamp pairing of a visible and an infrared stream.

**Which pairs.** Taken over the whole of both streams: of all pairs within the tolerance, the closest is taken first,
then the next closest that crosses none taken before, and so on (ties: the earlier). So each picture is in one pair at
most, pairs come out in the order of their stamps, and a picture never goes to a partner while a nearer one is free.

**When.** A pair comes out as soon as no nearer partner of either half can still come. Each stream's stamps rise, so a
stream that has reached ``t`` sends nothing earlier. Alone, that would hold a pair whose halves differ by ``d`` until
the next picture of the earlier camera: a whole period. Therefore the matcher also uses that a camera does not run
faster than lately: the next stamp is at least 0.9 times the shortest of the last 16 intervals away. With it, a pair
whose halves differ by less than about 0.45 periods comes out with its second half, at once; one that differs by more
waits for the next picture of the earlier camera, at most one period. Where no picture comes any more, ``poll``
releases it after ``wait_ns``. A picture that finds no partner is dropped as soon as the other stream has passed it by
more than the tolerance, or after ``wait_ns``, or when more than ``queue`` wait.

**Time going back** by more than half a second (a recording that loops, a clock that was set) begins anew: what waits
is dropped, and stragglers of the other stream from before the jump are too. Smaller steps back are late messages.

At every moment and for each stream: received = paired + dropped (by reason) + waiting.
"""

from __future__ import annotations

import bisect
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

VISIBLE = "visible"
INFRARED = "infrared"

ZERO_STAMP = "zero_stamp"
"""The stamp is zero or negative: the driver does not stamp its pictures."""
UNMATCHED = "unmatched"
"""The other stream passed by and had nothing free within the tolerance."""
PARTNER_MISSING = "partner_missing"
"""Waited in vain for ``wait_ns``, or was the oldest of more than ``queue``: the other camera is silent or too late."""
TIME_JUMP = "time_jump"
"""From before a jump back in time."""
LATE = "late"
"""Older than a pair that has already come out."""

JUMP_BACK_NS = 500_000_000
INTERVALS = 16
REMEMBERED = 64  # stamps of each stream, to say how near the nearest one was
INTERVALS_NEEDED = 3  # a single one may be long because a picture was lost
INTERVAL_SAFETY = 0.9


@dataclass(frozen=True)
class StampedPair(Generic[T]):
    """Two pictures that belong together.

    :ivar difference_ns: infrared stamp (offset added) minus visible stamp
    """

    visible: T
    infrared: T
    difference_ns: int


@dataclass(frozen=True)
class Drop(Generic[T]):
    """A picture that will be in no pair.

    :ivar nearest_ns: the smallest difference (infrared stamp, offset added, minus visible stamp) to any of the other
        stream's last pictures, paired or not; None where there are none
    :ivar behind_ns: how much older it is than the newest of its own stream
    """

    stream: str
    stamp_ns: int
    item: T
    reason: str
    nearest_ns: int | None = None
    behind_ns: int = 0


@dataclass
class Outcome(Generic[T]):
    """What one call settled: pairs in the order of their stamps, and drops."""

    pairs: list[StampedPair[T]] = field(default_factory=list)
    drops: list[Drop[T]] = field(default_factory=list)


@dataclass
class StreamCounters:
    """Of one stream; ``received = paired + sum(dropped.values()) + waiting``."""

    received: int = 0
    paired: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    waiting: int = 0


@dataclass
class _Waiting(Generic[T]):
    at: int  # the stamp, offset added
    stamp_ns: int
    arrived_ns: int
    item: T


class _Stream(Generic[T]):
    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: list[_Waiting[T]] = []
        self.counters = StreamCounters()
        self.last: int | None = None
        self.barrier: int | None = None
        self.intervals: deque[int] = deque(maxlen=INTERVALS)
        self.remembered: deque[int] = deque(maxlen=REMEMBERED)

    def forget(self) -> None:
        self.last = None
        self.barrier = None
        self.intervals.clear()
        self.remembered.clear()

    def advance(self, at: int) -> None:
        self.remembered.append(at)
        if self.last is not None and at > self.last:
            self.intervals.append(at - self.last)
        self.last = at if self.last is None else max(self.last, at)

    def horizon(self, anticipate: bool) -> float:
        """No picture that is still to come has a stamp below this; anticipated from the rate, or certain."""
        if self.last is None:
            return float("-inf")
        known = anticipate and len(self.intervals) >= INTERVALS_NEEDED
        return self.last + (INTERVAL_SAFETY * min(self.intervals) if known else 0)


class NearestPairing(Generic[T]):
    """The matcher; see the module. For one thread.

    :param tolerance_ns: largest difference of the stamps of a pair
    :param offset_ns: added to the infrared stamps
    :param queue: pictures of each stream that may wait
    :param wait_ns: longest time a picture may wait, on the clock of ``now_ns``
    :param anticipate: use the observed intervals to release pairs early; without it the pairs are exactly those of
        the definition, with up to one period of latency
    """

    def __init__(
        self,
        tolerance_ns: int,
        offset_ns: int = 0,
        queue: int = 10,
        wait_ns: int = 500_000_000,
        *,
        anticipate: bool = True,
    ) -> None:
        self.tolerance_ns = tolerance_ns
        self.queue = queue
        self.wait_ns = wait_ns
        self.anticipate = anticipate
        self._offset_ns = offset_ns
        self._streams: dict[str, _Stream[T]] = {VISIBLE: _Stream(VISIBLE), INFRARED: _Stream(INFRARED)}
        self._lagging = ""

    def counters(self, stream: str) -> StreamCounters:
        """The counters of ``VISIBLE`` or ``INFRARED``; a copy."""
        found = self._streams[stream]
        own = found.counters
        return StreamCounters(own.received, own.paired, Counter(own.dropped), len(found.queue))

    @property
    def offset_ns(self) -> int:
        """Added to the infrared stamps."""
        return self._offset_ns

    def set_offset(self, offset_ns: int, reason: str) -> Outcome[T]:
        """Change the offset; what waits is dropped, since its order no longer holds."""
        self._offset_ns = offset_ns
        return self.reset(reason)

    def add(self, stream: str, stamp_ns: int, item: T, now_ns: int) -> Outcome[T]:
        """Take a picture in.

        :param stream: ``VISIBLE`` or ``INFRARED``
        :param stamp_ns: its own stamp, without offset
        :param now_ns: the time of arrival on a clock that never goes back
        :returns: what is settled now, of this picture or of earlier ones
        """
        outcome: Outcome[T] = Outcome()
        own, other = self._streams[stream], self._streams[INFRARED if stream == VISIBLE else VISIBLE]
        own.counters.received += 1
        at = stamp_ns + (self._offset_ns if stream == INFRARED else 0)
        new = _Waiting(at, stamp_ns, now_ns, item)
        if stamp_ns <= 0:
            self._drop(own, new, ZERO_STAMP, outcome)
            return outcome
        if own.last is not None and at < own.last - JUMP_BACK_NS:
            self._begin_anew(own, other, outcome)
        elif self._lagging == own.name:
            if other.last is not None and at > other.last + JUMP_BACK_NS:
                self._drop(own, new, TIME_JUMP, outcome)
                return outcome
            self._lagging = ""
        own.advance(at)
        if own.barrier is not None and at < own.barrier:
            self._drop(own, new, LATE, outcome)
        else:
            bisect.insort(own.queue, new, key=lambda waiting: waiting.at)
        self._settle(outcome)
        self._expire(now_ns, outcome)
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
            self._drop_some(stream.name, stream.queue, reason, outcome)
            stream.forget()
        self._lagging = ""
        return outcome

    def _begin_anew(self, own: _Stream[T], other: _Stream[T], outcome: Outcome[T]) -> None:
        """Stream ``own`` has jumped back; ``other`` is expected to follow, unless this was the following."""
        self._drop_some(own.name, own.queue, TIME_JUMP, outcome)
        own.forget()
        if self._lagging == own.name:
            self._lagging = ""
            return
        self._drop_some(other.name, other.queue, TIME_JUMP, outcome)
        other.forget()
        self._lagging = other.name

    def _settle(self, outcome: Outcome[T]) -> None:
        """Emit the pairs that nothing still to come can better, then drop what can find no partner."""
        visible, infrared = self._streams[VISIBLE].queue, self._streams[INFRARED].queue
        horizon_v = self._streams[VISIBLE].horizon(self.anticipate)
        horizon_i = self._streams[INFRARED].horizon(self.anticipate)
        candidates = _candidates(visible, infrared, self.tolerance_ns)
        while True:
            ready = [
                (v, i)
                for distance, v, i in _mutual_nearest(candidates)
                if horizon_i >= visible[v].at + distance and horizon_v >= infrared[i].at + distance
            ]
            if not ready:
                break
            self._emit_up_to(*ready[0], outcome)
            candidates = _candidates(visible, infrared, self.tolerance_ns)
        hopeful_v, hopeful_i = {v for _, v, _ in candidates}, {i for _, _, i in candidates}
        for name, other, hopeful in ((VISIBLE, INFRARED, hopeful_v), (INFRARED, VISIBLE, hopeful_i)):
            queue = self._streams[name].queue
            horizon = self._streams[other].horizon(anticipate=False)  # nothing is gained by dropping early
            passed = [
                waiting
                for index, waiting in enumerate(queue)
                if index not in hopeful and horizon > waiting.at + self.tolerance_ns
            ]
            self._drop_some(name, passed, UNMATCHED, outcome)

    def _expire(self, now_ns: int, outcome: Outcome[T]) -> None:
        """Decide by what is known about pictures that waited too long, or are too many."""
        visible, infrared = self._streams[VISIBLE].queue, self._streams[INFRARED].queue

        def due(queue: list[_Waiting[T]]) -> set[int]:
            late = {index for index, waiting in enumerate(queue) if now_ns - waiting.arrived_ns >= self.wait_ns}
            return late | {0} if len(queue) > self.queue else late

        while True:
            due_v, due_i = due(visible), due(infrared)
            if not due_v and not due_i:
                return
            pairs = _closest_first(_candidates(visible, infrared, self.tolerance_ns))
            released = [(v, i) for v, i in pairs if v in due_v or i in due_i]
            if released:
                self._emit_up_to(*released[0], outcome)
            else:
                self._drop_some(VISIBLE, [visible[v] for v in sorted(due_v)], PARTNER_MISSING, outcome)
                self._drop_some(INFRARED, [infrared[i] for i in sorted(due_i)], PARTNER_MISSING, outcome)

    def _emit_up_to(self, v: int, i: int, outcome: Outcome[T]) -> None:
        """Emit a pair, and before it the pairs among what is older: nothing that is still to come may cross it."""
        visible, infrared = self._streams[VISIBLE], self._streams[INFRARED]
        older_v, older_i = visible.queue[:v], infrared.queue[:i]
        last_v, last_i = visible.queue[v], infrared.queue[i]
        del visible.queue[: v + 1]
        del infrared.queue[: i + 1]
        inner = _closest_first(_candidates(older_v, older_i, self.tolerance_ns))
        for left, right in [*((older_v[a], older_i[b]) for a, b in inner), (last_v, last_i)]:
            visible.counters.paired += 1
            infrared.counters.paired += 1
            outcome.pairs.append(StampedPair(left.item, right.item, right.at - left.at))
        for stream, older, taken in (
            (visible, older_v, {a for a, _ in inner}),
            (infrared, older_i, {b for _, b in inner}),
        ):
            for index, waiting in enumerate(older):
                if index not in taken:
                    self._drop(stream, waiting, UNMATCHED, outcome)
        visible.barrier, infrared.barrier = last_v.at, last_i.at

    def _drop(self, stream: _Stream[T], waiting: _Waiting[T], reason: str, outcome: Outcome[T]) -> None:
        stream.counters.dropped[reason] += 1
        sign, other = (1, INFRARED) if stream.name == VISIBLE else (-1, VISIBLE)
        differences = (sign * (at - waiting.at) for at in self._streams[other].remembered)
        nearest = min(differences, key=abs, default=None)
        behind = 0 if stream.last is None else max(0, stream.last - waiting.at)
        outcome.drops.append(Drop(stream.name, waiting.stamp_ns, waiting.item, reason, nearest, behind))

    def _drop_some(self, name: str, some: list[_Waiting[T]], reason: str, outcome: Outcome[T]) -> None:
        stream = self._streams[name]
        for waiting in some:
            self._drop(stream, waiting, reason, outcome)
        gone = {id(waiting) for waiting in some}
        stream.queue[:] = [waiting for waiting in stream.queue if id(waiting) not in gone]


def _candidates(
    visible: list[_Waiting[T]], infrared: list[_Waiting[T]], tolerance_ns: int
) -> list[tuple[int, int, int]]:
    """All (distance, index, index) within the tolerance, the closest first, ties by stamp."""
    stamps = [waiting.at for waiting in infrared]
    found = []
    for v, waiting in enumerate(visible):
        low = bisect.bisect_left(stamps, waiting.at - tolerance_ns)
        high = bisect.bisect_right(stamps, waiting.at + tolerance_ns)
        found += [(abs(stamps[i] - waiting.at), v, i) for i in range(low, high)]
    return sorted(found)


def _mutual_nearest(candidates: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Those that are the first choice of both halves, in the order of their stamps."""
    first_v: dict[int, int] = {}
    first_i: dict[int, int] = {}
    for _, v, i in candidates:
        first_v.setdefault(v, i)
        first_i.setdefault(i, v)
    mutual = [(distance, v, i) for distance, v, i in candidates if first_v[v] == i and first_i[i] == v]
    return sorted(mutual, key=lambda choice: choice[1:])


def _closest_first(candidates: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Take the closest, then the next closest that crosses none taken before; in the order of their stamps."""
    taken: list[tuple[int, int]] = []
    for _, v, i in candidates:
        if all((v < a and i < b) or (v > a and i > b) for a, b in taken):
            taken.append((v, i))
    return sorted(taken)
