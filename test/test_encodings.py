"""Decoding and encoding of image messages, with padding and both byte orders."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdifuse_ros.errors import EncodingError, ImageError
from textdifuse_ros.image.encodings import ENCODINGS, decode_image, encode_image, to_infrared, to_visible

# The order of a pixel's values in a message; "y" is the only value of a grey image.
ORDERS = {"mono{}": "y", "{}UC1": "y", "rgb{}": "rgb", "bgr{}": "bgr", "rgba{}": "rgba", "bgra{}": "bgra"}
ORDERS |= {"{}UC3": "bgr", "{}UC4": "bgra"}
PLAIN = {name.format(bits): (np.dtype(f"u{bits // 8}"), order) for name, order in ORDERS.items() for bits in (8, 16)}
PLAIN["32FC1"] = (np.dtype("f4"), "y")
BAYER = [f"bayer_{pattern}{bits}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)]
YUV = {"uyvy": "uyvy", "yuv422": "uyvy", "yuyv": "yuyv", "yuv422_yuy2": "yuyv"}


PLANES = {"nv12": "uv", "nv21": "vu"}


def pack(values: np.ndarray, big: bool, padding: int) -> tuple[bytes, int]:
    """Message bytes and step of values [H, W] or [H, W, C], with nonzero padding."""
    rows = values.astype(values.dtype.newbyteorder(">" if big else "<")).reshape(len(values), -1)
    raw = [row.tobytes() + b"\xa5" * padding for row in rows]
    return b"".join(raw), len(raw[0])


def test_all_supported_encodings_are_tested():
    assert set(ENCODINGS) == {*PLAIN, *BAYER, *YUV, *PLANES}


@settings(max_examples=150, deadline=None)
@given(
    encoding=st.sampled_from(sorted(PLAIN)),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 7),
    big=st.booleans(),
    surplus=st.integers(0, 5),
    seed=st.integers(0, 2**16),
)
def test_decoding_is_exact_for_any_encoding_padding_byte_order_and_size(
    encoding, height, width, padding, big, surplus, seed
):
    dtype, order = PLAIN[encoding]
    image = np.random.default_rng(seed).integers(0, 256 if dtype == np.uint8 else 65536, (height, width, 4))
    image = image.astype(dtype)
    stored = image[..., ["rgba".index(channel) if channel in "rgba" else 0 for channel in order]]
    data, step = pack(stored, big, padding)
    decoded = decode_image(data + b"\x11" * surplus, height, width, step, encoding, big)
    expected = image[..., 0] if order == "y" else image[..., :3]
    assert decoded.dtype == dtype and decoded.dtype.isnative
    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize("encoding", BAYER)
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_a_mosaic_of_one_color_is_decoded_to_that_color(encoding, big, padding):
    """The pattern's letters name the colors of pixels (0,0) (0,1) (1,0) (1,1), as ROS defines them."""
    pattern, dtype = encoding[6:10], np.uint8 if encoding.endswith("8") else np.uint16
    scale = 1 if dtype == np.uint8 else 257
    color = {"r": 200 * scale, "g": 90 * scale, "b": 20 * scale}
    mosaic = np.zeros((8, 10), dtype)
    for place, letter in enumerate(pattern):
        mosaic[place // 2 :: 2, place % 2 :: 2] = color[letter]
    data, step = pack(mosaic, big, padding)
    decoded = decode_image(data, 8, 10, step, encoding, big)
    assert decoded.dtype == dtype and decoded.shape == (8, 10, 3)
    assert np.all(decoded == [color["r"], color["g"], color["b"]])


@pytest.mark.parametrize("encoding", YUV)
@pytest.mark.parametrize("padding", [0, 5])
def test_yuv422_is_decoded_to_the_encoded_color(encoding, padding):
    rgb = np.array([180.0, 60.0, 30.0])
    luma = rgb @ [0.299, 0.587, 0.114]
    values = {
        "y": 16 + luma * 219 / 255,
        "u": 128 + (rgb[2] - luma) / 1.772 * 224 / 255,
        "v": 128 + (rgb[0] - luma) / 1.402 * 224 / 255,
    }
    stored = np.tile(np.array([values[letter] for letter in YUV[encoding]]).round().astype(np.uint8), (6, 4))
    data, step = pack(stored, False, padding)
    decoded = decode_image(data, 6, 8, step, encoding, False)
    assert decoded.shape == (6, 8, 3) and np.abs(decoded - rgb).max() <= 2


@pytest.mark.parametrize("encoding", PLANES)
@pytest.mark.parametrize("padding", [0, 5])
def test_two_planes_are_decoded_to_the_encoded_colors(encoding, padding):
    """Two colors side by side reveal a shift between chroma and luma."""
    colors = np.array([[180.0, 60.0, 30.0], [40.0, 90.0, 200.0]])
    luma = colors @ [0.299, 0.587, 0.114]
    blue, red = (colors[:, 2] - luma) / 1.772, (colors[:, 0] - luma) / 1.402
    planes = {"u": 128 + blue * 224 / 255, "v": 128 + red * 224 / 255}
    above = np.repeat(16 + luma * 219 / 255, 4)
    below = np.repeat(np.stack([planes[letter] for letter in PLANES[encoding]], 1), 2, 0).reshape(-1)
    stored = np.vstack([np.tile(above, (6, 1)), np.tile(below, (3, 1))]).round().astype(np.uint8)
    data, step = pack(stored, False, padding)
    decoded = decode_image(data, 6, 8, step, encoding, False)
    assert decoded.shape == (6, 8, 3) and np.abs(decoded - np.repeat(colors, 4, 0)).max() <= 2


@settings(max_examples=60, deadline=None)
@given(
    encoding=st.sampled_from(BAYER),
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    padding=st.integers(0, 7),
    big=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_demosaicing_keeps_the_measured_values(encoding, height, width, padding, big, seed):
    """Interpolation only adds the missing colors, except at the border, where OpenCV replicates neighbors."""
    pattern, dtype = encoding[6:10], np.uint8 if encoding.endswith("8") else np.uint16
    mosaic = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width)).astype(dtype)
    data, step = pack(mosaic, big, padding)
    decoded = decode_image(data, height, width, step, encoding, big)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            measured = "rgb".index(pattern[2 * (y % 2) + x % 2])
            assert decoded[y, x, measured] == mosaic[y, x]


