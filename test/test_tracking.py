"""Masks between key frames: carried by the flow, recognised again, dropped in time; a localiser beside a stream."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

from textdifuse_ros.config_localize import TrackingConfig
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.localize.base import Instance, Localization, mask_box
from textdifuse_ros.localize.keyframes import FAILED, LOCATED, OFF, STALE, WAITING, KeyframeLocalizer
from textdifuse_ros.localize.prompt import Phrase
from textdifuse_ros.localize.tracking import Identities, Tracks, flow_picture
from textdifuse_ros.scenes.config import DriveSceneConfig
from textdifuse_ros.scenes.drive import NightDrive

SIZE = HEIGHT, WIDTH = 240, 320
PATIENCE = 20.0  # how long a test waits for another thread before it fails [s]


def square(left: int, top: int = 90, side: int = 60) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def instance(mask: np.ndarray, phrase: int = 1, track: int = 0, score: float = 0.9, stamp: float = 0.0) -> Instance:
    return Instance(mask, mask_box(mask), score, phrase, track, stamp)


def texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return smooth / smooth.std()


def frame(left: int, *, night: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A textured square before a textured ground that stands still; by night only the infrared shows it."""
    thing = np.roll(texture(2), left, axis=1)
    infrared = np.where(square(left), 180 + 12 * thing, 90 + 12 * texture(1)).clip(0, 255).astype(np.uint8)
    visible = np.repeat(infrared[:, :, None], 3, 2)
    if night:
        visible = np.random.default_rng(left).integers(0, 4, visible.shape, dtype=np.uint8)
    return visible, infrared


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


@pytest.mark.parametrize("night", [False, True])
def test_a_mask_follows_its_object_by_day_and_by_night(night: bool) -> None:
    tracks = Tracks([instance(square(60), track=7)], SIZE, flow_picture(*frame(60, night=night)))
    for left in range(64, 121, 4):
        tracks.advance(flow_picture(*frame(left, night=night)))
    (found,) = tracks.carried()
    assert overlap(found.mask, square(120)) > 0.9  # standing still it would be 0
    assert found.track == 7
    assert found.box == pytest.approx((120, 90, 180, 150), abs=1.5)


def test_a_box_that_is_not_its_masks_is_carried_as_it_is() -> None:
    found = Instance(square(60), (50.0, 80.0, 140.0, 160.0), 0.9, 1, 7, 0.0)
    tracks = Tracks([found], SIZE, flow_picture(*frame(60)))
    tracks.advance(flow_picture(*frame(66)))
    assert tracks.carried()[0].box == pytest.approx((56, 80, 146, 160), abs=1.5)
    for left in range(70, 251, 4):
        tracks.advance(flow_picture(*frame(left)))
    assert tracks.carried()[0].box == pytest.approx((240, 80, 320, 160), abs=3)  # cut at the border


def test_on_the_synthetic_drive_carried_masks_stay_with_their_objects() -> None:
    drive = NightDrive(DriveSceneConfig(width=320, height=240))
    first, *between, last = (drive.frame(index) for index in range(40, 46))
    numbers = [n for n in np.unique(first.instances) if n and np.count_nonzero(last.instances == n) > 40]
    found = [instance(first.instances == n, track=int(n)) for n in numbers]
    tracks = Tracks(found, SIZE, flow_picture(first.visible, first.infrared))
    for item in (*between, last):
        tracks.advance(flow_picture(item.visible, item.infrared))
    carried = {item.track: item.mask for item in tracks.carried()}
    standing = np.mean([overlap(first.instances == n, last.instances == n) for n in numbers])
    following = np.mean([overlap(carried[n], last.instances == n) if n in carried else 0.0 for n in numbers])
    assert len(numbers) >= 5
    assert standing < 0.4
    assert following > standing + 0.25


def test_a_mask_that_leaves_the_picture_is_dropped() -> None:
    tracks = Tracks([instance(square(240), track=1), instance(square(20), track=2)], SIZE, flow_picture(*frame(240)))
    for left in range(244, 317, 4):
        tracks.advance(flow_picture(*frame(left)))
        if left == 280:
            assert [item.track for item in tracks.carried()] == [1, 2]
    (stays,) = tracks.carried()
    assert stays.track == 2
    assert overlap(stays.mask, square(20)) > 0.95


def test_an_object_that_jumps_away_is_lost_and_leaves_no_mask_on_the_ground() -> None:
    tracks = Tracks([instance(square(20), track=1)], SIZE, flow_picture(*frame(20)))
    tracks.advance(flow_picture(*frame(230)))
    assert not tracks.carried()
    tracks.advance(flow_picture(*frame(20)))
    assert not tracks.carried()  # only a key frame can tell what it is that came back


def covered(left: int) -> tuple[np.ndarray, np.ndarray]:
    """The textured square at 60, and a colder one of a texture of its own, nearer, whose left side is at ``left``."""
    _, infrared = frame(60)
    car = np.zeros(SIZE, bool)
    car[80:200, max(left, 0) : max(left + 140, 0)] = True
    infrared = np.where(car, 110 + 12 * np.roll(texture(3), left, axis=1), infrared).clip(0, 255).astype(np.uint8)
    return np.repeat(infrared[:, :, None], 3, 2), infrared


def test_an_object_that_something_covers_is_lost_and_its_mask_does_not_go_along() -> None:
    tracks = Tracks([instance(square(60))], SIZE, flow_picture(*covered(140)))
    for left in range(134, 121, -6):
        tracks.advance(flow_picture(*covered(left)))
    assert overlap(tracks.carried()[0].mask, square(60)) > 0.9  # nothing is before it yet
    for left in range(116, 40, -6):
        tracks.advance(flow_picture(*covered(left)))
    assert not tracks.carried()


