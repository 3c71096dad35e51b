"""Pairing of whole recordings by the definition, without losses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairing_reference import MS, brute_force

from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE
from textdifuse_ros.sync.outcome import UNMATCHED, ZERO_STAMP
from textdifuse_ros.sync.recorded import RecordedPairs, pair_recording
from textdifuse_ros.sync.stamps import StampSeries

START = 10**15


def _series(stamps_ms: list[float], latency_ms: float = 5.0) -> StampSeries:
    stamps = np.array([START + round(stamp * MS) for stamp in stamps_ms], np.int64)
    return StampSeries(stamps, stamps + round(latency_ms * MS))


def _indices(found: RecordedPairs) -> list[tuple[int, int]]:
    return [(pair.visible, pair.infrared) for pair in found.pairs]


@settings(max_examples=150, deadline=None)
@given(
    visible=st.lists(st.integers(0, 400), max_size=14, unique=True),
    infrared=st.lists(st.integers(0, 400), max_size=14, unique=True),
    tolerance=st.integers(0, 60),
    latency=st.integers(0, 300),
)
def test_the_pairs_are_those_of_the_definition(
    visible: list[int], infrared: list[int], tolerance: int, latency: int
) -> None:
    """Independent of the order of recording: messages of one camera may be recorded long after the other's."""
    visible, infrared = sorted(visible), sorted(infrared)
    found = pair_recording(
        _series([float(v) for v in visible]), _series([float(i) for i in infrared], latency), tolerance * MS, {}
    )
    assert _indices(found) == brute_force(visible, infrared, tolerance)
    for stream, count in ((VISIBLE, len(visible)), (INFRARED, len(infrared))):
        assert count == len(found.pairs) + sum(found.dropped[stream].values())


@settings(max_examples=60, deadline=None)
@given(laps=st.integers(1, 4), count=st.integers(1, 12), skew=st.integers(-12, 12), first=st.booleans())
def test_every_lap_of_a_loop_gives_all_its_pairs(laps: int, count: int, skew: int, first: bool) -> None:
    """Including the last pair of each lap, which a node may lose at the jump; either camera may jump first."""
    lap = [index * 100.0 for index in range(10 * count)]
    arrivals = [START + round((n * (len(lap) * 100.0 + 40) + at) * MS) for n in range(laps) for at in lap]
    visible = StampSeries(np.array([START + round(at * MS) for _ in range(laps) for at in lap]), np.array(arrivals))
    infrared = StampSeries(visible.stamps_ns + skew * MS, visible.arrived_ns + (30 * MS if first else -30 * MS))
    found = pair_recording(visible, infrared, 20 * MS, {})
    assert _indices(found) == [(n, n) for n in range(laps * len(lap))]
    assert {pair.difference_ns for pair in found.pairs} == {skew * MS}


def test_after_one_clock_is_set_back_matching_stamps_still_pair() -> None:
    """The clock of the visible camera jumps back by 2 s at its tenth image, that of the infrared camera does not."""
    good = [index * 100.0 for index in range(40)]
    visible = StampSeries(_series([at if at < 1000 else at - 2000 for at in good]).stamps_ns, _series(good).arrived_ns)
    found = pair_recording(visible, _series(good), 20 * MS, {})
    assert _indices(found)[:10] == [(n, n) for n in range(10)]


def test_a_silent_camera_loses_only_its_own_pairs() -> None:
    visible = [index * 33.0 for index in range(3000)]
    infrared = [at for at in visible if at < 20_000 or at > 80_000]
    found = pair_recording(_series(visible), _series(infrared), 10 * MS, {})
    assert len(found.pairs) == len(infrared)
    assert found.dropped == {VISIBLE: Counter({UNMATCHED: 3000 - len(infrared)}), INFRARED: Counter()}


@pytest.mark.parametrize("offset", [-40, 40])
def test_offsets_are_added_before_pairing(offset: int) -> None:
    visible = _series([100.0 * n for n in range(5)])
    infrared = _series([100.0 * n - offset for n in range(5)])
    assert not pair_recording(visible, infrared, 10 * MS, {}).pairs
    found = pair_recording(visible, infrared, 10 * MS, {INFRARED: offset * MS})
    assert _indices(found) == [(n, n) for n in range(5)] and {pair.difference_ns for pair in found.pairs} == {0}


def test_zero_stamps_are_in_no_pair_and_counted() -> None:
    zero = StampSeries(np.array([0, START], np.int64), np.array([START, START + 1], np.int64))
    found = pair_recording(zero, zero, 10 * MS, {})
    assert _indices(found) == [(1, 1)]
    assert all(found.dropped[stream] == Counter({ZERO_STAMP: 1}) for stream in SENSORS)


def test_small_steps_back_are_sorted_and_lose_nothing() -> None:
    order = [0, 2, 1, 4, 3]
    stamps = np.array([START + n * 100 * MS for n in order], np.int64)
    arrived = np.array([START + n * 100 * MS for n in range(5)], np.int64)
    found = pair_recording(StampSeries(stamps, arrived), _series([100.0 * n for n in range(5)]), 10 * MS, {})
    assert _indices(found) == [(order.index(n), n) for n in range(5)]
