"""TIFF files: each tag that changes what a sample means is honored, or refused by its name."""

from __future__ import annotations

import io
import itertools
import struct

import cv2
import numpy as np
import pytest
import tifffile

from textdifuse_ros.errors import EncodingError, FileError
from textdifuse_ros.image.coded import decode_compressed, decode_file

RNG = np.random.default_rng(0)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CIELAB, CFA, LINEAR_RAW = 0, 1, 2, 8, 32803, 34892
COMPRESSION, ROWS_PER_STRIP, PREDICTOR = 259, 278, 317  # tags, which OpenCV takes as parameters
LZW, JPEG, DEFLATE, PACKBITS, JPEG_2000 = 5, 7, 8, 32773, 34712
DTYPES = [np.uint8, np.uint16, np.float16, np.float32, np.float64]


def tiff(pixels: bytes, width, height, bits, *, order="<", samples=1, photometric=BLACK_IS_ZERO, **more):
    """A TIFF file of one strip, its directory first: ``more`` are further tags, by ``t`` and their number."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: samples, 278: height, 279: len(pixels)}
    tags |= {int(name[1:]): value for name, value in more.items()}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return start + entries + bytes(4) + pixels


def packed(values, bits):
    """Samples of any number of bits, from the highest bit on, each row padded to whole bytes."""
    planes = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(planes.astype(np.uint8).reshape(len(values), -1), axis=1).tobytes()


def written(image, **options):
    """A TIFF file by tifffile."""
    file = io.BytesIO()
    tifffile.imwrite(file, image, **options)
    return file.getvalue()


def by_opencv(image, *options):
    return cv2.imencode(".tif", image[..., ::-1] if image.ndim == 3 else image, list(options))[1].tobytes()


def pixels(shape, dtype):
    if np.dtype(dtype).kind == "f":
        return RNG.normal(20, 5, shape).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 7, 8, 9, 10, 12, 14, 15, 16])
def test_integers_of_any_number_of_bits_are_read_with_either_photometric_interpretation(bits, photometric):
    stored = RNG.integers(0, 2**bits, (5, 13))
    data = stored.astype("<u2").tobytes() if bits == 16 else packed(stored, bits)
    image = decode_file(tiff(data, 13, 5, bits, photometric=photometric), "a.tif")
    values = 2**bits - 1 - stored if photometric == WHITE_IS_ZERO else stored
    expected = values * 255 // (2**bits - 1) if bits <= 8 else values << (16 - bits)
    assert image.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_the_order_of_bits_is_honored(photometric):
    stored = RNG.integers(0, 256, (5, 13), np.uint8)
    reverse = np.packbits(np.unpackbits(stored[..., None], axis=2)[..., ::-1], axis=2)[..., 0]
    image = decode_file(tiff(reverse.tobytes(), 13, 5, 8, photometric=photometric, t266=2), "a.tif")
    assert np.array_equal(image, stored if photometric else 255 - stored)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("big", [False, True])
def test_every_type_of_sample_is_read_in_either_byte_order(order, dtype, big):
    image = pixels((9, 14), dtype)
    decoded = decode_file(written(image, byteorder=order, bigtiff=big), "a.tif")
    assert decoded.dtype == (np.float32 if dtype == np.float16 else dtype)
    assert np.array_equal(decoded, image)


@pytest.mark.parametrize("channels", [3, 4, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("compression", [None, "deflate", "lzma"])
def test_planes_tiles_and_further_channels_of_a_color_image_are_honored(channels, dtype, planes, tile, compression):
    image = pixels((37, 51, channels), dtype)
    stored = image if planes == "contig" else np.moveaxis(image, 2, 0)
    options = {"planarconfig": planes, "tile": tile, "rowsperstrip": None if tile else 10}
    more = ["unassalpha", "unspecified"][: channels - 3]
    data = written(stored, photometric="rgb", compression=compression, extrasamples=more, **options)
    decoded = decode_file(data, "a.tif")
    assert decoded.dtype == dtype and np.array_equal(decoded, image[..., :3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_the_alpha_of_a_grey_image_is_dropped(dtype, planes):
    image = pixels((9, 14, 2), dtype)
    stored = image if planes == "contig" else np.moveaxis(image, 2, 0)
    data = written(stored, photometric="minisblack", planarconfig=planes, extrasamples=["unassalpha"])
    assert np.array_equal(decode_file(data, "a.tif"), image[..., 0])


@pytest.mark.parametrize("compression", [LZW, DEFLATE, PACKBITS])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("shape", [(37, 51), (37, 51, 3), (1, 9), (64, 48)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_strips_are_read(compression, predictor, shape, dtype):
    smooth = np.cumsum(RNG.integers(0, 4, shape), axis=1).astype(dtype)
    options = [COMPRESSION, compression, PREDICTOR, predictor]
    for rows in (1, 10, shape[0]):
        data = by_opencv(smooth, *options, ROWS_PER_STRIP, rows)
        assert np.array_equal(decode_file(data, "a.tif"), smooth)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compression", [LZW, DEFLATE])
@pytest.mark.parametrize("predictor", [1, 2, 3])
def test_compressed_floats_are_read_with_every_predictor(dtype, compression, predictor):
    image = pixels((23, 31), dtype)
    data = by_opencv(image, COMPRESSION, compression, PREDICTOR, predictor)
    assert np.array_equal(decode_file(data, "a.tif"), image)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 3)])
def test_orientation_is_ignored(value, dtype, shape):
    image = pixels(shape, dtype)
    photometric = "rgb" if image.ndim == 3 else "minisblack"
    data = written(image, photometric=photometric, extratags=[(274, 3, 1, value, True)])
    assert np.array_equal(decode_file(data, "a.tif"), image)


def oriented(data: bytes, value: int) -> bytes:
    """The file with another directory that has an orientation, at the end, as a camera's software adds it."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * n : start + 14 + 12 * n] for n in range(count)]
    entries.append(struct.pack("<HHII", 274, 3, 1, value))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    patched = bytearray(data)
    struct.pack_into("<I", patched, 4, len(data))
    return bytes(patched) + struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("shape", [(24, 40), (24, 40, 3)])
