"""PNG, JPEG and BMP: orientation is ignored, and what is not supported is not called damaged."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from textdifuse_ros.errors import EncodingError, FileError
from textdifuse_ros.image.coded import decode_compressed, decode_file

RNG = np.random.default_rng(0)


def coded(suffix, image):
    return cv2.imencode(suffix, image)[1].tobytes()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def exif(orientation):
    """EXIF data, a TIFF directory, with an orientation only."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(24, 40), (24, 40, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_orientation_of_png_is_ignored(orientation, shape, dtype):
    data = coded(".png", RNG.integers(0, 256, shape).astype(dtype))
    turned = data[:33] + chunk(b"eXIf", exif(orientation)) + data[33:]
    assert np.array_equal(decode_file(turned, "a.png"), decode_file(data, "a.png"))
    assert np.array_equal(decode_compressed(turned, "png"), decode_compressed(data, "png"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(24, 40), (24, 40, 3)])
def test_orientation_of_jpeg_is_ignored(orientation, shape):
    data = coded(".jpg", RNG.integers(0, 256, shape).astype(np.uint8))
    content = b"Exif\0\0" + exif(orientation)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]
    assert np.array_equal(decode_file(turned, "a.jpg"), decode_file(data, "a.jpg"))
    assert np.array_equal(decode_compressed(turned, "jpeg"), decode_compressed(data, "jpeg"))


def with_frame(mark, bits=8, channels=1):
    """A JPEG file whose frame header is another one."""
    data = bytearray(coded(".jpg", np.zeros((24, 40), np.uint8)))
    at = data.find(b"\xff\xc0\0")
    data[at + 1], data[at + 4], data[at + 9] = mark, bits, channels
    return bytes(data)


UNSUPPORTED = {
    "12 bits": (with_frame(0xC1, bits=12), "12 bits, 1 channels, extended"),
    "lossless": (with_frame(0xC3), "8 bits, 1 channels, lossless"),
    "hierarchical": (with_frame(0xC5), "process 5"),
    "lossless, arithmetic": (with_frame(0xCB, bits=16), "16 bits, 1 channels, process 11"),
    "bmp with jpeg": (
        b"BM" + struct.pack("<IIIIiiHHII", 200, 0, 54, 40, 8, 8, 1, 24, 4, 100) + bytes(200),
        "BMP, 8 x 8 pixels, 24 bits, compression 4",
    ),
    "wide png": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 3_000_000, 1, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(3_000_001)))
        + chunk(b"IEND", b""),
        "PNG, 3000000 x 1 pixels, 8 bits, grey",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_named_and_not_called_damaged(name):
    data, found = UNSUPPORTED[name]
    for raised, decode in ((FileError, decode_file), (EncodingError, decode_compressed)):
        with pytest.raises(raised) as caught:
            decode(data, "mono8")
        assert "must be an image of a supported kind, got" in str(caught.value) and found in str(caught.value)
        assert not any(word in str(caught.value) for word in ("damaged", "truncated", "copy it again"))


def test_damaged_pixels_of_a_whole_file_are_called_so():
    png = coded(".png", np.zeros((24, 40), np.uint8))
    data = png[:33] + chunk(b"IDAT", b"no zlib stream") + chunk(b"IEND", b"")
    with pytest.raises(FileError, match=r"must be a readable PNG image, got damaged data .*; copy it again"):
        decode_file(data, "a.png")
