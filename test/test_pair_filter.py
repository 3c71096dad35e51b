"""The pairing as a message filter, and the stock policies against the real ``message_filters`` if it is installed.

To run the latter without a ROS installation, put ``src/message_filters`` of ros2/message_filters (branch jazzy) on
PYTHONPATH.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairing_reference import MS, START, brute_force

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE
from textdifuse_ros.sync.filters import PairFilter, SimpleFilter
from textdifuse_ros.sync.outcome import (
    COUNTERPART_MISSING,
    LATE,
    SAME_STAMP,
    TIME_JUMP,
    ZERO_STAMP,
    Outcome,
)
from textdifuse_ros.sync.pairing import NearestPairing

try:
    import message_filters
except ImportError:
    message_filters = None

needs_package = pytest.mark.skipif(
    message_filters is None, reason="the package message_filters cannot be imported: its policies are not tested"
)


def message(stamp_ns: int, name: Any = None) -> SimpleNamespace:
    sec, nanosec = divmod(stamp_ns, 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)), name=name)


class Cameras:
    """Two filters that feed a pair filter, and its results."""

    def __init__(self, pairing: Any = None, source: Any = SimpleFilter, **options: Any) -> None:
        self.sources = {stream: source() for stream in SENSORS}
        self.filter: PairFilter[Any] = PairFilter(
            list(self.sources.values()), pairing or NearestPairing(20 * MS), **options
        )
        self.pairs: list[tuple[Any, Any]] = []
        self.outcomes: list[Outcome[Any]] = []
        self.filter.registerCallback(lambda v, i: self.pairs.append((v.name, i.name)))
        self.filter.when_settled(self.outcomes.append)
        self.sent = dict.fromkeys(SENSORS, 0)

    def send(self, stream: str, stamp_ns: int) -> None:
        number = self.sent[stream]
        self.sent[stream] += 1  # before, since a callback may send more
        self.sources[stream].signalMessage(message(stamp_ns, number))

    def both(self, stamp_ns: int) -> None:
        for stream in SENSORS:
            self.send(stream, stamp_ns)

    def reasons(self, stream: str) -> dict[str, int]:
        return dict(self.filter.counters(stream).dropped)

    def check_counters(self) -> None:
        for stream in SENSORS:
            own = self.filter.counters(stream)
            assert own.received == self.sent[stream] == own.paired + sum(own.dropped.values()) + own.waiting
            assert own.paired == len(self.pairs)
            dropped = sum(drop.stream == stream for outcome in self.outcomes for drop in outcome.drops)
            assert dropped == sum(own.dropped.values())


def test_callbacks_get_both_messages_and_their_own_arguments():
    cameras, got = Cameras(), []
    connection = cameras.filter.registerCallback(lambda *given: got.append(given), "a", 2)
    assert connection == 1
    first, second = message(START), message(START)
    cameras.sources[VISIBLE].signalMessage(first)
    cameras.sources[INFRARED].signalMessage(second)
    assert got == [(first, second, "a", 2)]


@settings(max_examples=150, deadline=None)
@given(
    visible=st.lists(st.integers(0, 120), max_size=12),
    infrared=st.lists(st.integers(0, 120), max_size=12),
    tolerance=st.integers(0, 40),
    offsets=st.tuples(st.integers(-50, 50), st.integers(-50, 50)),
    order=st.randoms(use_true_random=False),
)
def test_the_filter_pairs_by_the_definition_with_any_offsets(visible, infrared, tolerance, offsets, order):
    visible, infrared = ([START + at * MS for at in sorted(stamps)] for stamps in (visible, infrared))
    shifts = dict(zip(SENSORS, (offset * MS for offset in offsets), strict=True))
    pairing = NearestPairing(tolerance * MS, shifts, queue=100, wait_ns=10**9, anticipate=False)
    now = [0]
    cameras = Cameras(pairing, clock=lambda: now[0])
    arrivals = [VISIBLE] * len(visible) + [INFRARED] * len(infrared)
    order.shuffle(arrivals)
    waiting = {VISIBLE: iter(visible), INFRARED: iter(infrared)}
    for stream in arrivals:
        cameras.send(stream, next(waiting[stream]))
    now[0] = 10**9
    cameras.filter.poll()
    moved = ([at + shifts[VISIBLE] for at in visible], [at + shifts[INFRARED] for at in infrared])
    assert cameras.pairs == brute_force(*moved, tolerance * MS)
    cameras.check_counters()


@settings(max_examples=60, deadline=None)
@given(
    laps=st.lists(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=8), min_size=1,
                  max_size=4)
)  # fmt: skip
def test_each_lap_of_a_loop_is_paired_by_the_definition(laps):
    """Every image is followed by its counterpart, so that every pair is decided when time jumps back."""
    cameras = Cameras(NearestPairing(8 * MS, anticipate=False))
    expected, count = [], 0
    for lap in laps:
        begin = START + 10**9
        stamps = [(begin + n * 40 * MS + a * MS, begin + n * 40 * MS + b * MS) for n, (a, b) in enumerate(lap)]
        for left, right in stamps:
            cameras.send(VISIBLE, left)
            cameras.send(INFRARED, right)
        cameras.both(begin + len(lap) * 40 * MS)  # equal stamps decide all earlier images
        pairs = brute_force([left for left, _ in stamps], [right for _, right in stamps], 8 * MS)
        expected += [(count + v, count + i) for v, i in [*pairs, (len(lap), len(lap))]]
        count += len(lap) + 1
        cameras.both(begin + 5 * 10**9)  # the end of the recording is far away
        expected.append((count, count))
        count += 1
    assert cameras.pairs == expected
    assert all(set(cameras.reasons(stream)) <= {TIME_JUMP} for stream in SENSORS)
    cameras.check_counters()


@pytest.mark.parametrize("handled", [False, True])
def test_a_callback_that_raises_blocks_nothing_and_the_others_are_called(handled):
    report: list[Exception] = []
    cameras = Cameras(on_error=report.append if handled else None)

    def fail(visible: Any, infrared: Any) -> None:
        raise RuntimeError("callback")

    cameras.filter.registerCallback(fail)
    after: list[Any] = []
    cameras.filter.registerCallback(lambda v, i: after.append(v.name))
    for number in range(3):
        cameras.send(VISIBLE, START + number * 33 * MS)
        if handled:
            cameras.send(INFRARED, START + number * 33 * MS)
        else:
            with pytest.raises(RuntimeError, match="callback"):
                cameras.send(INFRARED, START + number * 33 * MS)
    assert cameras.pairs == [(0, 0), (1, 1), (2, 2)] and after == [0, 1, 2]
    assert cameras.filter.errors == 3 and len(report) == (3 if handled else 0)
    cameras.check_counters()


def test_the_filter_works_after_an_interrupt_in_a_callback():
    cameras = Cameras()
    interrupts = [KeyboardInterrupt()]

    def interrupt(visible: Any, infrared: Any) -> None:
        if interrupts:
            raise interrupts.pop()

    cameras.filter.registerCallback(interrupt)
    with pytest.raises(KeyboardInterrupt):
        cameras.both(START)
    cameras.both(START + 33 * MS)
    assert len(cameras.pairs) == 2


def test_a_callback_may_add_messages_and_order_is_kept():
    cameras = Cameras()

    def feed(visible: Any, infrared: Any) -> None:
        if visible.name < 5:
            cameras.both(START + (visible.name + 1) * 33 * MS)

    cameras.filter.registerCallback(feed)
    cameras.both(START)
    assert cameras.pairs == [(n, n) for n in range(6)]


def test_messages_of_several_threads_give_every_pair_once_and_in_order():
    cameras = Cameras(NearestPairing(5 * MS, queue=1000, wait_ns=10**12, anticipate=False))

    def feed(stream: str) -> None:
        for number in range(300):
            cameras.send(stream, START + number * 33 * MS)

    threads = [threading.Thread(target=feed, args=(stream,)) for stream in SENSORS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert cameras.pairs == [(n, n) for n in range(300)]
    cameras.check_counters()


def test_refused_messages_are_counted_and_not_paired():
    cameras = Cameras()
    cameras.filter.refuse(message(START), VISIBLE, "disabled")
    cameras.sent[VISIBLE] += 1
    cameras.send(INFRARED, START)
    assert cameras.pairs == [] and cameras.reasons(VISIBLE) == {"disabled": 1}
    cameras.check_counters()


def test_a_clock_that_jumps_back_drops_images_ahead_of_it_and_keeps_the_new_lap():
    cameras = Cameras()
    cameras.send(VISIBLE, START)
    cameras.filter.settle(lambda pairing: pairing.rewind(START - 5 * 10**9))
    assert cameras.reasons(VISIBLE) == {TIME_JUMP: 1}
    cameras.send(VISIBLE, START - 5 * 10**9)  # the image overtakes the clock
    cameras.filter.settle(lambda pairing: pairing.rewind(START - 5 * 10**9))
    cameras.send(INFRARED, START - 5 * 10**9)
    assert cameras.pairs == [(1, 0)]


# ---- the real package


@needs_package
@pytest.mark.parametrize("size", [1, 3])
def test_filters_of_message_filters_are_accepted_as_inputs(size):
    """A Cache, whose input is the package's SimpleFilter, the base class of its Subscriber."""
    pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")
    from builtin_interfaces.msg import Time

    cameras = Cameras(source=message_filters.SimpleFilter)
    caches = [message_filters.Cache(source, size) for source in cameras.sources.values()]
    behind: PairFilter[Any] = PairFilter(caches, NearestPairing(20 * MS))
    got: list[Any] = []
    behind.registerCallback(lambda v, i: got.append((v.name, i.name)))
    for number in range(5):
        for stream in SENSORS:
            sec, nanosec = divmod(START + number * 33 * MS, 10**9)
            header = SimpleNamespace(stamp=Time(sec=sec, nanosec=nanosec))
            cameras.sources[stream].signalMessage(SimpleNamespace(header=header, name=number))
    assert got == cameras.pairs == [(n, n) for n in range(5)]


