"""Images are bounded by their header before they are decoded, and only regular files are read."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile

from textdifuse_ros.config.sensors import NAMES, SensorConfig
from textdifuse_ros.errors import EncodingError, FileError
from textdifuse_ros.image.coded import decode_compressed, decode_file
from textdifuse_ros.image.files import find_pairs, read_infrared, read_infrared_levels, read_visible
from textdifuse_ros.image.intake import BAD_INFRARED, BAD_VISIBLE, IntakeError, SensorIntake

HEIGHT, WIDTH = 20, 30
SIDE = 25_000


def by_tifffile(image, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, image, photometric="rgb" if image.ndim == 3 else "minisblack", **options)
    return file.getvalue()


def by_opencv(suffix, *options):
    return lambda image: cv2.imencode(suffix, image, list(options))[1].tobytes()


FORMATS = {
    "png": by_opencv(".png"),
    "jpeg": by_opencv(".jpg"),
    "progressive jpeg": by_opencv(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "bmp": by_opencv(".bmp"),
    "tiff": by_opencv(".tif"),
    "big tiff": lambda image: by_tifffile(image, bigtiff=True),
    "tiled tiff": lambda image: by_tifffile(image, tile=(16, 16)),
    "jpeg tiff": by_opencv(".tif", 259, 7),
}


def claiming(data: bytes) -> bytes:
    """The same file with a header that claims 25,000 x 25,000 pixels."""
    changed = bytearray(data)
    if data[:4] == b"\x89PNG":
        struct.pack_into(">II", changed, 16, SIDE, SIDE)
        struct.pack_into(">I", changed, 29, zlib.crc32(changed[12:29]))
    elif data[:2] == b"\xff\xd8":
        at = min(data.find(mark) for mark in (b"\xff\xc0\0", b"\xff\xc2\0") if mark in data)
        struct.pack_into(">HH", changed, at + 5, SIDE, SIDE)
    elif data[:2] == b"BM":
        struct.pack_into("<ii", changed, 18, SIDE, -SIDE)
    else:
        page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
        for code in (256, 257):
            tag = page.tags[code]
            struct.pack_into("<H" if tag.dtype == 3 else "<I", changed, tag.valueoffset, SIDE)
    return bytes(changed)


@pytest.fixture
def no_decoding(monkeypatch):
    """Make every decoder of pixels fail the test."""

    def decode(*_: object) -> None:
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr(np, "empty", decode)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_that_claims_too_many_pixels_is_refused_before_it_is_decoded(name, channels, tmp_path, no_decoding):
    data = claiming(FORMATS[name](np.zeros((HEIGHT, WIDTH, channels), np.uint8).squeeze()))
    path = tmp_path / "image"
    path.write_bytes(data)
    for read in (read_visible, read_infrared, read_infrared_levels):
        with pytest.raises(FileError, match=r"at most 64 megapixels, got 25000 x 25000 pixels \(625 megapixels\)"):
            read(path)
    with pytest.raises(EncodingError, match="max_megapixels"):
        decode_compressed(data, "rgb8; jpeg compressed bgr8")


@pytest.mark.parametrize("name", FORMATS)
def test_the_limit_is_the_largest_accepted_image(name):
    data = FORMATS[name](np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert decode_file(data, "image", max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(FileError, match="30 x 20 pixels"):
        decode_file(data, "image", max_pixels=HEIGHT * WIDTH - 1)


@pytest.mark.parametrize("name", ["webp", "pnm", "jpeg 2000", "avif", "gif"])
def test_other_formats_are_refused_before_they_are_decoded(name, no_decoding):
    starts = {
        "webp": b"RIFF\xff\xff\xff\x7fWEBPVP8L",
        "pnm": b"P6\n25000 25000\n255\n",
        "gif": b"GIF89a\xa8\x61\xa8\x61",
    }
    starts |= {"jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n", "avif": b"\0\0\0\x1cftypavif"}
    with pytest.raises(FileError, match="a PNG, JPEG, TIFF or BMP image"):
        decode_file(starts[name] + bytes(100), "image")


@pytest.mark.parametrize(
    "tags",
    [
        {"samples": 16, "bits": 16},
        {"samples": 3, "bits": 64},
        {"tile": 25_008},
    ],
)
def test_a_tiff_of_few_pixels_and_many_bytes_is_refused(tags, no_decoding):
    side = 16 if "tile" in tags else 7000
    values = {256: side, 257: side, 258: tags.get("bits", 8), 259: 8, 262: 2, 277: tags.get("samples", 3), 339: 1}
    if "tile" in tags:
        values |= {322: tags["tile"], 323: tags["tile"], 324: 200, 325: 10}
    else:
        values |= {273: 200, 278: side, 279: 10}
    values[339] = 3 if values[258] == 64 else 1
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    data = b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(400)
    with pytest.raises(FileError, match=r"at most (64 megapixels|512 MB)"):
        decode_file(data, "image")


@pytest.mark.parametrize("name", ["png", "jpeg", "tiff"])
def test_twelve_megapixels_are_read(name):
    image = np.zeros((3000, 4000, 3), np.uint8)
    image[::100] = 200
    decoded = decode_file(FORMATS[name](image), "image")
    assert decoded.shape == (3000, 4000, 3) and decoded[0].min() > 190


def test_the_limit_of_messages_is_a_parameter():
    assert "max_megapixels" in NAMES
    compressed = SimpleNamespace(
        format="mono8; png compressed ",
        data=FORMATS["png"](np.zeros((HEIGHT, WIDTH), np.uint8)),
        header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=0)),
    )
    assert SensorIntake(SensorConfig(max_megapixels=0.0006)).align(compressed, compressed).visible is not None
    small = SensorIntake(SensorConfig(max_megapixels=0.0005))
    for pair, reason in (((compressed, None), BAD_VISIBLE), ((None, compressed), BAD_INFRARED)):
        with pytest.raises(IntakeError, match="30 x 20 pixels") as caught:
            small.align(*pair)
        assert caught.value.reason == reason


def test_a_file_of_more_bytes_than_an_image_can_have_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(FORMATS["png"](np.zeros((HEIGHT, WIDTH), np.uint8)))
    os.truncate(path, 1 << 40)  # takes no space
    with pytest.raises(FileError, match=r"a file of at most 579\.1 MB, got"):
        read_infrared(path)


@pytest.fixture(params=["pipe", "device", "socket"])
def special(request, tmp_path):
    """A path that is not a regular file, ending in .png, and its kind."""
    path = tmp_path / "special.png"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        server = socket.socket(socket.AF_UNIX)
        request.addfinalizer(server.close)
        there = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is at most 108 bytes long
        try:
            server.bind(path.name)
        finally:
            os.chdir(there)
    return path, {"pipe": "a named pipe", "device": "a device", "socket": "a socket"}[request.param]


def test_what_is_not_a_regular_file_is_refused_at_once(special):
    path, kind = special
    for read in (read_visible, read_infrared, read_infrared_levels):
        with pytest.raises(FileError, match=f"special.png must be a regular file, got {kind}"):
            read(path)


def test_it_is_refused_as_one_of_a_pair_as_well(special, tmp_path):
    image = tmp_path / "image.png"
    image.write_bytes(FORMATS["png"](np.zeros((HEIGHT, WIDTH), np.uint8)))
    for pair in ((special[0], image), (image, special[0])):
        with pytest.raises(FileError, match=f"a regular file, got {special[1]}"):
            find_pairs(*pair)


def test_in_a_folder_it_is_an_image_that_cannot_be_read(special, tmp_path):
    (tmp_path / "ir").mkdir()
    (tmp_path / "ir" / "special.png").write_bytes(FORMATS["png"](np.zeros((HEIGHT, WIDTH), np.uint8)))
    (pair,) = find_pairs(tmp_path, tmp_path / "ir")
    with pytest.raises(FileError, match=special[1]):
        read_visible(pair.visible)


def test_a_link_to_an_image_is_one(tmp_path):
    image = np.full((HEIGHT, WIDTH), 7, np.uint8)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.png").write_bytes(FORMATS["png"](image))
    (tmp_path / "a.png").symlink_to(tmp_path / "there" / "a.png")
    assert np.array_equal(read_infrared(tmp_path / "a.png"), image)
    assert len(find_pairs(tmp_path, tmp_path / "there")) == 1
