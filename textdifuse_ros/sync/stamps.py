"""The stamps of a stream, as they came: kept for a while, to be judged by :mod:`.doctor`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from textdifuse_ros.sensors import SENSORS


@dataclass(frozen=True)
class StampSeries:
    """Stamps in the order in which they came.

    :ivar stamps_ns: int64 [N], header stamps
    :ivar arrived_ns: int64 [N], when each came, on any one clock that both streams share
    """

    stamps_ns: np.ndarray
    arrived_ns: np.ndarray


class StampWindow:
    """The stamps of both streams of the last ``seconds``; for one thread.

    :param most: stamps of a stream that are kept at most
    """

    def __init__(self, seconds: float, most: int = 20_000) -> None:
        self._length_ns = round(1e9 * seconds)
        self._kept: dict[str, deque[tuple[int, int]]] = {stream: deque(maxlen=most) for stream in SENSORS}

    def add(self, stream: str, stamp_ns: int, arrived_ns: int) -> None:
        """Note a stamp, and forget what is too old."""
        kept = self._kept[stream]
        kept.append((stamp_ns, arrived_ns))
        while kept[0][1] < arrived_ns - self._length_ns:
            kept.popleft()

    def clear(self) -> None:
        """Forget all."""
        for kept in self._kept.values():
            kept.clear()

    def series(self, stream: str, now_ns: int) -> StampSeries:
        """What came since ``now_ns`` less the window."""
        recent = [item for item in self._kept[stream] if item[1] >= now_ns - self._length_ns]
        table = np.array(recent, np.int64).reshape(-1, 2)
        return StampSeries(table[:, 0], table[:, 1])
