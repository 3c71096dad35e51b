"""Nearest-stamp pairing, against the definition by brute force and case by case."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairing_reference import MS, START, brute_force

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.sensors import INFRARED, VISIBLE
from textdifuse_ros.sync.outcome import (
    COUNTERPART_MISSING,
    LATE,
    TIME_JUMP,
    UNMATCHED,
    ZERO_STAMP,
    Outcome,
)
from textdifuse_ros.sync.pairing import NearestPairing


class Feed:
    """Feeds a pairing and collects its pairs and drops; items are (stream, number)."""

    def __init__(self, matcher: NearestPairing[tuple[str, int]]) -> None:
        self.matcher = matcher
        self.pairs: list[tuple[int, int]] = []
        self.differences: list[int] = []
        self.drops: list[tuple[str, int, str]] = []
        self.numbers = {VISIBLE: 0, INFRARED: 0}

    def add(self, stream: str, stamp_ns: int, now_ns: int = 0) -> int:
        """Add an image; returns the number of released pairs."""
        number = self.numbers[stream]
        self.numbers[stream] += 1
        return self.take(self.matcher.add(stream, stamp_ns, (stream, number), now_ns))

    def poll(self, now_ns: int) -> int:
        return self.take(self.matcher.poll(now_ns))

    def take(self, outcome: Outcome[tuple[str, int]]) -> int:
        for pair in outcome.pairs:
            assert (pair.visible[0], pair.infrared[0]) == (VISIBLE, INFRARED)
            self.pairs.append((pair.visible[1], pair.infrared[1]))
            self.differences.append(pair.difference_ns)
        self.drops += [(drop.stream, drop.item[1], drop.reason) for drop in outcome.drops]
        assert all(drop.item[0] == drop.stream for drop in outcome.drops)
        self.check_counters()
        return len(outcome.pairs)

    def check_counters(self) -> None:
        for stream in (VISIBLE, INFRARED):
            counters = self.matcher.counters(stream)
            assert counters.received == self.numbers[stream]
            assert counters.received == counters.paired + sum(counters.dropped.values()) + counters.waiting
            assert counters.paired == len(self.pairs)
            assert sum(counters.dropped.values()) == sum(drop[0] == stream for drop in self.drops)

    def reasons(self, stream: str) -> dict[str, int]:
        return dict(self.matcher.counters(stream).dropped)


def rising(limit: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, limit), max_size=14).map(lambda steps: [START + t * MS for t in sorted(steps)])


@settings(max_examples=400, deadline=None)
@given(
    visible=rising(120),
    infrared=rising(120),
    tolerance=st.integers(0, 40),
    order=st.randoms(use_true_random=False),
)
def test_without_anticipation_any_interleaving_gives_the_pairs_of_the_definition(visible, infrared, tolerance, order):
    feed = Feed(NearestPairing(tolerance * MS, queue=100, wait_ns=10**9, anticipate=False))
    arrivals = [VISIBLE] * len(visible) + [INFRARED] * len(infrared)
    order.shuffle(arrivals)
    waiting = {VISIBLE: iter(visible), INFRARED: iter(infrared)}
    for stream in arrivals:
        feed.add(stream, next(waiting[stream]))
    feed.poll(10**9)
    assert feed.pairs == brute_force(visible, infrared, tolerance * MS)
    assert feed.matcher.counters(VISIBLE).waiting == feed.matcher.counters(INFRARED).waiting == 0


@settings(max_examples=200, deadline=None)
@given(
    period=st.integers(20, 100),
    shift=st.integers(-9, 9),
    jitter=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=8, max_size=30),
    lost=st.sets(st.tuples(st.booleans(), st.integers(5, 29))),
)
def test_with_anticipation_cameras_of_one_rate_give_the_pairs_of_the_definition(period, shift, jitter, lost):
    visible = [START + (n * period + a) * MS for n, (a, _) in enumerate(jitter) if (True, n) not in lost]
    infrared = [START + (n * period + shift + b) * MS for n, (_, b) in enumerate(jitter) if (False, n) not in lost]
    feed = Feed(NearestPairing(10 * MS, queue=10, wait_ns=10**9))
    for stamp, stream in sorted([(t, VISIBLE) for t in visible] + [(t, INFRARED) for t in infrared]):
        feed.add(stream, stamp)
    feed.poll(10**9)
    assert feed.pairs == brute_force(visible, infrared, 10 * MS)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([VISIBLE, INFRARED]),
            st.one_of(st.integers(-2, 3), st.integers(START // MS, START // MS + 5000)),
            st.integers(0, 300),
        ),
        max_size=60,
    )
)
def test_for_any_input_counters_are_consistent_and_pairs_keep_order_and_tolerance(arrivals):
    feed = Feed(NearestPairing(15 * MS, offsets_ns={INFRARED: -3 * MS, VISIBLE: 2 * MS}, queue=4, wait_ns=200 * MS))
    now = 0
    for stream, stamp, pause in arrivals:
        now += pause * MS
        feed.add(stream, stamp * MS, now)
        for counted in (VISIBLE, INFRARED):
            assert feed.matcher.counters(counted).waiting <= 4
    assert all(abs(difference) <= 15 * MS for difference in feed.differences)
    assert len({v for v, _ in feed.pairs}) == len({i for _, i in feed.pairs}) == len(feed.pairs)
    feed.take(feed.matcher.reset("closing"))
    assert feed.matcher.counters(VISIBLE).waiting == feed.matcher.counters(INFRARED).waiting == 0


def play(feed: Feed, count: int, period: int = 33, shift: int = 13, start: int = START) -> list[int]:
    """Feed two cameras in the order of their stamps; returns the number of pairs released by each infrared image."""
    released = []
    for n in range(count):
        feed.add(VISIBLE, start + n * period * MS)
        released.append(feed.add(INFRARED, start + (n * period + shift) * MS))
    return released


def test_a_pair_is_released_with_its_second_image_once_the_rate_is_known():
    feed = Feed(NearestPairing(20 * MS))
    assert play(feed, 10) == [0, 0, 0, *[1] * 7]
    assert feed.pairs == [(n, n) for n in range(10)]


def test_equal_stamps_pair_immediately():
    feed = Feed(NearestPairing(20 * MS))
    assert play(feed, 5, shift=0) == [1] * 5


def test_a_counterpart_is_not_taken_while_a_nearer_one_may_still_come():
    feed = Feed(NearestPairing(25 * MS))
    play(feed, 5)
    base = START + 5 * 33 * MS
    assert feed.add(INFRARED, base) == 0  # 20 ms after the last visible one, which is taken
    assert feed.add(VISIBLE, base + 13 * MS) == 0 or feed.differences[-1] == -13 * MS
    feed.add(INFRARED, base + 33 * MS)
    assert feed.differences[-1] == -13 * MS  # not +20


def test_a_wrong_counterpart_within_tolerance_gives_way_to_the_nearer_one():
    feed = Feed(NearestPairing(25 * MS))
    feed.add(INFRARED, START)
    assert feed.add(VISIBLE, START + 20 * MS) == 0
    feed.add(INFRARED, START + 33 * MS)
    assert feed.add(VISIBLE, START + 53 * MS) == 1
    assert feed.pairs == [(0, 1)]
    assert feed.reasons(INFRARED) == {UNMATCHED: 1}


def test_a_slower_infrared_camera_takes_the_nearest_visible_images():
    visible = [START + n * 33 * MS for n in range(40)]
    infrared = [START + (5 + n * 111) * MS for n in range(12)]
    feed = Feed(NearestPairing(17 * MS, queue=10))
    for stamp, stream in sorted([(t, VISIBLE) for t in visible] + [(t, INFRARED) for t in infrared]):
        feed.add(stream, stamp)
    feed.poll(10**9)
    assert feed.pairs == brute_force(visible, infrared, 17 * MS)
    assert len(feed.pairs) == 12
    assert feed.reasons(VISIBLE)[UNMATCHED] >= 25


def test_the_last_pair_is_released_by_the_clock():
    feed = Feed(NearestPairing(20 * MS, wait_ns=500 * MS))
    feed.add(VISIBLE, START, 0)
    assert feed.add(INFRARED, START + 13 * MS, 13 * MS) == 0
    assert feed.poll(400 * MS) == 0
    assert feed.poll(500 * MS) == 1


def test_images_of_a_camera_whose_counterpart_is_silent_drop_from_a_bounded_queue():
    feed = Feed(NearestPairing(20 * MS, queue=3, wait_ns=10**12))
    for n in range(10):
        feed.add(VISIBLE, START + n * 33 * MS)
    assert feed.reasons(VISIBLE) == {COUNTERPART_MISSING: 7}
    assert feed.matcher.counters(VISIBLE).waiting == 3


def test_an_image_without_counterpart_is_dropped_after_the_wait():
    feed = Feed(NearestPairing(20 * MS, wait_ns=100 * MS))
    feed.add(VISIBLE, START, 0)
    feed.poll(99 * MS)
    assert feed.drops == []
    feed.poll(100 * MS)
    assert feed.drops == [(VISIBLE, 0, COUNTERPART_MISSING)]


@pytest.mark.parametrize("stamp", [0, -5])
def test_zero_stamps_are_dropped_and_do_not_pair(stamp):
    feed = Feed(NearestPairing(20 * MS))
    feed.add(VISIBLE, stamp)
    feed.add(INFRARED, stamp)
    assert feed.pairs == []
    assert feed.reasons(VISIBLE) == feed.reasons(INFRARED) == {ZERO_STAMP: 1}
    assert play(feed, 4)[-1] == 1


def test_the_offset_is_added_to_infrared_stamps():
    feed = Feed(NearestPairing(2 * MS, offsets_ns={INFRARED: -40 * MS}))
    feed.add(VISIBLE, START)
    feed.add(INFRARED, START + 40 * MS)
    assert feed.differences == [0]


def test_a_change_of_the_offset_drops_waiting_images():
    feed = Feed(NearestPairing(2 * MS))
    feed.add(VISIBLE, START)
    feed.take(feed.matcher.set_offsets({INFRARED: -40 * MS}, "reconfigured"))
    assert feed.reasons(VISIBLE) == {"reconfigured": 1}
    feed.add(VISIBLE, START + 33 * MS)
    assert feed.add(INFRARED, START + 73 * MS) == 1


@pytest.mark.parametrize("leader", [VISIBLE, INFRARED])
@pytest.mark.parametrize("lag", [0, 1, 3])
def test_each_lap_of_a_loop_gives_as_many_pairs(leader, lag):
    """The other stream is some images behind, and still sends those of the old lap after the reset."""
    follower = INFRARED if leader == VISIBLE else VISIBLE
    feed = Feed(NearestPairing(20 * MS))
    laps, length = 4, 60
    stamps = {stream: [START + (n % length * 33 + shift) * MS for n in range(laps * length)]
              for stream, shift in ((VISIBLE, 0), (INFRARED, 13))}  # fmt: skip
    for n in range(laps * length + lag):
        if n < laps * length:
            feed.add(leader, stamps[leader][n])
        if n >= lag:
            feed.add(follower, stamps[follower][n - lag])
    feed.poll(10**9)
    ends = laps - 1
    # Lost at each end: the pair whose first half waited for a better one, and those whose other half was behind.
    assert len(feed.pairs) >= laps * length - ends * (lag + 1)
    assert set(feed.reasons(VISIBLE)) | set(feed.reasons(INFRARED)) <= {TIME_JUMP}
    assert all(v == i for v, i in feed.pairs)


def test_a_loop_whose_last_image_is_lost_is_still_reset():
    feed = Feed(NearestPairing(20 * MS))
    play(feed, 60)
    feed.add(VISIBLE, START)
    feed.add(VISIBLE, START + 33 * MS)
    feed.add(INFRARED, START + 46 * MS)
    assert play(feed, 58, start=START + 66 * MS)[-1] == 1
    assert len(feed.pairs) >= 60 + 57


def test_a_camera_whose_clock_is_set_back_pairs_again_when_its_stamps_match():
    feed = Feed(NearestPairing(20 * MS))
    for n in range(10):  # the visible clock runs an hour ahead
        feed.add(VISIBLE, START + (3_600_000 + n * 33) * MS)
        feed.add(INFRARED, START + (n * 33 + 5) * MS)
    assert feed.pairs == []
    play(feed, 10, shift=5, start=START + 330 * MS)
    assert len(feed.pairs) >= 9


def test_a_small_step_back_is_a_late_message_not_a_loop():
    feed = Feed(NearestPairing(20 * MS))
    play(feed, 10)
    feed.add(VISIBLE, START + 5 * 33 * MS)
    assert feed.drops == [(VISIBLE, 10, LATE)]
    assert play(feed, 5, start=START + 330 * MS) == [1] * 5
    assert TIME_JUMP not in feed.reasons(INFRARED)


def test_messages_in_the_wrong_order_are_still_paired():
    feed = Feed(NearestPairing(20 * MS))
    play(feed, 10)
    t = START + 330 * MS
    feed.add(VISIBLE, t + 33 * MS)
    feed.add(VISIBLE, t)
    feed.add(INFRARED, t + 13 * MS)
    feed.add(INFRARED, t + 46 * MS)
    assert feed.pairs[-2:] == [(11, 10), (10, 11)]


def test_a_jump_forward_of_both_cameras_loses_at_most_the_waiting_images():
    feed = Feed(NearestPairing(20 * MS))
    play(feed, 10)
    assert sum(play(feed, 10, start=START + 10**6 * MS)) >= 9


def test_a_drop_reports_the_nearest_stamp_of_the_other_stream() -> None:
    pairing: NearestPairing[str] = NearestPairing(20_000_000, {INFRARED: 5_000_000})
    drops = []
    for index in range(4):
        stamp = 10**9 + index * 100_000_000
        for stream, at in ((VISIBLE, stamp), (INFRARED, stamp + 35_000_000)):
            drops += pairing.add(stream, at, "", stamp).drops
    visible = [drop for drop in drops if drop.stream == VISIBLE]
    assert len(visible) == 4 and {drop.nearest_ns for drop in visible} == {40_000_000}, "with the offset"
    infrared = [drop for drop in drops if drop.stream == INFRARED]
    assert infrared and {drop.nearest_ns for drop in infrared} == {40_000_000}, "the same sign for either"


def test_a_drop_reports_no_nearest_stamp_if_the_other_stream_is_empty() -> None:
    pairing: NearestPairing[str] = NearestPairing(20_000_000, wait_ns=10)
    pairing.add(VISIBLE, 10**9, "", 0)
    (drop,) = pairing.poll(10).drops
    assert drop.reason == COUNTERPART_MISSING and drop.nearest_ns is None


def test_a_late_image_reports_how_late_it_is() -> None:
    pairing: NearestPairing[str] = NearestPairing(20_000_000)
    for stamp in (10**9, 10**9 + 100_000_000):
        pairing.add(INFRARED, stamp, "", 0)
        pairing.add(VISIBLE, stamp, "", 0)
    pairing.poll(10**12)
    (drop,) = pairing.add(VISIBLE, 10**9 + 30_000_000, "", 10**12).drops
    assert (drop.reason, drop.behind_ns) == (LATE, 70_000_000)


def test_with_the_node_defaults_a_camera_may_be_late_by_most_of_pairing_wait_at_30_hz():
    config = FusionNodeConfig()
    late = round(0.9e9 * config.pairing_wait)
    feed = Feed(NearestPairing(20 * MS, None, config.pairing_queue, round(1e9 * config.pairing_wait)))
    arrivals = [(n * 33 * MS, VISIBLE, n) for n in range(90)] + [(n * 33 * MS + late, INFRARED, n) for n in range(90)]
    for now, stream, n in sorted(arrivals):
        feed.add(stream, START + n * 33 * MS, now)
    assert len(feed.pairs) == 90 and feed.drops == []
