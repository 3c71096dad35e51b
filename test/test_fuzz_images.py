"""Whatever the bytes are: an image, or one typed error of one line, within bounded memory.

Bounded in CI; longer by ``pytest test/test_fuzz_images.py --hypothesis-profile fuzz``.
"""

from __future__ import annotations

import io
import struct
import tracemalloc

import cv2
import numpy as np
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from textdifuse_ros.errors import EncodingError, FileError
from textdifuse_ros.image.coded import decode_compressed, decode_file

MAX_PIXELS = 4096
MAX_MEMORY = 32 << 20  # bytes; a file of a few kilobytes, at most 4096 pixels of 8 bytes, and the parsers
COMPRESSION, PREDICTOR = 259, 317  # tags, which OpenCV takes as parameters
RNG = np.random.default_rng(0)
GREY, COLOR = RNG.integers(0, 65536, (11, 13), np.uint16), RNG.integers(0, 256, (11, 13, 3), np.uint8)


def by_opencv(suffix, image, *options):
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def by_tifffile(image, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, image, **options)
    return file.getvalue()


FILES = [
    by_opencv(".png", GREY),
    by_opencv(".png", COLOR),
    by_opencv(".jpg", COLOR),
    by_opencv(".jpg", COLOR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    by_opencv(".bmp", COLOR),
    *(by_opencv(".tif", image, COMPRESSION, code) for image in (GREY, COLOR) for code in (1, 5, 8, 32773)),
    by_opencv(".tif", COLOR, COMPRESSION, 7),
    by_opencv(".tif", GREY.astype(np.float32), PREDICTOR, 3),
    by_tifffile(GREY, photometric="miniswhite", byteorder=">"),
    by_tifffile(GREY.astype(np.float16), bigtiff=True, compression="lzma"),
    by_tifffile(np.moveaxis(COLOR, 2, 0), photometric="rgb", planarconfig="separate", tile=(16, 16)),
    by_tifffile(np.stack([GREY] * 3), photometric="minisblack", metadata={"axes": "ZYX"}),
]
SIGNATURES = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"]
CODES = [254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347]
VALUES = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 16, 24, 32, 64, 257, 4096, 32773, 65535, 1 << 31]),
    st.integers(0, (1 << 32) - 1),
)
BYTES = st.binary(max_size=200)


@st.composite
def damaged(draw):
    """A whole file with bytes replaced, removed or inserted, or cut short."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@st.composite
def tagged(draw):
    """A TIFF of one strip with some tags of any type and value."""
    pixels = draw(BYTES)
    tags = {256: 13, 257: 11, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 11, 279: len(pixels)}
    tags |= draw(st.dictionaries(st.sampled_from(CODES), VALUES, max_size=6))
    order = draw(st.sampled_from("<>"))
    entries = b""
    for code in sorted(tags):
        kind, count = draw(
            st.sampled_from([(4, 1)] * 8 + [(3, 1), (1, 4), (4, 3), (5, 1), (12, 1), (4, 1 << 30), (99, 1)])
        )
        entries += struct.pack(f"{order}HHII", code, kind, count, tags[code])
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4) + pixels


CONTENT = st.one_of(damaged(), tagged(), st.builds(bytes.__add__, st.sampled_from(SIGNATURES), BYTES), BYTES)


def check_image(image):
    assert image.ndim in (2, 3) and 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS
    assert image.ndim == 2 or image.shape[2] == 3
    assert image.dtype.name in ("uint8", "uint16", "float32", "float64") and image.dtype.isnative


def check_error(error):
    text = str(error)
    assert "\n" not in text and len(text) < 1000 and " must be " in text and ", got " in text


@given(CONTENT)
def test_a_file_gives_an_image_or_a_typed_error(data):
    tracemalloc.start()
    try:
        check_image(decode_file(data, "a.png", max_pixels=MAX_PIXELS))
    except FileError as error:
        check_error(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MAX_MEMORY


@given(CONTENT, st.one_of(st.text(max_size=40), st.sampled_from(["rgb8; jpeg compressed bgr8", "bayer_rggb16; png"])))
def test_a_compressed_message_gives_an_image_or_a_typed_error(data, form):
    try:
        check_image(decode_compressed(data, form, max_pixels=MAX_PIXELS))
    except EncodingError as error:
        check_error(error)


@given(damaged())
def test_reading_the_same_bytes_twice_gives_the_same_image_or_error(data):
    """Memory that was not written does not show up as pixels."""
    results = []
    for _ in range(2):
        try:
            results.append(decode_file(data, "a.png", max_pixels=MAX_PIXELS).tobytes())
        except FileError as error:
            results.append(str(error))
    assert results[0] == results[1]
