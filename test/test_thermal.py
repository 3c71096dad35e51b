"""Conversion of 16-bit and float images to 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from textdifuse_ros.errors import ImageError
from textdifuse_ros.image.thermal import stretch, stretch_limits, to_uint8


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_eight_bit_images_pass_unchanged(shape):
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert to_uint8(image) is image


def test_sixteen_bit_visible_images_are_scaled_and_never_stretched():
    eight = np.arange(256, dtype=np.uint16).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(to_uint8(eight * 257), eight)
    dark = np.full((8, 8, 3), 1000, np.uint16)
    assert np.array_equal(to_uint8(dark), np.full((8, 8, 3), 4, np.uint8))  # 1000 / 257 = 3.89


def test_infrared_counts_are_stretched_between_their_percentiles():
    counts = (7000 + np.arange(1000)).astype(np.uint16).reshape(25, 40)
    result = to_uint8(counts)
    low, high = stretch_limits(counts)
    assert (low, high) == tuple(np.percentile(counts, (0.5, 99.5), method="nearest")) == (7005.0, 7994.0)
    assert result.min() == 0 and result.max() == 255
    assert result.reshape(-1)[499] == round((7499 - low) / (high - low) * 255)
    assert np.all(result.reshape(-1)[:6] == 0) and np.all(result.reshape(-1)[994:] == 255)


def test_a_hot_pixel_does_not_darken_the_scene():
    counts = (7000 + np.arange(1000)).astype(np.uint16).reshape(25, 40)
    hot = counts.copy()
    hot[3, 3] = 65535
    assert abs(to_uint8(hot).astype(int) - to_uint8(counts)).mean() < 1


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0, 300, 65535])
def test_a_constant_infrared_image_becomes_mid_grey(dtype, value):
    assert np.all(to_uint8(np.full((9, 9), value, dtype)) == 128)


def test_a_small_warm_object_on_a_uniform_background_stays_visible():
    counts = np.full((100, 100), 7000, np.uint16)
    counts[50, 50:53] = 7400  # 0.03 % of the image: both percentiles lie in the background
    result = to_uint8(counts)
    assert np.all(result[50, 50:53] == 255) and result[0, 0] == 0


def test_temperatures_and_counts_of_the_same_scene_agree():
    counts = np.random.default_rng(0).integers(7000, 9000, (40, 50)).astype(np.uint16)
    assert np.array_equal(to_uint8(counts), to_uint8(counts.astype(np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_are_rejected_with_their_number(bad):
    image = np.ones((4, 5), np.float32)
    image[1, :2] = bad
    with pytest.raises(ImageError, match="the thermal frame must be finite everywhere, got 2 of 20 pixels"):
        to_uint8(image, "the thermal frame")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.int16),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4), np.uint16),
        np.zeros(4, np.uint16),
    ],
)
def test_other_types_and_shapes_are_rejected(image):
    with pytest.raises(ImageError, match="the image must be"):
        to_uint8(image)


@settings(max_examples=80, deadline=None)
@given(
    arrays(np.float32, (6, 7), elements=st.floats(allow_nan=False, allow_infinity=False, width=32))
    | arrays(np.float64, (6, 7), elements=st.floats(allow_nan=False, allow_infinity=False))
    | arrays(np.uint16, (6, 7))
)
def test_stretching_is_monotonic_for_any_finite_image(image):
    with np.errstate(all="raise", under="ignore"):
        result = to_uint8(image)
    order = np.argsort(image, axis=None, kind="stable")
    assert np.all(np.diff(result.reshape(-1)[order].astype(int)) >= 0)
    if image.min() != image.max():
        assert result.min() == 0 and result.max() == 255


def test_stretch_uses_the_given_limits():
    image = np.array([[0, 100, 200, 300]], np.uint16)
    assert stretch(image, 100.0, 200.0).tolist() == [[0, 0, 255, 255]]
