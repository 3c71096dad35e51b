"""The pairing as a filter with the interface of ROS's ``message_filters``, but without ROS.

    pairs = PairFilter([visible, infrared], NearestPairing(tolerance_ns=20_000_000))
    pairs.registerCallback(lambda visible, infrared: ...)

Its inputs are any two filters with ``registerCallback``, for example ``message_filters.Subscriber`` or
``message_filters.Cache``. Unlike the stock synchronizers it holds no lock while callbacks run: a callback that raises,
is slow, or adds messages itself blocks nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from textdifuse_ros.sensors import SENSORS, stamp_of
from textdifuse_ros.sync.base import Pairing
from textdifuse_ros.sync.outcome import Outcome, StreamCounters

M = TypeVar("M", bound=Any)


@dataclass(frozen=True)
class Received(Generic[M]):
    """A message with its time of arrival.

    :ivar message: the message
    :ivar arrived: time of arrival [s], steady clock of ``time.monotonic``
    """

    message: M
    arrived: float


class SimpleFilter:
    """Base class with callbacks; same interface as ``message_filters.SimpleFilter``.

    :ivar callbacks: the registered callbacks with their extra arguments, by connection number
    """

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:
        """Register ``cb(*messages, *args)`` to be called with every output; returns the connection number."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:
        """Call all callbacks with the messages ``msg``."""
        for cb, args in self.callbacks.values():
            cb(*msg, *args)


class PairFilter(SimpleFilter, Generic[M]):
    """Pairs the messages of two filters by their header stamps. Thread-safe.

    ``registerCallback`` takes ``cb(visible, infrared)``; listeners of :meth:`when_settled` get drops as well.

    :param fs: the visible and the infrared filter, in this order
    :param pairing: the pairing policy; the filter takes ownership
    :param clock: monotonic clock [ns]
    :param on_error: called with each exception of a callback. Without it, the first exception is raised from the call
        that added the message, after all callbacks were called.
    :ivar errors: number of exceptions raised by callbacks
    """

    def __init__(
        self,
        fs: Sequence[Any],
        pairing: Pairing[Received[M]],
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        on_error: Callable[[Exception], Any] | None = None,
    ) -> None:
        super().__init__()
        self.errors = 0
        self._pairing = pairing
        self._clock = clock
        self._on_error = on_error
        self._listeners: list[Callable[[Outcome[Received[M]]], Any]] = []
        self._lock = threading.Lock()
        self._outgoing: deque[Outcome[Received[M]]] = deque()
        self._delivering = False
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[Any]) -> None:
        """Connect the visible and the infrared filter ``fs``, in this order."""
        self.input_connections = [
            source.registerCallback(self.add, stream) for source, stream in zip(fs, SENSORS, strict=True)
        ]

    def when_settled(self, listener: Callable[[Outcome[Received[M]]], Any]) -> None:
        """Register ``listener`` to be called with every outcome: pairs with times of arrival, drops with reasons."""
        self._listeners.append(listener)

    def add(self, message: M, stream: str) -> None:
        """Add a message.

        :param message: any message with a header
        :param stream: ``visible`` or ``infrared``
        """
        now = self._clock()
        received = Received(message, now / 1e9)
        self.settle(lambda pairing: pairing.add(stream, stamp_of(message.header), received, now))

    def refuse(self, message: M, stream: str, reason: str) -> None:
        """Count a message as received and dropped without pairing it.

        :param message: any message with a header
        :param stream: ``visible`` or ``infrared``
        :param reason: reason of the drop
        """
        received = Received(message, self._clock() / 1e9)
        self.settle(lambda pairing: pairing.refuse(stream, stamp_of(message.header), received, reason))

    def poll(self) -> None:
        """Pair or drop the messages that have waited too long. Call it regularly."""
        now = self._clock()
        self.settle(lambda pairing: pairing.poll(now))

    def reset(self, reason: str) -> None:
        """Drop all waiting messages for ``reason`` and forget the past stamps; keep the counters."""
        self.settle(lambda pairing: pairing.reset(reason))

    def counters(self, stream: str) -> StreamCounters:
        """Return the counters of ``stream`` (``visible`` or ``infrared``)."""
        with self._lock:
            return self._pairing.counters(stream)

    def settle(self, step: Callable[[Pairing[Received[M]]], Outcome[Received[M]]]) -> None:
        """Call ``step`` with the policy, then deliver its outcome to all listeners in order, without holding the lock.

        :param step: calls a method of the policy and returns its outcome
        """
        with self._lock:
            self._outgoing.append(step(self._pairing))
            if self._delivering:  # another thread, or the callback that called this, will deliver it
                return
            self._delivering = True
        errors: list[Exception] = []
        try:
            while (outcome := self._next()) is not None:
                self._deliver(outcome, errors)
        except BaseException:  # for example KeyboardInterrupt: the filter must stay usable
            with self._lock:
                self._delivering = False
            raise
        if errors and self._on_error is None:
            raise errors[0]

    def _next(self) -> Outcome[Received[M]] | None:
        with self._lock:
            self._delivering = bool(self._outgoing)
            return self._outgoing.popleft() if self._outgoing else None

    def _deliver(self, outcome: Outcome[Received[M]], errors: list[Exception]) -> None:
        for listener in self._listeners:
            self._call(listener, (outcome,), errors)
        for pair in outcome.pairs:
            for cb, args in list(self.callbacks.values()):
                self._call(cb, (pair.visible.message, pair.infrared.message, *args), errors)

    def _call(self, cb: Callable[..., Any], arguments: tuple[Any, ...], errors: list[Exception]) -> None:
        try:
            cb(*arguments)
        except Exception as error:
            self.errors += 1
            errors.append(error)
            if self._on_error is not None:
                self._on_error(error)
