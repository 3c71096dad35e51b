"""A localizer beside a stream: key frames in a thread of its own, masks carried in between, dropped in time."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest
from moving_square import frame, instance, overlap, square

from textdifuse_ros.config.localizer import TrackingConfig
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.localize.base import Localization, mask_box
from textdifuse_ros.localize.prompt import Phrase
from textdifuse_ros.runtime.key_frames import FAILED, LOCATED, OFF, STALE, WAITING, KeyframeLocalizer

PATIENCE = 20.0  # how long a test waits for another thread before it fails [s]


class Scripted:
    """A localizer that waits for leave before each answer, and finds the bright square."""

    name = "scripted"
    vocabulary = None

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.begun = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.error: Exception | None = None
        self.blind = False
        self.closed = False

    def locate(self, visible, infrared, prompt) -> Localization:
        bright = cv2.blur(infrared, (9, 9)) > 135
        left = int(mask_box(bright)[0])
        self.asked.append((prompt.text, left))
        self.begun.release()
        assert self.leave.acquire(timeout=PATIENCE)
        if self.error:
            raise self.error
        found = () if self.blind else (instance(bright, prompt.phrases[-1].index),)
        return Localization(found, infrared.shape, prompt.phrases)

    def close(self) -> None:
        self.closed = True


class Stream:
    """A stream at 10 Hz whose square moves 2 pixels an image, and a clock that only the test moves."""

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

    def looks(self) -> None:
        assert self.localizer.begun.acquire(timeout=PATIENCE), "no key frame was looked at"

    def answers(self) -> None:
        """Let the localizer answer, and wait until its thread has nothing more to do with it."""
        self.localizer.leave.release()
        self.settle()

    def settle(self) -> None:
        end = time.monotonic() + PATIENCE
        while self.keyframes._processing is not None and time.monotonic() < end:
            time.sleep(0.001)


@pytest.fixture
def stream():
    made: list[Stream] = []

    def make(**config) -> Stream:
        made.append(Stream(**config))
        return made[-1]

    yield make
    for item in made:
        for _ in range(100):
            item.localizer.leave.release()
        item.keyframes.close()
        assert item.localizer.closed


def test_without_a_text_nothing_is_looked_at(stream) -> None:
    run = stream()
    tracked = [run.next() for _ in range(5)]
    assert {item.provenance.state for item in tracked} == {OFF}
    assert not any(item.localization for item in tracked)
    assert run.localizer.asked == []


def test_masks_are_carried_while_the_localizer_looks_and_afterwards(stream) -> None:
    run = stream(localize_rate=0.1, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    assert run.next().provenance.state == WAITING
    run.looks()
    for _ in range(10):
        tracked = run.next()
        assert not tracked.localization
    run.answers()
    for number in range(11, 21):
        tracked = run.next()
        (found,) = tracked.localization.instances
        assert overlap(found.mask, square(40 + 2 * number)) > 0.9
        assert found.stamp == 0.0
        assert found.track == 1
    assert tracked.provenance.state == LOCATED
    assert (tracked.provenance.text, tracked.provenance.stamp) == ("square", 0.0)
    assert tracked.provenance.localizer == "scripted"
    assert tracked.localization.instance_map().max() == 1
    assert len(run.localizer.asked) == 1


def test_key_frames_come_at_their_own_rate_and_ids_are_stable_over_them(stream) -> None:
    run = stream(localize_rate=2.6, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    tracks, stamps = set(), set()
    for _ in range(16):
        tracked = run.next()
        if run.number % 4 == 0:
            run.looks()
            run.answers()
        tracks |= {item.track for item in tracked.localization.instances}
        stamps |= {item.stamp for item in tracked.localization.instances}
    assert [left for _, left in run.localizer.asked] == pytest.approx([40, 48, 56, 64], abs=4)
    assert tracks == {1}
    assert sorted(stamps) == pytest.approx([0.0, 0.4, 0.8, 1.2])


def test_ids_are_stable_where_a_mask_lives_hardly_longer_than_to_the_next_key_frame(stream) -> None:
    """What was shown one image ago is the same object, though the new image finds it too old."""
    run = stream(localize_rate=3.5, mask_lifetime=0.35)
    run.keyframes.set_prompt("square")
    tracks: list[int] = []
    for _ in range(5):  # every third image is a key frame, answered before the next
        tracks += [item.track for item in run.next().localization.instances]
        run.looks()
        run.answers()
        for _ in range(2):
            tracks += [item.track for item in run.next().localization.instances]
    assert tracks == [1] * 14


def test_what_a_key_frame_missed_is_still_compared_with_how_it_was_found(stream) -> None:
    """Else something that covers it bit by bit would be taken for it, one key frame after the other."""
    run = stream(localize_rate=10.0, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    shown = []
    for number, colder in enumerate((0, 0, 12, 24, 36, 48)):
        visible, infrared = frame(60)
        infrared[square(60)] -= np.uint8(colder)
        run.now += 0.1
        shown.append(len(run.keyframes.update(number / 10, visible, infrared).localization.instances))
        run.looks()
        run.answers()
        run.localizer.blind = True
    assert shown == [0, 1, 1, 1, 0, 0]


def test_a_changed_text_looks_at_once_and_shows_no_old_mask(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    run.next()
    run.looks()
    run.answers()
    assert run.next().localization
    run.keyframes.set_prompt("circle, box")
    tracked = run.next()
    assert not tracked.localization
    assert (tracked.provenance.state, tracked.provenance.text) == (WAITING, "circle, box")
    assert tracked.provenance.stamp is None
    run.looks()
    run.answers()
    tracked = run.next()
    assert [item.phrase for item in tracked.localization.instances] == [2]
    assert tracked.provenance.state == LOCATED


def test_the_answer_to_an_old_text_is_thrown_away(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    run.next()
    run.looks()
    run.keyframes.set_prompt("box")
    assert run.next().provenance.state == WAITING
    run.localizer.leave.release()  # the answer about squares
    run.looks()  # at once, the rate notwithstanding
    assert [text for text, _ in run.localizer.asked] == ["square", "box"]
    tracked = run.next()
    assert not tracked.localization
    assert tracked.provenance.state == WAITING
    run.answers()
    assert run.next().localization


def test_a_changed_strength_holds_from_the_next_image_without_another_look(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.keyframes.set_prompt("square:0.5")
    run.next()
    run.looks()
    run.answers()
    assert run.next().localization.strength_map().max() == 0.5
    run.keyframes.set_prompt("square:-1")
    tracked = run.next()
    assert tracked.localization.strength_map().min() == -1
    assert tracked.provenance.text == "square:-1"
    assert len(run.localizer.asked) == 1


def test_stale_masks_are_dropped_and_it_is_said(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=0.45)
    run.keyframes.set_prompt("square")
    run.next()
    run.looks()
    run.answers()
    states = [run.next() for _ in range(6)]
    assert [bool(item.localization) for item in states] == [True] * 4 + [False] * 2
    assert [item.provenance.state for item in states] == [LOCATED] * 4 + [STALE] * 2
    assert states[-1].provenance.stamp is None


def test_masks_that_are_stale_when_they_come_are_reported(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=0.3)
    run.keyframes.set_prompt("square")
    run.next()
    run.looks()
    for _ in range(5):
        run.next()
    run.answers()
    assert not run.next().localization
    assert "raise mask_lifetime" in run.reports[0]


def test_a_localizer_that_throws_is_reported_and_ends_nothing(stream) -> None:
    run = stream(localize_rate=10.0, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    run.localizer.error = RuntimeError("no more\nmemory")
    run.next()
    run.looks()
    run.answers()
    tracked = run.next()
    assert not tracked.localization
    assert tracked.provenance.state == FAILED
    assert tracked.provenance.error == "RuntimeError: no more memory"
    assert "scripted failed on the image of 0.000 s: RuntimeError: no more memory" in run.reports[0]
    run.looks()
    run.localizer.error = None
    run.answers()
    tracked = run.next()
    assert tracked.localization
    assert (tracked.provenance.state, tracked.provenance.error) == (LOCATED, "")
    run.looks()
    run.localizer.error = RuntimeError("again")
    run.answers()
    tracked = run.next()
    assert tracked.localization, "masks of an earlier key frame live on"
    assert tracked.provenance.error == "RuntimeError: again"


def test_a_key_frame_that_finds_nothing_is_no_error(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.localizer.blind = True
    run.keyframes.set_prompt("square")
    run.next()
    run.looks()
    run.answers()
    tracked = run.next()
    assert not tracked.localization
    assert (tracked.provenance.state, tracked.provenance.stamp) == (LOCATED, 0.0)
    assert run.reports == []


@pytest.mark.parametrize("change", ["time", "size"])
def test_time_going_back_or_another_size_resets_everything(stream, change: str) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=60.0)
    run.keyframes.set_prompt("square")
    run.next(50)
    run.looks()
    run.answers()
    assert run.next().localization
    if change == "time":
        tracked = run.next(0)
    else:
        visible, infrared = frame(60)
        tracked = run.keyframes.update(6.0, visible[:200], infrared[:200])
    assert not tracked.localization
    assert tracked.provenance.state == WAITING
    run.looks()


def test_an_unknown_word_is_refused_and_what_was_in_force_stays(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.localizer.vocabulary = {"square": ("box",)}
    run.keyframes.set_prompt("boxes")
    run.next()
    run.looks()
    run.answers()
    with pytest.raises(ConfigError, match=r"knows \(square\), got 'zebra'"):
        run.keyframes.set_prompt("zebra")
    tracked = run.next()
    assert tracked.localization
    assert tracked.localization.phrases == (Phrase("boxes", 1.0, 1),)


def test_rate_and_lifetime_change_while_it_runs(stream) -> None:
    run = stream(localize_rate=0.01, mask_lifetime=10.0)
    run.keyframes.set_prompt("square")
    run.next()
    run.looks()
    run.answers()
    assert run.next().localization
    with pytest.raises(ConfigError, match="mask_lifetime"):
        run.keyframes.configure(TrackingConfig(mask_lifetime=0.0))
    run.keyframes.configure(TrackingConfig(localize_rate=0.01, mask_lifetime=0.05))
    assert not run.next().localization