def stock(policy: str, **options: Any) -> Any:
    pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")
    from textdifuse_ros.nodes.stock_pairing import StockPairing

    return StockPairing(policy, 20 * MS, **options)


@needs_package
def test_exact_pairs_only_stamps_that_are_equal_after_the_offset():
    cameras = Cameras(stock("exact", offsets_ns={INFRARED: -40 * MS}))
    for n in range(6):
        cameras.send(VISIBLE, START + n * 33 * MS)
        cameras.send(INFRARED, START + n * 33 * MS + 40 * MS + (n == 3))
    assert cameras.pairs == [(n, n) for n in range(6) if n != 3]
    cameras.check_counters()


@needs_package
@settings(max_examples=100, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from(SENSORS), st.integers(0, 400), st.integers(0, 60)), min_size=1, max_size=50
    )
)
def test_approximate_pairs_like_the_synchronizer_of_message_filters(arrivals):
    """Without zero stamps, jumps back by more than half a second, and waiting, the pairs are identical."""
    from builtin_interfaces.msg import Time

    sources = [message_filters.SimpleFilter() for _ in SENSORS]
    original, expected = message_filters.ApproximateTimeSynchronizer(sources, 10, 0.02), []
    original.registerCallback(lambda v, i: expected.append((v.name, i.name)))
    cameras = Cameras(stock("approximate", wait_ns=10**18), clock=lambda: 0)
    for stream, at, _ in arrivals:
        sec, nanosec = divmod(START + at * MS, 10**9)
        header = SimpleNamespace(stamp=Time(sec=sec, nanosec=nanosec))
        one = SimpleNamespace(header=header, name=cameras.sent[stream])
        sources[SENSORS.index(stream)].signalMessage(one)
        cameras.send(stream, START + at * MS)
        cameras.check_counters()
    assert cameras.pairs == expected


