"""Key frames: a localizer in its own thread, masks tracked in between and dropped when they are too old."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from moving_square import frame, instance, overlap, square

from textdifuse_ros.config.localizer import TrackingConfig
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.localize.base import Localization, mask_box
from textdifuse_ros.localize.prompt import Phrase
from textdifuse_ros.runtime.key_frames import FAILED, LOCATED, OFF, STALE, WAITING, KeyframeLocalizer

TIMEOUT = 60.0  # of any wait for another thread [s]


class Scripted:
    """A localizer that locates the bright square and waits for permission before it returns."""

    name = "scripted"
    vocabulary = None

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []  # text, and left edge of the square
        self.begun = threading.Semaphore(0)
        self.may_return = threading.Semaphore(0)
        self.error: Exception | None = None
        self.blind = False
        self.closed = False

    def locate(self, visible, infrared, prompt) -> Localization:
        bright = cv2.blur(infrared, (9, 9)) > 135
        left = int(mask_box(bright)[0])
        self.calls.append((prompt.text, left))
        self.begun.release()
        assert self.may_return.acquire(timeout=TIMEOUT)
        if self.error:
            raise self.error
        instances = () if self.blind else (instance(bright, prompt.phrases[-1].index),)
        return Localization(instances, infrared.shape, prompt.phrases)

    def close(self) -> None:
        self.closed = True


class Stream:
    """A stream at 10 Hz whose square moves 2 pixels per image, with a clock that only the test advances."""

    def __init__(self, **config) -> None:
        self.localizer = Scripted()
        self.reports: list[str] = []
        self.now = 0.0
        self.number = -1
        self.keyframes = KeyframeLocalizer(
            self.localizer, TrackingConfig(**config), clock=lambda: self.now, report=self.reports.append
        )

    def next(self, number: int | None = None):
        self.number = self.number + 1 if number is None else number
        self.now += 0.1
        return self.keyframes.update(self.number / 10, *frame(40 + 2 * self.number))

    def wait_for_key_frame(self) -> None:
        assert self.localizer.begun.acquire(timeout=TIMEOUT), "no key frame was processed"

    def finish_key_frame(self) -> None:
        """Let the localizer return, and wait until its result is available."""
        self.localizer.may_return.release()
        assert self.keyframes.wait_until_idle(TIMEOUT)

    def process_key_frame(self) -> None:
        self.wait_for_key_frame()
        self.finish_key_frame()


@pytest.fixture
def stream():
    streams: list[Stream] = []

    def create(**config) -> Stream:
        streams.append(Stream(**config))
        return streams[-1]

    yield create
    for item in streams:
        for _ in range(100):
            item.localizer.may_return.release()
        item.keyframes.close()
        assert item.localizer.closed


def test_without_a_text_the_localizer_is_not_called(stream) -> None:
    run = stream()
    tracked = [run.next() for _ in range(5)]
    assert {item.provenance.state for item in tracked} == {OFF}
    assert not any(item.localization for item in tracked)
    assert run.localizer.calls == []


def test_masks_are_tracked_during_and_after_the_key_frame(stream) -> None:
    run = stream(localize_rate=0.1, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    assert run.next().provenance.state == WAITING
    run.wait_for_key_frame()
    for _ in range(10):
        tracked = run.next()
        assert not tracked.localization
    run.finish_key_frame()
    for number in range(11, 21):
        tracked = run.next()
        (item,) = tracked.localization.instances
        assert overlap(item.mask, square(40 + 2 * number)) > 0.9
        assert item.stamp == 0.0
        assert item.track == 1
    assert tracked.provenance.state == LOCATED
    assert (tracked.provenance.text, tracked.provenance.stamp) == ("square", 0.0)
    assert tracked.provenance.localizer == "scripted"
    assert tracked.localization.instance_map().max() == 1
    assert len(run.localizer.calls) == 1


def test_key_frames_have_their_own_rate_and_objects_keep_their_numbers(stream) -> None:
    run = stream(localize_rate=2.6, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    tracks, stamps = set(), set()
    for _ in range(16):
        tracked = run.next()
        if run.number % 4 == 0:
            run.process_key_frame()
        tracks |= {item.track for item in tracked.localization.instances}
        stamps |= {item.stamp for item in tracked.localization.instances}
    assert [left for _, left in run.localizer.calls] == pytest.approx([40, 48, 56, 64], abs=4)
    assert tracks == {1}
    assert sorted(stamps) == pytest.approx([0.0, 0.4, 0.8, 1.2])


def test_an_object_keeps_its_number_if_its_mask_expires_with_the_next_key_frame(stream) -> None:
    """It is matched in the previous image, in which it was still valid."""
    run = stream(localize_rate=3.5, mask_lifetime=0.35)
    run.keyframes.set_prompt("square")
    tracks: list[int] = []
    for _ in range(5):  # every third image is a key frame, finished before the next image
        tracks += [item.track for item in run.next().localization.instances]
        run.process_key_frame()
        for _ in range(2):
            tracks += [item.track for item in run.next().localization.instances]
    assert tracks == [1] * 14


def test_an_object_missed_by_key_frames_is_still_compared_with_its_located_appearance(stream) -> None:
    """Otherwise its mask would move to something that covers it step by step from key frame to key frame."""
    run = stream(localize_rate=10.0, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    counts = []
    for number, colder in enumerate((0, 0, 12, 24, 36, 48)):
        visible, infrared = frame(60)
        infrared[square(60)] -= np.uint8(colder)
        run.now += 0.1
        counts.append(len(run.keyframes.update(number / 10, visible, infrared).localization.instances))
        run.process_key_frame()
        run.localizer.blind = True
    assert counts == [0, 1, 1, 1, 0, 0]


def test_a_new_text_starts_a_key_frame_at_once_and_drops_the_old_masks(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    run.next()
    run.process_key_frame()
    assert run.next().localization
    run.keyframes.set_prompt("circle, box")
    tracked = run.next()
    assert not tracked.localization
    assert (tracked.provenance.state, tracked.provenance.text) == (WAITING, "circle, box")
    assert tracked.provenance.stamp is None
    run.process_key_frame()
    tracked = run.next()
    assert [item.phrase for item in tracked.localization.instances] == [2]
    assert tracked.provenance.state == LOCATED


def test_the_result_for_an_old_text_is_discarded(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    run.next()
    run.wait_for_key_frame()
    run.keyframes.set_prompt("box")
    assert run.next().provenance.state == WAITING
    run.localizer.may_return.release()  # the result for "square"
    run.wait_for_key_frame()  # at once, regardless of the rate
    assert [text for text, _ in run.localizer.calls] == ["square", "box"]
    tracked = run.next()
    assert not tracked.localization
    assert tracked.provenance.state == WAITING
    run.finish_key_frame()
    assert run.next().localization


def test_a_changed_strength_applies_to_the_next_image_without_a_key_frame(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.keyframes.set_prompt("square:0.5")
    run.next()
    run.process_key_frame()
    assert run.next().localization.strength_map().max() == 0.5
    run.keyframes.set_prompt("square:-1")
    tracked = run.next()
    assert tracked.localization.strength_map().min() == -1
    assert tracked.provenance.text == "square:-1"
    assert len(run.localizer.calls) == 1


def test_stale_masks_are_dropped_and_the_state_is_stale(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=0.45)
    run.keyframes.set_prompt("square")
    run.next()
    run.process_key_frame()
    states = [run.next() for _ in range(6)]
    assert [bool(item.localization) for item in states] == [True] * 4 + [False] * 2
    assert [item.provenance.state for item in states] == [LOCATED] * 4 + [STALE] * 2
    assert states[-1].provenance.stamp is None


def test_masks_that_are_stale_when_they_are_ready_are_reported(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=0.3)
    run.keyframes.set_prompt("square")
    run.next()
    run.wait_for_key_frame()
    for _ in range(5):
        run.next()
    run.finish_key_frame()
    assert not run.next().localization
    assert "raise mask_lifetime" in run.reports[0]


def test_an_exception_of_the_localizer_is_reported_and_the_stream_continues(stream) -> None:
    run = stream(localize_rate=10.0, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    run.localizer.error = RuntimeError("no more\nmemory")
    run.next()
    run.process_key_frame()
    tracked = run.next()
    assert not tracked.localization
    assert tracked.provenance.state == FAILED
    assert tracked.provenance.error == "RuntimeError: no more memory"
    assert "scripted failed on the image of 0.000 s: RuntimeError: no more memory" in run.reports[0]
    run.wait_for_key_frame()
    run.localizer.error = None
    run.finish_key_frame()
    tracked = run.next()
    assert tracked.localization
    assert (tracked.provenance.state, tracked.provenance.error) == (LOCATED, "")
    run.wait_for_key_frame()
    run.localizer.error = RuntimeError("again")
    run.finish_key_frame()
    tracked = run.next()
    assert tracked.localization, "masks of an earlier key frame remain"
    assert tracked.provenance.error == "RuntimeError: again"


def test_a_key_frame_without_objects_is_not_an_error(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.localizer.blind = True
    run.keyframes.set_prompt("square")
    run.next()
    run.process_key_frame()
    tracked = run.next()
    assert not tracked.localization
    assert (tracked.provenance.state, tracked.provenance.stamp) == (LOCATED, 0.0)
    assert run.reports == []


@pytest.mark.parametrize("change", ["time", "size"])
def test_time_going_back_or_another_size_resets_everything(stream, change: str) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=60.0)
    run.keyframes.set_prompt("square")
    run.next(50)
    run.process_key_frame()
    assert run.next().localization
    if change == "time":
        tracked = run.next(0)
    else:
        visible, infrared = frame(60)
        tracked = run.keyframes.update(6.0, visible[:200], infrared[:200])
    assert not tracked.localization
    assert tracked.provenance.state == WAITING
    run.wait_for_key_frame()


def test_an_unknown_word_is_refused_and_the_previous_text_stays(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.localizer.vocabulary = {"square": ("box",)}
    run.keyframes.set_prompt("boxes")
    run.next()
    run.process_key_frame()
    with pytest.raises(ConfigError, match=r"knows \(square\), got 'zebra'"):
        run.keyframes.set_prompt("zebra")
    tracked = run.next()
    assert tracked.localization
    assert tracked.localization.phrases == (Phrase("boxes", 1.0, 1),)


def test_rate_and_lifetime_can_be_changed_during_the_stream(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    run.next()
    run.process_key_frame()
    assert run.next().localization
    with pytest.raises(ConfigError, match="mask_lifetime"):
        run.keyframes.configure(TrackingConfig(mask_lifetime=0.0))
    run.keyframes.configure(TrackingConfig(localize_rate=0.01, mask_lifetime=0.05))
    assert not run.next().localization
