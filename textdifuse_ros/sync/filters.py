"""The pairing as a filter with the interface of ROS's ``message_filters``; itself free of ROS.

    pairs = PairFilter([visible, infrared], NearestPairing(tolerance_ns=20_000_000))
    pairs.registerCallback(lambda visible, infrared: ...)

It is fed by any two filters: ``message_filters.Subscriber``, ``message_filters.Cache``, or whatever else has
``registerCallback``. Unlike the stock synchronizers it holds no lock while callbacks run: a callback that raises, is
slow, or feeds the filter again stalls nothing.
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
    """A message and when it came [s, the steady clock of ``time.monotonic``]."""

    message: M
    arrived: float


class SimpleFilter:
    """What calls back; the interface, names included, of ``message_filters.SimpleFilter``."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:
        """Have ``cb(*messages, *args)`` called with every output; returns the number of the connection."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:
        """Call all callbacks."""
        for cb, args in self.callbacks.values():
            cb(*msg, *args)


class PairFilter(SimpleFilter, Generic[M]):
    """Pairs the messages of two filters by their header stamps; for any number of threads.

    ``registerCallback`` takes ``cb(visible, infrared)``; :meth:`when_settled` takes what tells more.

    :param fs: the visible and the infrared filter, in this order
    :param pairing: the policy, given over
    :param clock: nanoseconds, never going back
    :param on_error: takes an exception of a callback; without it the first is raised from the call that fed the
        filter, after every callback has had every pair. Either way it is counted in ``errors``.
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
        """Take the messages of the visible and the infrared filter, in this order."""
        self.input_connections = [
            source.registerCallback(self.add, stream) for source, stream in zip(fs, SENSORS, strict=True)
        ]

    def when_settled(self, listener: Callable[[Outcome[Received[M]]], Any]) -> None:
        """Have ``listener`` called with every outcome: pairs with their times of arrival, and drops with reasons."""
        self._listeners.append(listener)

    def add(self, message: M, stream: str) -> None:
        """Take in a message with a header.

        :param stream: ``visible`` or ``infrared``
        """
        now = self._clock()
        received = Received(message, now / 1e9)
        self.settle(lambda pairing: pairing.add(stream, stamp_of(message.header), received, now))

    def refuse(self, message: M, stream: str, reason: str) -> None:
        """Count a message as dropped unseen."""
        received = Received(message, self._clock() / 1e9)
        self.settle(lambda pairing: pairing.refuse(stream, stamp_of(message.header), received, reason))

    def poll(self) -> None:
        """Settle what has waited too long; to be called now and then."""
        now = self._clock()
        self.settle(lambda pairing: pairing.poll(now))

    def reset(self, reason: str) -> None:
        """Drop what waits for ``reason`` and forget the past; the counters stay."""
        self.settle(lambda pairing: pairing.reset(reason))

    def counters(self, stream: str) -> StreamCounters:
        """The counters of ``visible`` or ``infrared``."""
        with self._lock:
            return self._pairing.counters(stream)

    def settle(self, step: Callable[[Pairing[Received[M]]], Outcome[Received[M]]]) -> None:
        """Do something to the policy, and tell all who listen what came of it, in order and with no lock held."""
        with self._lock:
            self._outgoing.append(step(self._pairing))
            if self._delivering:  # by another thread, or by the callback that called this: it will see to it
                return
            self._delivering = True
        errors: list[Exception] = []
        try:
            while (outcome := self._next()) is not None:
                self._tell(outcome, errors)
        except BaseException:  # Ctrl-C: the filter must stay usable
            with self._lock:
                self._delivering = False
            raise
        if errors and self._on_error is None:
            raise errors[0]

    def _next(self) -> Outcome[Received[M]] | None:
        with self._lock:
            self._delivering = bool(self._outgoing)
            return self._outgoing.popleft() if self._outgoing else None

    def _tell(self, outcome: Outcome[Received[M]], errors: list[Exception]) -> None:
        for listener in self._listeners:
            self._try(listener, (outcome,), errors)
        for pair in outcome.pairs:
            for cb, args in list(self.callbacks.values()):
                self._try(cb, (pair.visible.message, pair.infrared.message, *args), errors)

    def _try(self, cb: Callable[..., Any], arguments: tuple[Any, ...], errors: list[Exception]) -> None:
        try:
            cb(*arguments)
        except Exception as error:
            self.errors += 1
            errors.append(error)
            if self._on_error is not None:
                self._on_error(error)
