"""Nearest-stamp pairing of a visible and an infrared stream.

**Which pairs.** Defined over the whole of both streams: of all pairs within the tolerance, the closest is taken first,
then the next closest that crosses none taken before, and so on (ties: the earlier). So each image is in at most one
pair, pairs are released in the order of their stamps, and an image is never paired while a nearer counterpart is free.

**When.** A pair is released as soon as no nearer counterpart of either image can still arrive. The stamps of a stream
increase, so a stream that has reached ``t`` sends nothing earlier. This alone would hold a pair whose stamps differ
until the next image of the earlier camera: a whole period. Therefore the matcher also assumes that a camera does not
run faster than lately: its next stamp is at least 0.9 times the shortest of the last 16 intervals away. A pair whose
stamps differ by less than about 0.45 periods is then released with its second image; one that differs by more waits
for the next image of the earlier camera, at most one period. If no more images arrive, ``poll`` releases it after
``wait_ns``. An image without a counterpart is dropped as soon as the other stream has passed it by more than the
tolerance, or after ``wait_ns``, or when more than ``queue`` images wait.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import TypeVar

from textdifuse_ros.sensors import SENSORS, other_sensor
from textdifuse_ros.sync.base import Pairing, Stream, Waiting
from textdifuse_ros.sync.outcome import COUNTERPART_MISSING, LATE, UNMATCHED, Outcome

T = TypeVar("T")

INTERVALS_NEEDED = 3  # a single interval may be long because an image was lost
INTERVAL_SAFETY = 0.9


class _Monotonic(Stream[T]):
    """A stream with increasing stamps, which bound the stamps still to come.

    :ivar barrier: stamp of the last released pair [ns]; older images are late
    """

    barrier: int | None = None

    def reset(self) -> None:
        super().reset()
        self.barrier = None

    def horizon(self, anticipate: bool) -> float:
        """Return a lower bound of all future stamps [ns]; with ``anticipate``, estimated from the rate."""
        if self.last is None:
            return float("-inf")
        known = anticipate and len(self.intervals) >= INTERVALS_NEEDED
        return self.last + (INTERVAL_SAFETY * min(self.intervals) if known else 0)


class NearestPairing(Pairing[T]):
    """Pairs the nearest stamps, as the module's docstring defines it. Not thread-safe.

    :param tolerance_ns: largest difference of the stamps of a pair [ns]
    :param offsets_ns: offset added to the stamps of each stream, by its name [ns]
    :param queue: maximum number of waiting images per stream
    :param wait_ns: longest time an image may wait, on the clock of ``now_ns`` [ns]
    :param anticipate: use the observed intervals to release pairs early. Without it the pairs are exactly those of the
        definition, with up to one period of latency.
    """

    _streams: dict[str, _Monotonic[T]]  # type: ignore[assignment]

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

    def _new_stream(self, name: str) -> _Monotonic[T]:
        return _Monotonic(name)

    def _match(self, own: Stream[T], new: Waiting[T], outcome: Outcome[T]) -> None:
        barrier = self._streams[own.name].barrier
        if barrier is not None and new.at < barrier:
            self._drop(own, new, LATE, outcome)
        else:
            bisect.insort(own.queue, new, key=lambda waiting: waiting.at)
        self._release(outcome)

    def _release(self, outcome: Outcome[T]) -> None:
        """Emit the pairs that no future image can improve, then drop the images that can find no counterpart."""
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
        candidates_v, candidates_i = {v for _, v, _ in candidates}, {i for _, _, i in candidates}
        for name, has_candidate in zip(SENSORS, (candidates_v, candidates_i), strict=True):
            stream = self._streams[name]
            horizon = self._streams[other_sensor(name)].horizon(anticipate=False)  # dropping early gains nothing
            passed = [
                waiting
                for index, waiting in enumerate(stream.queue)
                if index not in has_candidate and horizon > waiting.at + self.tolerance_ns
            ]
            self._drop_some(stream, passed, UNMATCHED, outcome)

    def _expire(self, now_ns: int, outcome: Outcome[T]) -> None:
        """Pair or drop images that have waited too long or are too many, without waiting for better counterparts."""
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
        """Emit the pairs among the older images, then the pair ``v, i``: no later pair may cross it."""
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
    """Return all pairs within the tolerance as (distance, visible index, infrared index), closest first."""
    stamps = [waiting.at for waiting in infrared]
    found = []
    for v, waiting in enumerate(visible):
        low = bisect.bisect_left(stamps, waiting.at - tolerance_ns)
        high = bisect.bisect_right(stamps, waiting.at + tolerance_ns)
        found += [(abs(stamps[i] - waiting.at), v, i) for i in range(low, high)]
    return sorted(found)


def _mutual_nearest(candidates: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return the candidates that are the nearest of both their images, in the order of their stamps."""
    first_v: dict[int, int] = {}
    first_i: dict[int, int] = {}
    for _, v, i in candidates:
        first_v.setdefault(v, i)
        first_i.setdefault(i, v)
    mutual = [(distance, v, i) for distance, v, i in candidates if first_v[v] == i and first_i[i] == v]
    return sorted(mutual, key=lambda choice: choice[1:])


def _closest_first(candidates: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Take the closest, then the next closest that crosses none taken before; return them in order of their stamps."""
    taken: list[tuple[int, int]] = []
    for _, v, i in candidates:
        if all((v < a and i < b) or (v > a and i > b) for a, b in taken):
            taken.append((v, i))
    return sorted(taken)
