"""CUDA graphs: capture the computation of an image size once and replay it with a single launch.

At camera sizes a GPU finishes its hundreds of small kernels faster than a CPU can launch them one by one (ADR 10).
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

CAPACITY = 8
"""Cached graphs; each holds its memory."""

IDLE_CALLS = 32
"""Calls after which an unused graph may be evicted."""

WARM_UP = 2
"""Runs before the capture, in which libraries choose their algorithms and allocate their workspaces."""

MAX_STEPS = 8
"""Longest reverse process that is captured: a graph holds every step's intermediates."""

Work = Callable[..., Any]

_CAPTURE = threading.Lock()
"""PyTorch captures one graph at a time."""


class _Graph:
    """One captured computation.

    :param work: a function of tensors of fixed shapes; it neither synchronizes nor copies from the host
    :param inputs: example inputs
    :param stream: to capture on
    """

    def __init__(self, work: Work, inputs: tuple[Tensor, ...], stream: torch.cuda.Stream) -> None:
        # Kept with everything that it references: the graph reads from the addresses of the capture.
        self._work = work
        self._inputs = tuple(item.clone() for item in inputs)
        here = torch.cuda.current_stream()
        stream.wait_stream(here)
        # The outer context restores the stream: a failed capture leaves the thread on the capture's stream.
        with _CAPTURE, torch.cuda.stream(here):
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    work(*self._inputs)
            here.wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # thread_local: another thread, the localizer's, may use the device during the capture.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self.outputs = work(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> Any:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self.outputs


class _Entry:
    """A graph and the one that reads its outputs.

    :ivar used: number of the last call that used it
    """

    def __init__(self, first: _Graph) -> None:
        self.first = first
        self.second: _Graph | None = None
        self.used = 0


class Graphs:
    """A cache of captured computations on one CUDA device; one caller at a time.

    :param device: the CUDA device
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._entries: dict[Hashable, _Entry] = {}
        self._seen_once: deque[Hashable] = deque(maxlen=4 * CAPACITY)
        self._failed: set[Hashable] = set()
        self._stream: torch.cuda.Stream | None = None  # one for all: libraries keep a workspace for each stream
        self._broken = False
        self._calls = 0

    def replay(self, key: Hashable, make_work: Callable[[], Work], inputs: tuple[Tensor, ...]) -> Any:
        """Replay the graph cached under ``key``; capture it on the key's second call.

        The first call captures nothing, since every image may have a size of its own.

        :param key: identifies the computation, apart from the inputs' values
        :param make_work: returns the function to capture
        :param inputs: of that function; copied into the graph's own
        :returns: the function's result, overwritten by the next replay. None on the first call, while the cache is
            full of graphs in use, and where the capture failed (a warning says why; mostly too little memory)
        """
        self._calls += 1
        with torch.cuda.device(self._device):
            entry = self._entries.get(key)
            if entry is None:
                if self._may_capture(key) and self._is_second_call(key) and self._evict():
                    first = self._capture(key, make_work, inputs)
                    entry = None if first is None else _Entry(first)
                if entry is None:
                    return None
                self._entries[key] = entry
            entry.used = self._calls
            return entry.first.replay(inputs)

    def replay_second(self, key: Hashable, make_work: Callable[[Any], Work], inputs: tuple[Tensor, ...]) -> Any:
        """Replay the graph that reads the outputs of the one just replayed; capture it on the first call.

        :param key: of the first graph
        :param make_work: takes the first graph's outputs, returns the function to capture
        :param inputs: of that function
        :returns: the function's result; None where the capture failed
        """
        with torch.cuda.device(self._device):
            entry, name = self._entries[key], ("second", key)
            if entry.second is None and self._may_capture(name):
                entry.second = self._capture(name, lambda: make_work(entry.first.outputs), inputs)
            return None if entry.second is None else entry.second.replay(inputs)

    def clear(self) -> None:
        """Drop all graphs and so return their memory to PyTorch; failed captures may be tried again."""
        self._entries.clear()
        self._seen_once.clear()
        self._failed.clear()

    def _may_capture(self, key: Hashable) -> bool:
        return not self._broken and key not in self._failed

    def _is_second_call(self, key: Hashable) -> bool:
        if key in self._seen_once:
            # Once evicted it must be seen twice again.
            self._seen_once.remove(key)
            return True
        self._seen_once.append(key)
        return False

    def _evict(self) -> bool:
        """Make room for one graph; returns False where all are in use."""
        if len(self._entries) < CAPACITY:
            return True
        oldest = min(self._entries, key=lambda key: self._entries[key].used)
        if self._calls - self._entries[oldest].used < IDLE_CALLS:
            return False
        del self._entries[oldest]
        return True

    def _capture(self, key: Hashable, make_work: Callable[[], Work], inputs: tuple[Tensor, ...]) -> _Graph | None:
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        try:
            return _Graph(make_work(), inputs, self._stream)
        except RuntimeError as error:
            self._failed.add(key)
            # After an out-of-memory error a smaller image may still fit; after any other, capturing is given up.
            self._broken = not isinstance(error, torch.OutOfMemoryError)
            reason = str(error).partition("\n")[0]
            warnings.warn(f"no CUDA graph captured, running operation by operation: {reason}", stacklevel=2)
        # After the except block, where the error no longer keeps its tensors alive.
        empty_cache()
        return None


def empty_cache() -> None:
    """Return PyTorch's unused device memory; waits for a running capture."""
    with _CAPTURE, contextlib.suppress(RuntimeError):  # refused after a capture that was broken off
        torch.cuda.empty_cache()
