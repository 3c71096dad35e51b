"""Signals that stop a run between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DeferredSignals:
    """Context in which a first SIGINT (Ctrl-C) or SIGTERM only sets a flag; a second one interrupts at once.

    :ivar received: whether a signal has arrived
    """

    def __init__(self) -> None:
        self.received = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
            self._handlers = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True


def ignore_signals() -> None:
    """Ignore both signals in a loader process, which a terminal's Ctrl-C reaches too: it ends with the training."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
