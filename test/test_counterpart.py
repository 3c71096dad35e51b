"""Detection of a missing camera, and when an image is processed alone."""

from __future__ import annotations

import pytest

from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, other_sensor
from textdifuse_ros.sync.counterpart import CounterpartWatch
from textdifuse_ros.sync.outcome import (
    COUNTERPART_MISSING,
    COUNTERPART_SET_BACK,
    LATE,
    TIME_JUMP,
    UNMATCHED,
    ZERO_STAMP,
)
from textdifuse_ros.sync.pairing import NearestPairing

AFTER = 0.5


def arrive(watch: CounterpartWatch, begin: float, end: float, *streams: str, pairs: bool = False) -> None:
    at = begin
    while at < end:
        for stream in streams:
            watch.arrived(stream, at)
        if pairs:
            watch.paired()
        at += 0.1


@pytest.mark.parametrize("dead", SENSORS)
def test_a_camera_that_stops_is_missing_until_the_next_pair(dead):
    watch, alive = CounterpartWatch(), other_sensor(dead)
    arrive(watch, 0, 5, *SENSORS, pairs=True)
    assert watch.missing(5.0, AFTER) == ""
    arrive(watch, 5, 7, alive)
    assert watch.missing(5.2, AFTER) == "", "not at once"
    assert watch.missing(7.0, AFTER) == dead and watch.counterpart_silent(7.0, AFTER)
    assert watch.alone(alive, COUNTERPART_MISSING, 7.0, AFTER)
    assert not watch.alone(dead, COUNTERPART_MISSING, 7.0, AFTER)
    watch.arrived(dead, 7.1)
    assert not watch.counterpart_silent(7.1, AFTER), "it is back: wait for pairs again"
    watch.paired()
    assert watch.missing(7.1, AFTER) == ""


def test_if_nothing_pairs_the_visible_images_are_processed_alone_and_still_wait():
    watch = CounterpartWatch()
    arrive(watch, 0, 3, *SENSORS)
    assert watch.missing(3.0, AFTER) == INFRARED and not watch.counterpart_silent(3.0, AFTER)
    assert watch.alone(VISIBLE, UNMATCHED, 3.0, AFTER) and not watch.alone(INFRARED, UNMATCHED, 3.0, AFTER)


def test_slow_cameras_that_alternate_without_pairs_are_not_silent():
    watch = CounterpartWatch()
    for second in range(6):
        watch.arrived(VISIBLE, second)
        watch.arrived(INFRARED, second + 0.1)
    for at in (5.2, 5.7, 5.9):
        assert watch.missing(at, AFTER) == INFRARED and not watch.silent(VISIBLE, at, AFTER)
        assert watch.alone(VISIBLE, UNMATCHED, at, AFTER) and not watch.alone(INFRARED, UNMATCHED, at, AFTER)


def test_no_camera_is_missing_if_both_are_silent():
    watch = CounterpartWatch()
    arrive(watch, 0, 3, *SENSORS, pairs=True)
    assert watch.missing(10.0, AFTER) == ""


@pytest.mark.parametrize("reason", [ZERO_STAMP, TIME_JUMP, LATE])
def test_images_with_a_bad_stamp_are_never_processed_alone(reason):
    watch = CounterpartWatch()
    arrive(watch, 0, 3, VISIBLE)
    assert not watch.alone(VISIBLE, reason, 3.0, AFTER)


@pytest.mark.parametrize("pause", [1.0, 60.0])
def test_cameras_that_are_slow_or_pause_together_are_not_missing(pause):
    watch = CounterpartWatch()
    for n in range(5):
        watch.arrived(VISIBLE, n * pause)
        assert watch.missing(n * pause, AFTER) == "" and not watch.counterpart_silent(n * pause, AFTER)
        watch.arrived(INFRARED, n * pause + 0.01)
        watch.paired()


def test_restart_forgets_earlier_images():
    watch = CounterpartWatch()
    arrive(watch, 0, 3, VISIBLE)
    watch.restart()
    arrive(watch, 3, 3.3, VISIBLE)
    assert watch.missing(3.3, AFTER) == ""


@pytest.mark.parametrize("moved", SENSORS)
@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_visible_images_are_processed_alone_after_a_clock_was_set(moved, seconds):
    """Back or forward, of either camera; the first images after the jump may be stragglers."""
    watch, pairing, period = CounterpartWatch(), NearestPairing(20_000_000), 100_000_000
    alone, pairs = [], 0
    for n in range(80):
        now = n * period
        for stream in SENSORS:
            stamp = 10**18 + now + (seconds * 10**9 if stream == moved and n >= 20 else 0)
            watch.arrived(stream, now / 1e9)
            outcome = pairing.add(stream, stamp, n, now)
            pairs += len(outcome.pairs)
            for _ in outcome.pairs:
                watch.paired()
            alone += [drop for drop in outcome.drops if watch.alone(drop.stream, drop.reason, now / 1e9, AFTER)]
    assert pairs == 20 and {drop.stream for drop in alone} == {VISIBLE}
    assert len(alone) >= 40, "of 60"


def test_visible_images_are_processed_alone_after_the_other_clock_was_set_back():
    watch = CounterpartWatch()
    arrive(watch, 0, 3, *SENSORS)
    assert watch.alone(VISIBLE, COUNTERPART_SET_BACK, 3.0, AFTER)
    assert not watch.alone(INFRARED, COUNTERPART_SET_BACK, 3.0, AFTER)
