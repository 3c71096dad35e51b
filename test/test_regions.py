"""Contrast of objects, change outside a mask, flicker."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from textdifuse_ros.errors import ImageError
from textdifuse_ros.metrics.regions import (
    OutsideChange,
    box_masks,
    change_outside,
    contrast_gain,
    find_motion,
    flicker,
    instance_masks,
    object_contrast,
)


def test_contrast_is_the_difference_of_inside_and_ring() -> None:
    grey = np.full((60, 80), 50, np.uint8)
    grey[20:30, 30:40] = 120
    masks = box_masks([(30, 20, 40, 30)], 60, 80)
    assert object_contrast(grey, masks) == pytest.approx([70])
    assert object_contrast(255 - grey, masks) == pytest.approx([70])  # a dark object counts as much


def test_the_ring_is_ten_pixels_wide_and_round() -> None:
    grey = np.zeros((61, 61))
    masks = box_masks([(30, 30, 31, 31)], 61, 61)
    y, x = np.mgrid[:61, :61]
    away = np.hypot(x - 30, y - 30)
    grey[away > 10] = 255
    assert object_contrast(grey, masks) == pytest.approx([0])
    grey[away > 9.5] = 100
    share = np.count_nonzero((away > 9.5) & (away <= 10)) / (np.count_nonzero(away <= 10) - 1)
    assert object_contrast(grey, masks) == pytest.approx([100 * share])


def test_other_objects_are_no_part_of_the_ring() -> None:
    grey = np.full((40, 60), 10, np.uint8)
    masks = box_masks([(10, 10, 20, 20), (20, 10, 30, 20)], 40, 60)
    grey[masks[0]], grey[masks[1]] = 90, 250
    assert object_contrast(grey, masks) == pytest.approx([80, 240])


def test_an_empty_object_and_one_without_surroundings_have_no_contrast() -> None:
    grey = np.arange(400, dtype=np.float64).reshape(20, 20) / 2
    masks = np.zeros((2, 20, 20), bool)
    masks[1] = True
    assert np.isnan(object_contrast(grey, masks)).all()
    masks[1, :, 19] = False
    contrasts = object_contrast(grey, masks)
    assert math.isnan(contrasts[0])
    assert contrasts[1] == pytest.approx(5)  # the ring is the last column, ten columns of 1/2 a level from the middle
    assert object_contrast(grey, np.zeros((0, 20, 20), bool)).shape == (0,)


def test_boxes_exclude_their_far_edges_and_are_clipped() -> None:
    masks = box_masks(np.array([(-3, 1, 2, 3), (4, 0, 99, 1), (7, 7, 9, 9)]), 4, 6)
    assert [int(mask.sum()) for mask in masks] == [4, 2, 0]
    assert masks[0, 1:3, :2].all()


def test_instances_become_one_mask_each() -> None:
    instances = np.array([[0, 7, 7], [3, 0, 7]], np.uint16)
    masks = instance_masks(instances)
    assert masks.dtype == bool
    assert masks.astype(int).tolist() == [[[0, 0, 0], [1, 0, 0]], [[0, 1, 1], [0, 0, 1]]]


def test_gain_is_the_ratio_of_the_mean_contrasts() -> None:
    assert contrast_gain(np.array([30.0, 12.0]), np.array([20.0, 10.0])) == pytest.approx(0.4)
    assert contrast_gain(np.array([30.0, np.nan, 5.0]), np.array([20.0, 10.0, np.nan])) == pytest.approx(0.5)


def test_gain_without_objects_or_contrast_is_nan() -> None:
    assert math.isnan(contrast_gain(np.array([]), np.array([])))
    assert math.isnan(contrast_gain(np.array([np.nan]), np.array([3.0])))
    assert math.isnan(contrast_gain(np.array([4.0]), np.array([0.0])))


def test_change_outside_sees_one_level_in_one_channel_and_nothing_inside() -> None:
    plain = np.full((10, 10, 3), 200, np.uint8)
    image, mask = plain.copy(), np.zeros((10, 10), bool)
    mask[:5] = True
    image[:5] = 0
    assert change_outside(image, plain, mask) == OutsideChange(0, 0)
    image[7, 7, 1] = 203
    image[8, 7] = (199, 199, 199)
    assert change_outside(image, plain, mask) == OutsideChange(2 / 50, 3)
    assert change_outside(plain[..., 0], plain[..., 0], mask) == OutsideChange(0, 0)


def test_change_outside_a_mask_of_everything_is_nan() -> None:
    plain = np.zeros((4, 4), np.uint8)
    change = change_outside(plain, plain, np.ones((4, 4), bool))
    assert math.isnan(change.share)
    assert math.isnan(change.largest)


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """Spots of full contrast, smooth enough to be moved by parts of a pixel: uint8 [height, width]."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width))
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 20, 230, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture
def scene() -> np.ndarray:
    return texture(120, 160, 0)


def test_flicker_follows_the_motion(scene: np.ndarray) -> None:
    before, now = scene[:, 10:], scene[:, 6:-4]  # everything moves four pixels to the right
    motion = find_motion(before, now)
    assert np.median(motion.flow[..., 0]) == pytest.approx(-4, abs=0.1)
    assert motion.known[10:-10, 10:-10].mean() > 0.95
    assert not motion.known[:, :2].any()  # came into the image
    still = np.abs(now.astype(float) - before).mean()
    assert flicker(before, now, motion) < 0.1 * still
    assert flicker(before, now + np.uint8(9), motion) == pytest.approx(9, abs=1)


def test_what_an_object_uncovers_is_not_judged(scene: np.ndarray) -> None:
    before, now = scene.copy(), scene.copy()
    before[40:80, 50:90] = now[40:80, 62:102] = texture(40, 40, 3)
    motion = find_motion(before, now)
    assert motion.known[40:80, 50:62].mean() < 0.4
    assert motion.known[45:75, 70:95].mean() > 0.8  # the object itself is followed
    assert motion.known[:30].mean() > 0.95


def test_flicker_of_equal_still_frames_is_zero_and_grows_with_noise(scene: np.ndarray) -> None:
    motion = find_motion(scene, scene)
    assert flicker(scene, scene, motion) == pytest.approx(0, abs=0.05)
    first, second = np.random.default_rng(1).normal(0, 10, (2, *scene.shape))
    # The mean of the absolute difference of two Gaussians of sigma 10
    assert flicker(scene + first, scene + second, motion) == pytest.approx(10 * 2 / math.sqrt(math.pi), rel=0.1)


def test_flicker_without_known_motion_is_nan(scene: np.ndarray) -> None:
    motion = find_motion(scene, scene)
    motion.known[:] = False
    assert math.isnan(flicker(scene, scene, motion))


def test_images_that_do_not_fit_are_refused(scene: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"bool \[N, 120, 160\]"):
        object_contrast(scene, np.zeros((1, 60, 80), bool))
    with pytest.raises(ImageError, match="the mask"):
        change_outside(scene, scene, np.zeros((60, 80), bool))
    with pytest.raises(ImageError, match="the contrasts"):
        contrast_gain(np.zeros(2), np.zeros(3))
    with pytest.raises(ImageError, match="at least 32 x 32"):
        find_motion(scene[:31], scene[:31])
    with pytest.raises(ImageError, match="a frame of the reference"):
        find_motion(scene.astype(float), scene.astype(float))
    with pytest.raises(ImageError, match="the frame"):
        flicker(scene[1:], scene, find_motion(scene, scene))
