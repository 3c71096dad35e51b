"""The recent stamps of two streams, as input of :mod:`.doctor`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from textdifuse_ros.sensors import SENSORS


@dataclass(frozen=True)
class StampSeries:
    """The stamps of a stream in the order of arrival.

    :ivar stamps_ns: int64 [N], header stamps [ns]
    :ivar arrived_ns: int64 [N], times of arrival [ns], on any clock that both streams share
    """

    stamps_ns: np.ndarray
    arrived_ns: np.ndarray


class StampWindow:
    """A sliding window over the stamps of both streams. Not thread-safe.

    :param seconds: length of the window [s]
    :param most: maximum number of stamps kept per stream
    """

    def __init__(self, seconds: float, most: int = 20_000) -> None:
        self._length_ns = round(1e9 * seconds)
        self._kept: dict[str, deque[tuple[int, int]]] = {stream: deque(maxlen=most) for stream in SENSORS}

    def add(self, stream: str, stamp_ns: int, arrived_ns: int) -> None:
        """Add a stamp, and remove those that have left the window.

        :param stream: ``VISIBLE`` or ``INFRARED``
        :param stamp_ns: header stamp [ns]
        :param arrived_ns: time of arrival [ns], monotonic
        """
        kept = self._kept[stream]
        kept.append((stamp_ns, arrived_ns))
        while kept[0][1] < arrived_ns - self._length_ns:
            kept.popleft()

    def clear(self) -> None:
        """Remove all stamps."""
        for kept in self._kept.values():
            kept.clear()

    def series(self, stream: str, now_ns: int) -> StampSeries:
        """Return the stamps of ``stream`` that arrived within the window that ends at ``now_ns`` [ns]."""
        recent = [item for item in self._kept[stream] if item[1] >= now_ns - self._length_ns]
        table = np.array(recent, np.int64).reshape(-1, 2)
        return StampSeries(table[:, 0], table[:, 1])
