"""Decoding of ``sensor_msgs/CompressedImage`` as written by image_transport and camera drivers."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest

from textdifuse_ros.errors import EncodingError
from textdifuse_ros.image.coded import decode_compressed


def coded(image: np.ndarray, ending: str) -> bytes:
    """Encode with OpenCV: colors in BGR order."""
    return cv2.imencode(ending, image)[1].tobytes()


@pytest.fixture
def rgb() -> np.ndarray:
    image = np.zeros((24, 32, 3), np.uint8)
    image[:] = (210, 120, 30)
    image[8:16, 8:16] = (20, 60, 200)
    return image


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize(
    "form",
    [
        "rgb8; {} compressed bgr8",
        "bgr8; {} compressed bgr8",
        "rgba8; {} compressed bgr8",
        "yuv422_yuy2; {} compressed bgr8",
        "{}",
        "",
        "{} compressed bgr8",
    ],
)
def test_colors_are_preserved_for_every_message_format(rgb, ending, form):
    data = array("B", coded(rgb[:, :, ::-1], ending))
    decoded = decode_compressed(data, form.format({".png": "png", ".jpg": "jpeg"}[ending]))
    assert decoded.shape == rgb.shape and np.abs(decoded.astype(int) - rgb).mean() < 4


def test_rgb_order_is_read_like_image_transport_does(rgb):
    decoded = decode_compressed(coded(rgb, ".png"), "rgb8; png compressed rgb8")
    assert np.array_equal(decoded, rgb)


def test_sixteen_bit_counts_are_exact_in_png_and_rejected_in_jpeg():
    counts = np.random.default_rng(0).integers(28000, 31000, (20, 30)).astype(np.uint16)
    assert np.array_equal(decode_compressed(coded(counts, ".png"), "mono16; png compressed "), counts)
    assert np.array_equal(decode_compressed(coded(counts, ".png"), "16UC1; png compressed "), counts)
    eight = coded((counts >> 8).astype(np.uint8), ".jpg")
    with pytest.raises(EncodingError, match=r"compressed as PNG, got 'mono16; jpeg.*set the format of its publisher"):
        decode_compressed(eight, "mono16; jpeg compressed ")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_compressed_mosaic_is_demosaiced(dtype):
    scale = np.iinfo(dtype).max // 255
    mosaic = np.zeros((8, 10), dtype)
    for place, value in enumerate((200, 90, 90, 20)):
        mosaic[place // 2 :: 2, place % 2 :: 2] = value * scale
    bits = 8 * np.dtype(dtype).itemsize
    decoded = decode_compressed(coded(mosaic, ".png"), f"bayer_rggb{bits}; png compressed ")
    assert decoded.dtype == dtype and np.all(decoded == np.array([200, 90, 20]) * scale)
    with pytest.raises(EncodingError, match="an image in bayer_rggb"):
        decode_compressed(coded(mosaic, ".png"), f"bayer_rggb{24 - bits}; png compressed ")


def test_compressed_depth_is_rejected_with_a_remedy():
    with pytest.raises(EncodingError, match=r"quantized depth\); use the topic \.\.\./compressed"):
        decode_compressed(b"\0" * 12 + coded(np.zeros((8, 8), np.uint16), ".png"), "16UC1; compressedDepth png")


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("left", [0, 3, 60, -9])
def test_a_truncated_message_is_rejected(rgb, ending, left):
    with pytest.raises(EncodingError, match=r"the compressed image must be"):
        decode_compressed(coded(rgb, ending)[:left], "rgb8; jpeg compressed bgr8")
