"""CUDA graphs: what an image takes again and again is launched as one.

At the size of a camera's image a GPU needs less time for its hundreds of small operations than a processor for
launching them one by one.
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

MOST = 8
"""Computations that are kept; each holds its memory."""

IDLE = 32
"""Calls after which a computation that was not asked for gives its place to another one."""

WARM_UP = 2
"""Runs before the recording, in which libraries choose their algorithms and allocate what they keep."""

Work = Callable[..., Any]

_RECORDING = threading.Lock()
"""PyTorch records one graph at a time."""


class _Graph:
    """One recorded computation.

    :param work: takes tensors of always the same sizes; waits for nothing and copies nothing from the host
    :param inputs: examples of what it takes
    :param aside: to record on
    """

    def __init__(self, work: Work, inputs: tuple[Tensor, ...], aside: torch.cuda.Stream) -> None:
        # With all that it holds: the graph reads from where that lay when it was recorded.
        self._work = work
        self._inputs = tuple(item.clone() for item in inputs)
        here = torch.cuda.current_stream()
        aside.wait_stream(here)
        # Named here, too: a recording that fails leaves the thread in the stream that it was made on.
        with _RECORDING, torch.cuda.stream(here):
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    work(*self._inputs)
            here.wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            # Another thread, the localizer's, may go on using the device meanwhile.
            with torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):
                self.outputs = work(*self._inputs)

    def __call__(self, inputs: tuple[Tensor, ...]) -> Any:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self.outputs


class _Entry:
    """:ivar first: what goes by a key; ``second`` reads from its outputs
    :ivar used: number of the call that used it last
    """

    def __init__(self, first: _Graph) -> None:
        self.first = first
        self.second: _Graph | None = None
        self.used = 0


class Graphs:
    """The recorded computations of one CUDA device; one caller at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._entries: dict[Hashable, _Entry] = {}
        self._met: deque[Hashable] = deque(maxlen=4 * MOST)
        self._failed: set[Hashable] = set()
        self._aside: torch.cuda.Stream | None = None  # one for all: the libraries keep memory for each
        self._broken = False
        self._calls = 0

    def __call__(self, key: Hashable, work: Callable[[], Work], inputs: tuple[Tensor, ...]) -> Any:
        """Do the work that goes by this key; the first time not at all, for images may have a size each.

        :param key: what the computation hangs on, beside the inputs' values
        :param work: makes what is recorded, see :class:`_Graph`
        :returns: what the work returns, overwritten the next time; None the first time that the key is met, where the
            places are taken by others that are in use, and where it cannot be recorded (a warning says why): for want
            of memory, mostly, of which a graph takes more
        """
        self._calls += 1
        with torch.cuda.device(self._device):
            entry = self._entries.get(key)
            if entry is None:
                if self._may_do(key) and self._seen_before(key) and self._make_room():
                    first = self._record(key, work, inputs)
                    entry = None if first is None else _Entry(first)
                if entry is None:
                    return None
                self._entries[key] = entry
            entry.used = self._calls
            return entry.first(inputs)

    def second(self, key: Hashable, work: Callable[[Any], Any], inputs: tuple[Tensor, ...]) -> Any:
        """Do what follows on the work that goes by this key, and was just done.

        :param work: takes the outputs of that, and gives what is recorded
        :returns: what that returns; None where it cannot be recorded
        """
        with torch.cuda.device(self._device):
            entry, name = self._entries[key], ("second", key)
            if entry.second is None and self._may_do(name):
                entry.second = self._record(name, lambda: work(entry.first.outputs), inputs)
            return None if entry.second is None else entry.second(inputs)

    def _may_do(self, key: Hashable) -> bool:
        return not self._broken and key not in self._failed

    def _seen_before(self, key: Hashable) -> bool:
        """Whether it comes for the second time."""
        if key in self._met:
            # Whose place another one takes has to come twice again.
            self._met.remove(key)
            return True
        self._met.append(key)
        return False

    def _make_room(self) -> bool:
        if len(self._entries) < MOST:
            return True
        oldest = min(self._entries, key=lambda key: self._entries[key].used)
        if self._calls - self._entries[oldest].used < IDLE:
            return False
        del self._entries[oldest]
        return True

    def _record(self, key: Hashable, work: Callable[[], Work], inputs: tuple[Tensor, ...]) -> _Graph | None:
        if self._aside is None:
            self._aside = torch.cuda.Stream()
        try:
            return _Graph(work(), inputs, self._aside)
        except RuntimeError as error:
            self._failed.add(key)
            # For want of memory a smaller image may do; after anything else nothing is recorded any more.
            self._broken = not isinstance(error, torch.OutOfMemoryError)
            reason = str(error).partition("\n")[0]
            warnings.warn(f"no CUDA graph of an image, it goes on operation by operation: {reason}", stacklevel=2)
        # Only here, where the error no longer keeps its tensors alive.
        give_back()
        return None

    def clear(self) -> None:
        """Forget all graphs, and so give their memory back to PyTorch; what failed may be tried again."""
        self._entries.clear()
        self._met.clear()
        self._failed.clear()


def give_back() -> None:
    """Let PyTorch give memory that nothing uses back to the device; not while a graph is recorded."""
    with _RECORDING, contextlib.suppress(RuntimeError):  # refused after a recording that was broken off
        torch.cuda.empty_cache()
