"""Stopping between two steps, not within one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, SIGINT (Ctrl-C) and SIGTERM ask for a stop instead of stopping; a second one stops at once.

    :ivar asked: whether a stop was asked for
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # signal handlers belong to the main thread
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def ignore_in_worker() -> None:
    """For loader processes, which a terminal's Ctrl-C reaches too: they end when the training process does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
