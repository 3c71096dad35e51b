"""Masks between key frames: carried by the flow, recognised again, given up where something covers them."""

from __future__ import annotations

import numpy as np
import pytest
from moving_square import SIZE, frame, instance, overlap, square, texture

from textdifuse_ros.localize.base import Instance
from textdifuse_ros.localize.tracking import Identities, Tracks, flow_image
from textdifuse_ros.scenes.config import DriveSceneConfig
from textdifuse_ros.scenes.drive import NightDrive


@pytest.mark.parametrize("night", [False, True])
def test_a_mask_follows_its_object_by_day_and_by_night(night: bool) -> None:
    tracks = Tracks([instance(square(60), track=7)], SIZE, flow_image(*frame(60, night=night)))
    for left in range(64, 121, 4):
        tracks.advance(flow_image(*frame(left, night=night)))
    (found,) = tracks.carried()
    assert overlap(found.mask, square(120)) > 0.9  # standing still it would be 0
    assert found.track == 7
    assert found.box == pytest.approx((120, 90, 180, 150), abs=1.5)


def test_a_box_that_is_not_its_masks_is_carried_as_it_is() -> None:
    found = Instance(square(60), (50.0, 80.0, 140.0, 160.0), 0.9, 1, 7, 0.0)
    tracks = Tracks([found], SIZE, flow_image(*frame(60)))
    tracks.advance(flow_image(*frame(66)))
    assert tracks.carried()[0].box == pytest.approx((56, 80, 146, 160), abs=1.5)
    for left in range(70, 251, 4):
        tracks.advance(flow_image(*frame(left)))
    assert tracks.carried()[0].box == pytest.approx((240, 80, 320, 160), abs=3)  # cut at the border


def test_on_the_synthetic_drive_carried_masks_stay_with_their_objects() -> None:
    drive = NightDrive(DriveSceneConfig(width=320, height=240))
    first, *between, last = (drive.frame(index) for index in range(40, 46))
    numbers = [n for n in np.unique(first.instances) if n and np.count_nonzero(last.instances == n) > 40]
    found = [instance(first.instances == n, track=int(n)) for n in numbers]
    tracks = Tracks(found, SIZE, flow_image(first.visible, first.infrared))
    for item in (*between, last):
        tracks.advance(flow_image(item.visible, item.infrared))
    carried = {item.track: item.mask for item in tracks.carried()}
    standing = np.mean([overlap(first.instances == n, last.instances == n) for n in numbers])
    following = np.mean([overlap(carried[n], last.instances == n) if n in carried else 0.0 for n in numbers])
    assert len(numbers) >= 5
    assert standing < 0.4
    assert following > standing + 0.25


def test_a_mask_that_leaves_the_image_is_dropped() -> None:
    tracks = Tracks([instance(square(240), track=1), instance(square(20), track=2)], SIZE, flow_image(*frame(240)))
    for left in range(244, 317, 4):
        tracks.advance(flow_image(*frame(left)))
        if left == 280:
            assert [item.track for item in tracks.carried()] == [1, 2]
    (stays,) = tracks.carried()
    assert stays.track == 2
    assert overlap(stays.mask, square(20)) > 0.95


def test_an_object_that_jumps_away_is_lost_and_leaves_no_mask_on_the_ground() -> None:
    tracks = Tracks([instance(square(20), track=1)], SIZE, flow_image(*frame(20)))
    tracks.advance(flow_image(*frame(230)))
    assert not tracks.carried()
    tracks.advance(flow_image(*frame(20)))
    assert not tracks.carried()  # only a key frame can tell what it is that came back


def covered(left: int) -> tuple[np.ndarray, np.ndarray]:
    """The textured square at 60, and a colder one of a texture of its own, nearer, whose left side is at ``left``."""
    _, infrared = frame(60)
    car = np.zeros(SIZE, bool)
    car[80:200, max(left, 0) : max(left + 140, 0)] = True
    infrared = np.where(car, 110 + 12 * np.roll(texture(3), left, axis=1), infrared).clip(0, 255).astype(np.uint8)
    return np.repeat(infrared[:, :, None], 3, 2), infrared


def test_an_object_that_something_covers_is_lost_and_its_mask_does_not_go_along() -> None:
    tracks = Tracks([instance(square(60))], SIZE, flow_image(*covered(140)))
    for left in range(134, 121, -6):
        tracks.advance(flow_image(*covered(left)))
    assert overlap(tracks.carried()[0].mask, square(60)) > 0.9  # nothing is before it yet
    for left in range(116, 40, -6):
        tracks.advance(flow_image(*covered(left)))
    assert not tracks.carried()


def test_light_on_an_object_and_another_gain_of_the_infrared_leave_it() -> None:
    visible, infrared = frame(60)
    dark = visible // 3
    tracks = Tracks([instance(square(60))], SIZE, flow_image(dark, infrared))
    lit = np.where(square(60)[:, :, None], visible, dark)
    tracks.advance(flow_image(lit, infrared))
    for gain, offset in ((1.0, 30.0), (0.6, 0.0), (1.3, -20.0), (0.5, 90.0)):
        other = (gain * infrared + offset).clip(0, 255).astype(np.uint8)
        tracks.advance(flow_image(lit, other))
        assert overlap(tracks.carried()[0].mask, square(60)) > 0.9


def test_a_horizon_that_rises_leaves_an_object_as_warm_as_it_was() -> None:
    """Half sky and half ground: the median of such an image is the one or the other."""
    infrared = np.full(SIZE, 110, np.uint8)
    infrared[150:190, 100:140] = 150 + texture(5)[150:190, 100:140].clip(-20, 20).astype(np.int16)
    visible = np.repeat(infrared[:, :, None], 3, 2)
    mask = np.zeros(SIZE, bool)
    mask[150:190, 100:140] = True
    for share in range(44, 57, 2):
        seen = infrared.copy()
        seen[: SIZE[0] * share // 100] = 30
        if share == 44:
            tracks = Tracks([instance(mask)], SIZE, flow_image(visible, seen))
        tracks.advance(flow_image(visible, seen))
        assert overlap(tracks.carried()[0].mask, mask) > 0.9, share


def test_what_was_found_anew_takes_the_place_of_what_was_carried_also_at_the_same_stamp() -> None:
    image = flow_image(*frame(60))
    first = Tracks([instance(square(60), track=3)], SIZE, image)
    (carried,) = first.carried()
    found = instance(square(66), track=3)
    assert found.stamp == carried.stamp
    assert np.array_equal(Tracks([found], SIZE, image, first).carried()[0].mask, square(66))
    assert Tracks([carried], SIZE, image, first)._tracks == first._tracks


def test_an_even_object_that_nothing_can_be_followed_in_stays() -> None:
    infrared = np.full(SIZE, 90, np.uint8)
    infrared[40:200, 60:260] = 180
    visible = np.repeat(infrared[:, :, None], 3, 2)
    mask = np.zeros(SIZE, bool)
    mask[90:150, 130:190] = True  # far from every edge
    tracks = Tracks([instance(mask)], SIZE, flow_image(visible, infrared))
    tracks.advance(flow_image(visible, infrared))
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


def test_small_and_large_images_have_a_flow() -> None:
    for height, width in ((8, 8), (20, 900), (1200, 1920)):
        infrared = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        image = flow_image(np.repeat(infrared[:, :, None], 3, 2), infrared)
        assert max(image.shape) <= 480
        mask = np.ones((height, width), bool)
        tracks = Tracks([instance(mask)], (height, width), image)
        tracks.advance(image)
        assert tracks.carried()[0].mask.shape == (height, width)