@needs_package
@pytest.mark.parametrize("policy", ["exact", "approximate"])
def test_stock_policies_get_zero_stamps_loops_waiting_and_counters(policy):
    now = [0]
    cameras = Cameras(stock(policy, queue=3, wait_ns=100 * MS), clock=lambda: now[0])
    cameras.both(0)
    assert cameras.pairs == [] and cameras.reasons(VISIBLE) == {ZERO_STAMP: 1}
    for lap in range(3):
        for n in range(20):
            cameras.both(START + n * 33 * MS)
        cameras.send(VISIBLE, START + 20 * 33 * MS)
        assert len(cameras.pairs) == 20 * (lap + 1), "every lap gives as many"
    assert cameras.reasons(VISIBLE)[TIME_JUMP] == 2
    for n in range(21, 26):
        cameras.send(VISIBLE, START + n * 33 * MS)
    assert cameras.reasons(VISIBLE)[COUNTERPART_MISSING] == 3, "the queue is bounded"
    cameras.send(VISIBLE, START + 25 * 33 * MS)
    assert cameras.reasons(VISIBLE)[SAME_STAMP] == 1
    now[0] = 100 * MS
    cameras.filter.poll()
    assert cameras.filter.counters(VISIBLE).waiting == 0
    cameras.check_counters()


@needs_package
def test_the_tolerance_of_the_stock_policy_may_change():
    pairing = stock("approximate")
    cameras = Cameras(pairing)
    cameras.send(VISIBLE, START)
    cameras.send(INFRARED, START + 25 * MS)
    assert cameras.pairs == []
    pairing.tolerance_ns = 30 * MS
    cameras.send(VISIBLE, START + 100 * MS)
    cameras.send(INFRARED, START + 125 * MS)
    assert cameras.pairs == [(1, 1)]


def test_without_message_filters_a_stock_policy_is_refused_by_name(monkeypatch):
    pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")
    from textdifuse_ros.nodes import stock_pairing, subscriptions

    monkeypatch.setattr(stock_pairing, "message_filters", None)
    with pytest.raises(ConfigError, match="synchronizer must be nearest where message_filters is not installed"):
        subscriptions.make_pairing(FusionNodeConfig(synchronizer="approximate"))
    assert isinstance(subscriptions.make_pairing(FusionNodeConfig()), NearestPairing)


def test_the_nearest_policy_drops_late_images_once_their_pair_is_released():
    cameras = Cameras()
    for n in range(5):
        cameras.both(START + n * 33 * MS)
    cameras.send(VISIBLE, START + 10 * MS)
    assert cameras.reasons(VISIBLE) == {LATE: 1}
