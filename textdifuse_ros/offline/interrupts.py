"""Signals that stop a run: between two pairs, and with the work so far kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = 128
"""Added to the number of the signal, this is the exit status of a run that was stopped."""


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM only after the block; a second one is not deferred.

    In a thread other than the main one, which gets no signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def defer(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    own = [number for number, handler in before.items() if callable(handler) or handler == signal.SIG_DFL]
    for number in own:
        signal.signal(number, defer)
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, before[number])
    if caught:
        handler = before[signal.Signals(caught[0])]
        if not callable(handler):
            raise SystemExit(STATUS + caught[0])
        handler(caught[0], None)


@contextmanager
def termination_as_exit() -> Iterator[None]:
    """Raise SystemExit in the block on SIGTERM, so that it is left in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(STATUS + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