def test_orientation_is_ignored_where_the_pixels_are_a_jpeg(value, shape):
    image = cv2.GaussianBlur(RNG.integers(0, 256, shape, np.uint8), (0, 0), 4)
    data = by_opencv(image, COMPRESSION, JPEG)
    decoded = decode_file(data, "a.tif")
    assert np.abs(decoded.astype(int) - image).max() < 30, "the test file must hold the image"
    assert np.array_equal(decode_file(oriented(data, value), "a.tif"), decoded)


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        *itertools.product(["1", "P", "CMYK", "YCbCr"], [None, "tiff_lzw", "packbits"]),
        *[("1", "group3"), ("1", "group4"), ("CMYK", "jpeg"), ("YCbCr", "jpeg")],
    ],
)
@pytest.mark.parametrize("value", [1, 6])
def test_bilevel_palette_and_print_colors_are_read_as_opencv_does_without_the_orientation(mode, compression, value):
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image = cv2.GaussianBlur(RNG.integers(0, 256, (24, 40, 3), np.uint8), (0, 0), 4)
    file = io.BytesIO()
    pil.fromarray(cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)).convert(mode).save(
        file, "TIFF", compression=compression
    )
    data = file.getvalue()
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    expected = expected[..., 2::-1] if expected.ndim == 3 else expected
    assert np.array_equal(decode_file(oriented(data, value), "a.tif"), expected)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"bits": 16, "t339": 2}, "signed integers of 16 bits"),
        ({"bits": 8, "t339": 2}, "signed integers of 8 bits"),
        ({"bits": 32}, "unsigned integers of 32 bits"),
        ({"bits": 24, "t339": 3}, "floats of 24 bits"),
        ({"bits": 64, "t339": 6}, "complex floats of 64 bits"),
        ({"bits": 32, "t339": 3, "photometric": WHITE_IS_ZERO}, "MINISWHITE with floats of 32 bits"),
        ({"bits": 16, "photometric": CIELAB, "samples": 3}, "photometric interpretation CIELAB with unsigned"),
        ({"bits": 16, "photometric": CFA}, "photometric interpretation CFA"),
        ({"bits": 16, "photometric": LINEAR_RAW}, "photometric interpretation LINEAR_RAW"),
        ({"bits": 8, "photometric": 3}, "a palette without colors"),
        ({"bits": 12, "t259": JPEG}, "compression JPEG and photometric interpretation MINISBLACK with unsigned"),
        ({"bits": 8, "t259": 4}, "compression CCITT"),
        ({"bits": 8, "t259": JPEG_2000}, "compression JPEG2000"),
        ({"bits": 8, "t259": 50000}, "compression ZSTD"),
        ({"bits": 8, "t259": 64999}, "compression 64999"),
        ({"bits": 12, "t317": 2}, "predictor HORIZONTAL with unsigned integers of 12 bits"),
        ({"bits": 16, "t317": 3}, "predictor FLOATINGPOINT with unsigned integers of 16 bits"),
        ({"bits": 16, "t284": 3}, "planar configuration 3"),
        ({"bits": 16, "t32997": 4}, "an image of 4 layers"),
        ({"bits": 16, "samples": 5}, "5 channels with photometric interpretation MINISBLACK"),
        ({"bits": 16, "samples": 3}, "3 channels with photometric interpretation MINISBLACK"),
        ({"bits": 8, "samples": 2, "photometric": RGB}, "2 channels with photometric interpretation RGB"),
        ({"bits": 8, "samples": 60, "photometric": RGB}, "60 channels"),
    ],
)
def test_what_is_not_supported_is_named_and_not_called_damaged(options, name):
    data = tiff(bytes(16 * 16 * 64), 16, 16, **options)
    for raised, decode in ((FileError, decode_file), (EncodingError, decode_compressed)):
        with pytest.raises(raised) as caught:
            decode(data, "mono16")
        assert name in str(caught.value)
        assert "damaged" not in str(caught.value) and "truncated" not in str(caught.value)


