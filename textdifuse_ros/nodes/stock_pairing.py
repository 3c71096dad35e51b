"""The stock policies of ``message_filters``, exact and approximate, as alternatives to the nearest-stamp pairing.

The package's synchronizers decide which images pair. :class:`.Pairing` adds what they lack: offsets, rejection of zero
stamps, a reset when time jumps back, a limit on waiting, and counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, TypeVar

from builtin_interfaces.msg import Time
from rclpy.duration import Duration

from textdifuse_ros.errors import ConfigError
from textdifuse_ros.sensors import SENSORS
from textdifuse_ros.sync.base import Pairing, Stream, Waiting
from textdifuse_ros.sync.outcome import COUNTERPART_MISSING, SAME_STAMP, Outcome

try:
    import message_filters
except ImportError:
    message_filters = None

T = TypeVar("T")

EXACT = "exact"

_SHIFT_NS = 3600 * 10**9
"""Added to every stamp: an offset may make a stamp negative, which ROS times do not allow [ns]."""


def require_message_filters(policy: str) -> Any:
    """Return the package ``message_filters``, which ``policy`` needs.

    :raises ConfigError: it is not installed
    """
    if message_filters is None:
        remedy = f"install the package message_filters (ros-jazzy-message-filters) for {policy}"
        raise ConfigError("synchronizer", "nearest where message_filters is not installed", policy, remedy)
    return message_filters


class StockPairing(Pairing[T]):
    """Pairs by ``message_filters.TimeSynchronizer`` or ``ApproximateTimeSynchronizer``. Not thread-safe.

    :param policy: ``exact`` or ``approximate``
    :param tolerance_ns: slop of the approximate policy, which accepts smaller differences [ns]; unused by the exact one
    :param offsets_ns: offset added to the stamps of each stream, by its name [ns]
    :param queue: queue size of the synchronizer per stream
    :param wait_ns: longest time an image may wait, on the clock of ``now_ns`` [ns]
    :raises ConfigError: message_filters is not installed
    """

    def __init__(
        self,
        policy: str,
        tolerance_ns: int,
        offsets_ns: Mapping[str, int] | None = None,
        queue: int = 10,
        wait_ns: int = 500_000_000,
    ) -> None:
        package = require_message_filters(policy)
        super().__init__(tolerance_ns, offsets_ns, wait_ns)
        self._inputs = {name: package.SimpleFilter() for name in SENSORS}
        sources = list(self._inputs.values())
        if policy == EXACT:
            self._stock = package.TimeSynchronizer(sources, queue)
        else:
            self._stock = package.ApproximateTimeSynchronizer(sources, queue, tolerance_ns / 1e9)
        self._paired: list[tuple[Waiting[T], Waiting[T]]] = []
        # The synchronizer holds its lock during the callback, and forever if it raises: this one only stores the pair.
        self._stock.registerCallback(lambda *pair: self._paired.append((pair[0].waiting, pair[1].waiting)))

    def _match(self, own: Stream[T], new: Waiting[T], outcome: Outcome[T]) -> None:
        self._stock.slop = Duration(nanoseconds=self.tolerance_ns)
        for name, kept in zip(SENSORS, self._stock.queues, strict=True):
            kept.clear()  # images that expired, or are from before a jump, must leave the synchronizer as well
            kept.update((waiting.at + _SHIFT_NS, _message(waiting)) for waiting in self._streams[name].queue)
        own.queue.append(new)
        self._inputs[own.name].signalMessage(_message(new))
        for visible, infrared in self._paired:
            self._visible.queue.remove(visible)
            self._infrared.queue.remove(infrared)
            self._emit(visible, infrared, outcome)
        self._paired.clear()
        for name, kept in zip(SENSORS, self._stock.queues, strict=True):
            stream, stamps = self._streams[name], {id(message.waiting): at for at, message in kept.items()}
            for waiting in [waiting for waiting in stream.queue if id(waiting) not in stamps]:
                same = waiting.at + _SHIFT_NS in kept
                self._drop_some(stream, [waiting], SAME_STAMP if same else COUNTERPART_MISSING, outcome)
            stream.queue.sort(key=lambda waiting: waiting.at)

    def _expire(self, now_ns: int, outcome: Outcome[T]) -> None:
        for stream in self._streams.values():
            late = [waiting for waiting in stream.queue if now_ns - waiting.arrived_ns >= self.wait_ns]
            self._drop_some(stream, late, COUNTERPART_MISSING, outcome)


def _message(waiting: Waiting[T]) -> SimpleNamespace:
    sec, nanosec = divmod(waiting.at + _SHIFT_NS, 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=Time(sec=sec, nanosec=nanosec)), waiting=waiting)