@settings(max_examples=60, deadline=None)
@given(
    encoding=st.sampled_from(sorted(YUV)),
    height=st.integers(1, 6),
    pairs=st.integers(1, 5),
    padding=st.integers(0, 7),
    seed=st.integers(0, 2**16),
)
def test_yuv422_follows_bt601_at_every_pixel(encoding, height, pairs, padding, seed):
    rng = np.random.default_rng(seed)
    order = YUV[encoding]
    luma, chroma = rng.integers(16, 236, (height, 2 * pairs)), rng.integers(16, 241, (height, pairs, 2))
    stored = np.zeros((height, pairs, 4), np.uint8)
    stored[..., [i for i, letter in enumerate(order) if letter == "y"]] = luma.reshape(height, pairs, 2)
    stored[..., order.index("u")], stored[..., order.index("v")] = chroma[..., 0], chroma[..., 1]
    data, step = pack(stored.reshape(height, -1), False, padding)
    decoded = decode_image(data, height, 2 * pairs, step, encoding, False)
    y = (luma - 16) * 255 / 219
    u, v = (np.repeat((chroma[..., i] - 128) * 255 / 224, 2, 1) for i in (0, 1))
    green = y - (0.114 * 1.772 * u + 0.299 * 1.402 * v) / 0.587
    expected = np.clip(np.stack((y + 1.402 * v, green, y + 1.772 * u), 2), 0, 255)
    assert np.abs(decoded - expected).max() <= 2


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda b: array("B", b), lambda b: np.frombuffer(b, "u1")]
)
def test_any_contiguous_buffer_is_accepted(kind):
    assert decode_image(kind(bytes(range(12))), 2, 2, 6, "rgb8", False).tolist()[1][1] == [9, 10, 11]


