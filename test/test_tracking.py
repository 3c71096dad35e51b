"""Masks between key frames: tracked by optical flow, re-identified, and lost when something covers the object."""

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
    (item,) = tracks.carried()
    assert overlap(item.mask, square(120)) > 0.9  # 0 without motion
    assert item.track == 7
    assert item.box == pytest.approx((120, 90, 180, 150), abs=1.5)


def test_a_box_larger_than_its_mask_moves_with_the_object() -> None:
    located = Instance(square(60), (50.0, 80.0, 140.0, 160.0), 0.9, 1, 7, 0.0)
    tracks = Tracks([located], SIZE, flow_image(*frame(60)))
    tracks.advance(flow_image(*frame(66)))
    assert tracks.carried()[0].box == pytest.approx((56, 80, 146, 160), abs=1.5)
    for left in range(70, 251, 4):
        tracks.advance(flow_image(*frame(left)))
    assert tracks.carried()[0].box == pytest.approx((240, 80, 320, 160), abs=3)  # clipped at the border


def test_on_the_synthetic_drive_masks_stay_with_their_objects() -> None:
    drive = NightDrive(DriveSceneConfig(width=320, height=240))
    first, *between, last = (drive.frame(index) for index in range(40, 46))
    numbers = [n for n in np.unique(first.instances) if n and np.count_nonzero(last.instances == n) > 40]
    located = [instance(first.instances == n, track=int(n)) for n in numbers]
    tracks = Tracks(located, SIZE, flow_image(first.visible, first.infrared))
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
    (remaining,) = tracks.carried()
    assert remaining.track == 2
    assert overlap(remaining.mask, square(20)) > 0.95


def test_an_object_that_jumps_away_is_lost_and_leaves_no_mask_behind() -> None:
    tracks = Tracks([instance(square(20), track=1)], SIZE, flow_image(*frame(20)))
    tracks.advance(flow_image(*frame(230)))
    assert not tracks.carried()
    tracks.advance(flow_image(*frame(20)))
    assert not tracks.carried()  # only a key frame can identify an object that comes back


def covered(left: int) -> tuple[np.ndarray, np.ndarray]:
    """The textured square at 60, behind a colder object of another texture with its left edge at ``left``."""
    _, infrared = frame(60)
    car = np.zeros(SIZE, bool)
    car[80:200, max(left, 0) : max(left + 140, 0)] = True
    infrared = np.where(car, 110 + 12 * np.roll(texture(3), left, axis=1), infrared).clip(0, 255).astype(np.uint8)
    return np.repeat(infrared[:, :, None], 3, 2), infrared


def test_a_covered_object_is_lost_and_its_mask_does_not_move_with_the_cover() -> None:
    tracks = Tracks([instance(square(60))], SIZE, flow_image(*covered(140)))
    for left in range(134, 121, -6):
        tracks.advance(flow_image(*covered(left)))
    assert overlap(tracks.carried()[0].mask, square(60)) > 0.9  # not covered yet
    for left in range(116, 40, -6):
        tracks.advance(flow_image(*covered(left)))
    assert not tracks.carried()


def test_changes_of_lighting_and_infrared_gain_do_not_lose_an_object() -> None:
    visible, infrared = frame(60)
    dark = visible // 3
    tracks = Tracks([instance(square(60))], SIZE, flow_image(dark, infrared))
    lit = np.where(square(60)[:, :, None], visible, dark)
    tracks.advance(flow_image(lit, infrared))
    for gain, offset in ((1.0, 30.0), (0.6, 0.0), (1.3, -20.0), (0.5, 90.0)):
        other = (gain * infrared + offset).clip(0, 255).astype(np.uint8)
        tracks.advance(flow_image(lit, other))
        assert overlap(tracks.carried()[0].mask, square(60)) > 0.9


def test_a_rising_horizon_does_not_lose_an_object() -> None:
    """The image is half cold sky and half ground, so that its median would jump."""
    infrared = np.full(SIZE, 110, np.uint8)
    infrared[150:190, 100:140] = 150 + texture(5)[150:190, 100:140].clip(-20, 20).astype(np.int16)
    visible = np.repeat(infrared[:, :, None], 3, 2)
    mask = np.zeros(SIZE, bool)
    mask[150:190, 100:140] = True
    for share in range(44, 57, 2):
        with_sky = infrared.copy()
        with_sky[: SIZE[0] * share // 100] = 30
        if share == 44:
            tracks = Tracks([instance(mask)], SIZE, flow_image(visible, with_sky))
        tracks.advance(flow_image(visible, with_sky))
        assert overlap(tracks.carried()[0].mask, mask) > 0.9, share


def test_a_newly_located_object_replaces_the_tracked_one_of_the_same_stamp() -> None:
    image = flow_image(*frame(60))
    first = Tracks([instance(square(60), track=3)], SIZE, image)
    (tracked,) = first.carried()
    located = instance(square(66), track=3)
    assert located.stamp == tracked.stamp
    assert np.array_equal(Tracks([located], SIZE, image, first).carried()[0].mask, square(66))


def test_a_track_continues_from_the_located_mask_over_key_frames() -> None:
    """A mask that was resampled at each key frame would differ in single pixels."""
    uninterrupted, continued = (Tracks([instance(square(60))], SIZE, flow_image(*frame(60))) for _ in range(2))
    for left in range(63, 91, 3):
        image = flow_image(*frame(left))
        uninterrupted.advance(image)
        continued.advance(image)
        continued = Tracks(continued.carried(), SIZE, image, continued)
    assert np.array_equal(continued.carried()[0].mask, uninterrupted.carried()[0].mask)
    assert continued.carried()[0].box == uninterrupted.carried()[0].box


def test_an_object_without_texture_stays_in_place_while_the_image_is_still() -> None:
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


def test_a_missed_object_is_kept_unless_a_new_one_covers_it() -> None:
    identities = Identities()
    old = identities.merge((), [instance(square(20), stamp=1.0), instance(square(150), stamp=1.0)])
    merged = identities.merge(old, [instance(square(24), stamp=2.0)])
    assert {(item.track, item.stamp) for item in merged} == {(1, 2.0), (2, 1.0)}
    cover = np.zeros(SIZE, bool)
    cover[:, 100:] = True
    merged = identities.merge(old, [instance(cover, stamp=2.0)])
    assert {(item.track, item.stamp) for item in merged} == {(3, 2.0), (1, 1.0)}


def test_objects_of_different_phrases_are_not_matched() -> None:
    identities = Identities()
    old = identities.merge((), [instance(square(20), phrase=1)])
    assert [item.track for item in identities.merge(old, [instance(square(20), phrase=2)])] == [2]


def test_images_of_any_size_can_be_tracked() -> None:
    for height, width in ((8, 8), (20, 900), (1200, 1920)):
        infrared = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        image = flow_image(np.repeat(infrared[:, :, None], 3, 2), infrared)
        assert max(image.shape) <= 480
        mask = np.ones((height, width), bool)
        tracks = Tracks([instance(mask)], (height, width), image)
        tracks.advance(image)
        assert tracks.carried()[0].mask.shape == (height, width)
