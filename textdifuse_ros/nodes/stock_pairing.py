"""The stock policies of ``message_filters``, exact and approximate, in the place of the nearest-stamp pairing.

The package's own synchronizers decide which images pair. Around them stands what :class:`.Pairing` gives to every
policy and they lack: offsets, refusal of zero stamps, a reset when time goes back, a limit on waiting, counters.
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
"""Added to every stamp, since ROS times are not negative and an offset may make one so; differences stay."""


def require_message_filters(policy: str) -> Any:
    """The package.

    :raises ConfigError: it is not installed
    """
    if message_filters is None:
        remedy = f"install the package message_filters (ros-jazzy-message-filters) for {policy}"
        raise ConfigError("synchronizer", "nearest where message_filters is not installed", policy, remedy)
    return message_filters


class StockPairing(Pairing[T]):
    """``message_filters.TimeSynchronizer`` or ``ApproximateTimeSynchronizer`` as a policy; for one thread.

    :param policy: ``exact`` or ``approximate``
    :param tolerance_ns: the slop of the approximate policy, which takes differences below it; the exact one has none
    :param queue: images of each stream that the synchronizer keeps
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
        # It holds its lock while it calls back, and for ever where the callback raises: this one only takes a note.
        self._stock.registerCallback(lambda *pair: self._paired.append((pair[0].waiting, pair[1].waiting)))

    def _match(self, own: Stream[T], new: Waiting[T], outcome: Outcome[T]) -> None:
        self._stock.slop = Duration(nanoseconds=self.tolerance_ns)
        for name, kept in zip(SENSORS, self._stock.queues, strict=True):
            kept.clear()  # what expired here, or was from before a jump, must not stay there
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