def test_the_first_page_is_read_that_is_no_thumbnail():
    image, file = pixels((20, 30), np.uint16), io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(image[::4, ::4], subfiletype=1)
        writer.write(image)
        writer.write(image + 1)
    assert np.array_equal(decode_file(file.getvalue(), "a.tif"), image)


def test_a_thumbnail_whose_image_is_in_a_sub_directory_is_not_read_in_its_place():
    image, file = pixels((20, 30), np.uint16), io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(image[::4, ::4], subfiletype=1, subifds=1)
        writer.write(image)
    with pytest.raises(FileError, match="got a thumbnail only, with the image in a sub-directory"):
        decode_file(file.getvalue(), "a.tif")


COMPLETE = {
    "plain": lambda: written(pixels((40, 50), np.uint16)),
    "planes": lambda: written(pixels((3, 40, 50), np.uint16), photometric="rgb", planarconfig="separate"),
    "tiles": lambda: written(pixels((40, 50, 3), np.uint8), photometric="rgb", tile=(16, 16)),
    "deflate": lambda: written(pixels((40, 50), np.float32), compression="deflate"),
    "lzw": lambda: by_opencv(pixels((40, 50), np.uint16), COMPRESSION, LZW),
    "jpeg": lambda: by_opencv(pixels((40, 50, 3), np.uint8), COMPRESSION, JPEG),
    "big": lambda: written(pixels((40, 50), np.uint16), bigtiff=True),
    "12 bits": lambda: tiff(packed(RNG.integers(0, 4096, (40, 50)), 12), 50, 40, 12),
}


@pytest.mark.parametrize("kind", COMPLETE)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95, 1])
def test_a_file_that_is_cut_short_is_called_so(kind, share):
    data = COMPLETE[kind]()
    decode_file(data, "a.tif")
    with pytest.raises(FileError, match=r"truncated.*; copy it again"):
        decode_file(data[: min(int(share * len(data)), len(data) - 1)], "a.tif")


@pytest.mark.parametrize("compression", [LZW, DEFLATE])
@pytest.mark.parametrize("width", [50, 51])
def test_damaged_compressed_samples_are_called_damaged(compression, width):
    image = np.cumsum(RNG.integers(0, 4, (41, width)), axis=1).astype(np.uint8)
    data = by_opencv(image, COMPRESSION, compression, ROWS_PER_STRIP, 41)
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    middle = page.dataoffsets[0] + page.databytecounts[0] // 2
    with pytest.raises(FileError, match="damaged"):
        decode_file(data[:middle] + b"\xff" * 40 + data[middle + 40 :], "a.tif")


@pytest.mark.parametrize("tags", ["white", "planes", "half", "turned"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_compressed_messages_follow_the_same_rules(tags, dtype):
    image = pixels((20, 30), dtype)
    white = np.iinfo(dtype).max
    if tags == "white":
        assert np.array_equal(decode_compressed(written(white - image, photometric="miniswhite"), "tiff"), image)
    elif tags == "planes":
        data = written(np.stack([image] * 3), photometric="rgb", planarconfig="separate")
        assert np.array_equal(decode_compressed(data, "tiff"), np.stack([image] * 3, 2))
    elif tags == "half":
        half = (image % 200).astype(np.float16)
        assert np.array_equal(decode_compressed(written(half), "32FC1; tiff compressed "), half.astype(np.float32))
    else:
        assert np.array_equal(decode_compressed(written(image, extratags=[(274, 3, 1, 8, True)]), "tiff"), image)
