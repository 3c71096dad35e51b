"""The cache of CUDA graphs, with CUDA's own calls left out: what is captured, kept, evicted, and given up."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from unittest.mock import MagicMock

import pytest
import torch

from textdifuse_ros.diffusion.samplers import NoiseTape
from textdifuse_ros.diffusion.samplers.base import draw_noise
from textdifuse_ros.fusion.graphs import CAPACITY, IDLE_CALLS, Graphs


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    """With CUDA's own calls left out, so that a replay does nothing and gives the outputs of the recording."""
    for name in ("current_stream", "Stream", "stream", "CUDAGraph", "graph", "device", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    return Graphs(torch.device("cpu"))


def test_a_graph_keeps_what_its_work_holds(mocked: Graphs) -> None:
    """It would go on reading where that lay."""
    drawn = NoiseTape(torch.Generator().manual_seed(0))
    draw_noise((2, 3), drawn, torch.empty(0))
    held = weakref.ref(drawn)
    inputs = (torch.ones(2, 3),)
    assert mocked.replay("size", list, inputs) is None

    def record(seen: torch.Tensor, *, noise: NoiseTape) -> torch.Tensor:
        return seen + noise.rewound().next((2, 3), seen)

    works = [functools.partial(record, noise=drawn)]
    assert mocked.replay("size", works.pop, inputs) is not None
    del drawn
    gc.collect()
    assert held() is not None
    mocked.clear()
    gc.collect()
    assert held() is None


def test_what_cannot_be_recorded_is_tried_once_and_goes_on_without(mocked: Graphs) -> None:
    """Otherwise every second image would be lost where memory is short."""
    inputs, tries = (torch.ones(2),), []

    def greedy(seen: torch.Tensor) -> torch.Tensor:
        tries.append(seen)
        raise torch.OutOfMemoryError("CUDA out of memory.\nOf what?")

    with pytest.warns(UserWarning, match=r"operation by operation: CUDA out of memory\.$"):
        assert [mocked.replay("large", lambda: greedy, inputs) for _ in range(5)] == [None] * 5
    assert len(tries) == 1
    found = [mocked.replay("small", lambda: torch.neg, inputs) for _ in range(3)]
    assert found[0] is None and all(torch.equal(item, -torch.ones(2)) for item in found[1:])
    with pytest.warns(UserWarning, match="operation by operation"):
        assert [mocked.replay_second("small", lambda _: greedy, inputs) for _ in range(5)] == [None] * 5
    assert len(tries) == 2
    assert mocked.replay("small", lambda: greedy, inputs) is not None  # is not recorded anew
    mocked.clear()
    with pytest.warns(UserWarning, match="operation by operation"):
        # Memory may be free again.
        assert [mocked.replay("large", lambda: greedy, inputs) for _ in range(5)] == [None] * 5
    assert len(tries) == 3


def test_after_a_failure_of_another_kind_nothing_is_recorded(mocked: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("operation not permitted when stream is capturing")

    refusing = MagicMock(side_effect=RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED"))
    monkeypatch.setattr(torch.cuda, "empty_cache", refusing)
    inputs = (torch.ones(2),)
    with pytest.warns(UserWarning, match="not permitted"):
        assert [mocked.replay("one", lambda: wrong, inputs) for _ in range(3)] == [None] * 3
    assert refusing.called
    assert [mocked.replay("other", lambda: torch.neg, inputs) for _ in range(3)] == [None] * 3


def test_what_follows_reads_the_outputs_of_the_first(mocked: Graphs) -> None:
    inputs = (torch.full((2,), 3.0),)
    first = [mocked.replay("size", lambda: torch.neg, inputs) for _ in range(2)][-1]
    second = [mocked.replay_second("size", lambda out: lambda x: (out, out + x), inputs) for _ in range(3)]
    assert all(found[0] is first and torch.equal(found[1], torch.zeros(2)) for found in second)


def test_graphs_are_few_and_more_sizes_than_places_do_not_record_for_ever(mocked: Graphs) -> None:
    inputs, recorded = (torch.ones(2),), []

    def work(key: int) -> Callable[..., torch.Tensor]:
        recorded.append(key)
        return torch.neg

    def ask(key: int) -> bool:
        return mocked.replay(key, lambda: work(key), inputs) is not None

    for _ in range(10):
        for key in range(CAPACITY + 1):
            ask(key)
    assert recorded == list(range(CAPACITY))  # the last one goes on operation by operation
    for _ in range(IDLE_CALLS + 2):
        ask(CAPACITY)
    assert recorded == [*range(CAPACITY), CAPACITY]  # until the others are idle
    assert not ask(0)  # the oldest made room
    assert all(ask(key) for key in range(1, CAPACITY + 1)) and len(recorded) == CAPACITY + 1


def test_what_cannot_be_recorded_takes_no_others_place(mocked: Graphs) -> None:
    inputs = (torch.ones(2),)

    def greedy(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.warns(UserWarning, match="out of memory"):
        for _ in range(2):
            mocked.replay("large", lambda: greedy, inputs)
    for key in range(CAPACITY):
        for _ in range(2):
            mocked.replay(key, lambda: torch.neg, inputs)
    for _ in range(3 * IDLE_CALLS):
        assert mocked.replay("large", lambda: greedy, inputs) is None
    no_work: list[Callable[..., torch.Tensor]] = []
    assert all(mocked.replay(key, no_work.pop, inputs) is not None for key in range(CAPACITY))
