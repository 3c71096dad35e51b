"""Nearest-stamp pairing of a visible and an infrared stream.

**Which pairs.** Taken over the whole of both streams: of all pairs within the tolerance, the closest is taken first,
then the next closest that crosses none taken before, and so on (ties: the earlier). So each image is in one pair at
most, pairs come out in the order of their stamps, and an image never goes to a counterpart while a nearer one is free.

**When.** A pair comes out as soon as no nearer counterpart of either half can still come. Each stream's stamps rise, so
a stream that has reached ``t`` sends nothing earlier. Alone, that would hold a pair whose halves differ by ``d`` until
the next image of the earlier camera: a whole period. Therefore the matcher also uses that a camera does not run faster
than lately: the next stamp is at least 0.9 times the shortest of the last 16 intervals away. With it, a pair whose
halves differ by less than about 0.45 periods comes out with its second half, at once; one that differs by more waits
for the next image of the earlier camera, at most one period. Where no image comes any more, ``poll`` releases it after
``wait_ns``. An image that finds no counterpart is dropped as soon as the other stream has passed it by more than the
tolerance, or after ``wait_ns``, or when more than ``queue`` wait.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import TypeVar

from textdifuse_ros.sensors import SENSORS, other_sensor
from textdifuse_ros.sync.base import Pairing, Stream, Waiting
from textdifuse_ros.sync.outcome import COUNTERPART_MISSING, LATE, UNMATCHED, Outcome

T = TypeVar("T")

INTERVALS_NEEDED = 3  # a single one may be long because an image was lost
INTERVAL_SAFETY = 0.9


class _Rising(Stream[T]):
    """A stream of which is known what it cannot bring any more.

    :ivar barrier: a pair with this stamp is out; what is older comes too late
    """

    barrier: int | None = None

    def forget(self) -> None:
        super().forget()
        self.barrier = None

    def horizon(self, anticipate: bool) -> float:
        """No image that is still to come has a stamp below this; anticipated from the rate, or certain."""
        if self.last is None:
            return float("-inf")
        known = anticipate and len(self.intervals) >= INTERVALS_NEEDED
        return self.last + (INTERVAL_SAFETY * min(self.intervals) if known else 0)


class NearestPairing(Pairing[T]):
    """The matcher; see the module. For one thread.

    :param tolerance_ns: largest difference of the stamps of a pair
    :param offsets_ns: added to the stamps of a stream, by its name
    :param queue: images of each stream that may wait
    :param wait_ns: longest time an image may wait, on the clock of ``now_ns``
    :param anticipate: use the observed intervals to release pairs early; without it the pairs are exactly those of
        the definition, with up to one period of latency
    """

    _streams: dict[str, _Rising[T]]  # type: ignore[assignment]

    def __init__(
        self,
        tolerance_ns: int,
        offsets_ns: Mapping[str, int] | None = None,
        queue: int = 10,
        wait_ns: int = 500_000_000,
        *,
        anticipate: bool = True,
    ) -> None:
        super().__init__(tolerance_ns, offsets_ns, wait_ns)
        self.queue = queue
        self.anticipate = anticipate

    def _new_stream(self, name: str) -> _Rising[T]:
        return _Rising(name)

    def _match(self, own: Stream[T], new: Waiting[T], outcome: Outcome[T]) -> None:
        barrier = self._streams[own.name].barrier
        if barrier is not None and new.at < barrier:
            self._drop(own, new, LATE, outcome)
        else:
            bisect.insort(own.queue, new, key=lambda waiting: waiting.at)
        self._settle(outcome)

    def _settle(self, outcome: Outcome[T]) -> None:
        """Emit the pairs that nothing still to come can better, then drop what can find no counterpart."""
        visible, infrared = self._visible.queue, self._infrared.queue
        horizon_v, horizon_i = (self._streams[name].horizon(self.anticipate) for name in SENSORS)
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
        for name, hopeful in zip(SENSORS, (hopeful_v, hopeful_i), strict=True):
            stream = self._streams[name]
            horizon = self._streams[other_sensor(name)].horizon(anticipate=False)  # nothing is gained by dropping early
            passed = [
                waiting
                for index, waiting in enumerate(stream.queue)
                if index not in hopeful and horizon > waiting.at + self.tolerance_ns
            ]
            self._drop_some(stream, passed, UNMATCHED, outcome)

    def _expire(self, now_ns: int, outcome: Outcome[T]) -> None:
        """Decide by what is known about images that waited too long, or are too many."""
        visible, infrared = self._visible.queue, self._infrared.queue

        def due(queue: list[Waiting[T]]) -> set[int]:
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
                self._drop_some(self._visible, [visible[v] for v in sorted(due_v)], COUNTERPART_MISSING, outcome)
                self._drop_some(self._infrared, [infrared[i] for i in sorted(due_i)], COUNTERPART_MISSING, outcome)

    def _emit_up_to(self, v: int, i: int, outcome: Outcome[T]) -> None:
        """Emit a pair, and before it the pairs among what is older: nothing that is still to come may cross it."""
        visible, infrared = self._visible, self._infrared
        older_v, older_i = visible.queue[:v], infrared.queue[:i]
        last_v, last_i = visible.queue[v], infrared.queue[i]
        del visible.queue[: v + 1]
        del infrared.queue[: i + 1]
        inner = _closest_first(_candidates(older_v, older_i, self.tolerance_ns))
        for left, right in [*((older_v[a], older_i[b]) for a, b in inner), (last_v, last_i)]:
            self._emit(left, right, outcome)
        for stream, older, taken in (
            (visible, older_v, {a for a, _ in inner}),
            (infrared, older_i, {b for _, b in inner}),
        ):
            for index, waiting in enumerate(older):
                if index not in taken:
                    self._drop(stream, waiting, UNMATCHED, outcome)
        for name, last in zip(SENSORS, (last_v, last_i), strict=True):
            self._streams[name].barrier = last.at


def _candidates(visible: list[Waiting[T]], infrared: list[Waiting[T]], tolerance_ns: int) -> list[tuple[int, int, int]]:
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