def test_light_on_an_object_and_another_gain_of_the_infrared_leave_it() -> None:
    visible, infrared = frame(60)
    dark = visible // 3
    tracks = Tracks([instance(square(60))], SIZE, flow_picture(dark, infrared))
    lit = np.where(square(60)[:, :, None], visible, dark)
    tracks.advance(flow_picture(lit, infrared))
    for gain, offset in ((1.0, 30.0), (0.6, 0.0), (1.3, -20.0), (0.5, 90.0)):
        other = (gain * infrared + offset).clip(0, 255).astype(np.uint8)
        tracks.advance(flow_picture(lit, other))
        assert overlap(tracks.carried()[0].mask, square(60)) > 0.9


def test_a_horizon_that_rises_leaves_an_object_as_warm_as_it_was() -> None:
    """Half sky and half ground: the median of such a picture is the one or the other."""
    infrared = np.full(SIZE, 110, np.uint8)
    infrared[150:190, 100:140] = 150 + texture(5)[150:190, 100:140].clip(-20, 20).astype(np.int16)
    visible = np.repeat(infrared[:, :, None], 3, 2)
    mask = np.zeros(SIZE, bool)
    mask[150:190, 100:140] = True
    for share in range(44, 57, 2):
        seen = infrared.copy()
        seen[: SIZE[0] * share // 100] = 30
        if share == 44:
            tracks = Tracks([instance(mask)], SIZE, flow_picture(visible, seen))
        tracks.advance(flow_picture(visible, seen))
        assert overlap(tracks.carried()[0].mask, mask) > 0.9, share


def test_what_was_found_anew_takes_the_place_of_what_was_carried_also_at_the_same_stamp() -> None:
    picture = flow_picture(*frame(60))
    first = Tracks([instance(square(60), track=3)], SIZE, picture)
    (carried,) = first.carried()
    found = instance(square(66), track=3)
    assert found.stamp == carried.stamp
    assert np.array_equal(Tracks([found], SIZE, picture, first).carried()[0].mask, square(66))
    assert Tracks([carried], SIZE, picture, first)._movers == first._movers


def test_an_even_object_that_nothing_can_be_followed_in_stays() -> None:
    infrared = np.full(SIZE, 90, np.uint8)
    infrared[40:200, 60:260] = 180
    visible = np.repeat(infrared[:, :, None], 3, 2)
    mask = np.zeros(SIZE, bool)
    mask[90:150, 130:190] = True  # far from every edge
    tracks = Tracks([instance(mask)], SIZE, flow_picture(visible, infrared))
    tracks.advance(flow_picture(visible, infrared))
    assert np.array_equal(tracks.carried()[0].mask, mask)


def test_an_object_keeps_its_number_and_a_new_one_gets_another() -> None:
    identities = Identities()
    first = identities.merge((), [instance(square(20)), instance(square(150))])
    assert sorted(item.track for item in first) == [1, 2]
    second = identities.merge(first, [instance(square(158)), instance(square(240)), instance(square(22))])
    assert [item.track for item in second] == [2, 3, 1]


def test_an_object_that_was_missed_stays_unless_something_covers_it() -> None:
    identities = Identities()
    old = identities.merge((), [instance(square(20), stamp=1.0), instance(square(150), stamp=1.0)])
    merged = identities.merge(old, [instance(square(24), stamp=2.0)])
    assert {(item.track, item.stamp) for item in merged} == {(1, 2.0), (2, 1.0)}
    cover = np.zeros(SIZE, bool)
    cover[:, 100:] = True
    merged = identities.merge(old, [instance(cover, stamp=2.0)])
    assert {(item.track, item.stamp) for item in merged} == {(3, 2.0), (1, 1.0)}


def test_an_object_is_not_recognised_under_another_phrase() -> None:
    identities = Identities()
    old = identities.merge((), [instance(square(20), phrase=1)])
    assert [item.track for item in identities.merge(old, [instance(square(20), phrase=2)])] == [2]


def test_small_and_large_pictures_have_a_flow() -> None:
    for height, width in ((8, 8), (20, 900), (1200, 1920)):
        infrared = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        picture = flow_picture(np.repeat(infrared[:, :, None], 3, 2), infrared)
        assert max(picture.shape) <= 480
        mask = np.ones((height, width), bool)
        tracks = Tracks([instance(mask)], (height, width), picture)
        tracks.advance(picture)
        assert tracks.carried()[0].mask.shape == (height, width)


class Scripted:
    """A localiser that waits for leave before each answer, and finds the bright square."""

    name = "scripted"
    vocabulary = None

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.begun = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.error: Exception | None = None
        self.blind = False
        self.closed = False

    def __call__(self, visible, infrared, prompt) -> Localization:
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
    """A stream at 10 Hz whose square moves 2 pixels a picture, and a clock that only the test moves."""

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
        """Let the localiser answer, and wait until its thread has nothing more to do with it."""
        self.localizer.leave.release()
        self.settle()

    def settle(self) -> None:
        end = time.monotonic() + PATIENCE
        while self.keyframes._looking is not None and time.monotonic() < end:
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
    """What was shown one picture ago is the same object, though the new picture finds it too old."""
    run = stream(localize_rate=3.5, mask_lifetime=0.35)
    run.keyframes.set_prompt("square")
    tracks: list[int] = []
    for _ in range(5):  # every third picture is a key frame, answered before the next
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


def test_a_changed_strength_holds_from_the_next_picture_without_another_look(stream) -> None:
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
    assert "scripted failed on the picture of 0.000 s: RuntimeError: no more memory" in run.reports[0]
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
def test_time_going_back_or_another_size_begins_anew(stream, change: str) -> None:
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