def test_an_image_that_needs_no_conversion_is_a_view():
    data = array("B", bytes(12))
    decoded = decode_image(data, 2, 2, 6, "rgb8", False)
    data[0] = 77
    assert decoded[0, 0, 0] == 77


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_a_constant_image_is_valid_as_visible_and_infrared(encoding):
    data = b"\x40" * (8 * 8 * 4 * 3)
    decoded = decode_image(data, 8, 8, 8 * 8, encoding, False)
    infrared = to_infrared(decoded)
    assert infrared.shape == (8, 8) and infrared.min() == infrared.max()
    if encoding != "32FC1":
        assert to_visible(decoded).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("length", "height", "width", "step", "encoding", "message"),
    [
        (47, 4, 4, 12, "rgb8", r"data must be at least step \* height = 12 \* 4 = 48 bytes long, got 47"),
        (0, 4, 4, 12, "rgb8", "got 0"),
        (48, 4, 4, 11, "rgb8", "step must be at least 12 bytes for 4 pixels in rgb8, got 11"),
        (48, 4, 4, 0, "mono8", "step must be at least 4 bytes"),
        (48, 0, 4, 12, "rgb8", "at least 1 x 1 pixels, got 4 x 0"),
        (48, 4, 0, 12, "rgb8", "at least 1 x 1 pixels, got 0 x 4"),
        (10, 2**32 - 1, 2**32 - 1, 2**32 - 1, "mono8", "got 10"),
        (48, 2, 2, 12, "bayer_rggb8", "an image in bayer_rggb8 must be at least 3 x 3 pixels"),
        (48, 4, 5, 12, "uyvy", r"the width of an image in uyvy must be even \[pixels\], got 5"),
        (48, 4, 4, 12, "rgb565", "the encoding must be one of .*rgb8.*, got 'rgb565'"),
        (23, 4, 4, 4, "nv12", r"at least step \* height \* 3 / 2 = 4 \* 6 = 24 bytes long, got 23"),
        (48, 3, 4, 4, "nv21", r"the height of an image in nv21 must be even \[pixels\], got 3"),
        (48, 4, 4, 12, "", "the encoding must be one of"),
        (48, 4, 4, 12, "RGB8", "the encoding must be one of"),
    ],
)
def test_an_invalid_message_is_rejected_with_the_actual_values(length, height, width, step, encoding, message):
    with pytest.raises(EncodingError, match=message):
        decode_image(bytes(length), height, width, step, encoding, False)


def test_float_images_are_for_infrared_only():
    kelvin = np.linspace(280, 310, 64, dtype=np.float32).reshape(8, 8)
    data, step = pack(kelvin, True, 4)
    decoded = decode_image(data, 8, 8, step, "32FC1", True)
    infrared = to_infrared(decoded)
    assert infrared.dtype == np.uint8 and infrared[0, 0] == 0 and infrared[7, 7] == 255
    with pytest.raises(EncodingError, match="the visible image must be of 8 or 16 bits"):
        to_visible(decoded)
    kelvin[0, 0] = np.nan
    with pytest.raises(ImageError, match="1 of 64 pixels NaN"):
        to_infrared(kelvin)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_is_repeated_and_color_reduced_to_luma(dtype):
    top = int(np.iinfo(dtype).max)
    grey = np.array([[0, top], [top // 3, 5]], dtype)
    visible = to_visible(grey)
    assert visible.dtype == dtype and all(np.array_equal(visible[..., c], grey) for c in range(3))
    assert np.array_equal(to_infrared(visible), grey)
    assert to_visible(visible) is visible and to_infrared(grey) is grey
    red = np.zeros((1, 1, 3), dtype)
    red[..., 0] = top
    assert abs(int(to_infrared(red)[0, 0]) - 0.299 * top) <= 1 + top / 2**14


def test_a_read_only_padded_view_can_be_converted():
    decoded = decode_image(bytes(range(100)), 4, 4, 25, "rgb8", False)
    assert np.array_equal(to_infrared(decoded), cv2.cvtColor(decoded.copy(), cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize(("encoding", "shape"), [("rgb8", (3, 5, 3)), ("bgr8", (3, 5, 3)), ("mono8", (3, 5))])
@pytest.mark.parametrize("cut", [False, True])
def test_decoding_inverts_encoding(encoding, shape, cut):
    image = np.random.default_rng(1).integers(0, 256, (3, 10, *shape[2:]), dtype=np.uint8)
    image = image[:, ::2] if cut else image[:, :5].copy()
    data, step = encode_image(image, encoding)
    assert step == 5 * (3 if len(shape) == 3 else 1)
    target = array("B")
    target.frombytes(data)  # as a message's data are set
    assert len(target) == step * 3
    assert np.array_equal(decode_image(target, 3, 5, step, encoding, False), image)


@pytest.mark.parametrize(
    ("shape", "dtype", "encoding"),
    [
        ((3, 5), np.uint8, "rgb8"),
        ((3, 5, 3), np.uint8, "mono8"),
        ((3, 5, 3), np.uint16, "rgb8"),
        ((3, 5), np.uint8, "x"),
    ],
)
def test_an_image_that_does_not_match_the_encoding_is_rejected(shape, dtype, encoding):
    with pytest.raises(EncodingError):
        encode_image(np.zeros(shape, dtype), encoding)
