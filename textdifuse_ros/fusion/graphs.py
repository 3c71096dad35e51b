"""CUDA graphs: what a picture takes again and again is launched as one.

At the size of a camera's picture a GPU needs less time for its hundreds of small operations than a processor for
launching them one by one.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

MOST = 8
"""Graphs that are kept; each one holds the memory of its computation."""

WARM_UP = 2
"""Runs before the recording, in which libraries choose their algorithms and allocate what they keep."""


class _Graph:
    """One recorded computation.

    :param work: takes tensors of always the same sizes; waits for nothing and copies nothing from the host
    :param inputs: examples of what it takes
    """

    def __init__(self, work: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
        # With all that it holds: the graph reads from where that lay when it was recorded.
        self._work = work
        self._inputs = tuple(item.clone() for item in inputs)
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                work(*self._inputs)
        here.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # Another thread, the localizer's, may go on using the device meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = work(*self._inputs)

    def __call__(self, inputs: tuple[Tensor, ...]) -> Any:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._outputs


class Graphs:
    """The recorded computations of one CUDA device; one caller at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._met: deque[Hashable] = deque(maxlen=4 * MOST)
        self._failed: set[Hashable] = set()

    def __call__(self, key: Hashable, work: Callable[[], Callable[..., Any]], inputs: tuple[Tensor, ...]) -> Any:
        """Do the work that goes by this key; the first time not at all, for pictures may have a size each.

        :param key: what the computation hangs on, beside the inputs' values
        :param work: makes what is recorded, see :class:`_Graph`
        :return: what the work returns, overwritten the next time; None the first time that the key is met, and where
            it cannot be recorded (a warning says why): for want of memory, mostly, of which a graph takes more
        """
        with torch.cuda.device(self._device):
            if key not in self._graphs and not self._record(key, work, inputs):
                return None
            self._graphs.move_to_end(key)
            return self._graphs[key](inputs)

    def _record(self, key: Hashable, work: Callable[[], Callable[..., Any]], inputs: tuple[Tensor, ...]) -> bool:
        if key in self._failed:
            return False
        if key not in self._met:
            self._met.append(key)
            return False
        while len(self._graphs) >= MOST:
            self._graphs.popitem(last=False)
        try:
            self._graphs[key] = _Graph(work(), inputs)
        except RuntimeError as error:
            self._failed.add(key)
            reason = str(error).partition("\n")[0]
            warnings.warn(f"no CUDA graph of a picture, it goes on operation by operation: {reason}", stacklevel=2)
        if key in self._failed:
            # Only here, where the error no longer keeps its tensors alive.
            self.clear()
            torch.cuda.empty_cache()
        return key in self._graphs

    def clear(self) -> None:
        """Forget all graphs, and so give their memory back to PyTorch."""
        self._graphs.clear()
        self._met.clear()
