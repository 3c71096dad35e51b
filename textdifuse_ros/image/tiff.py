"""Decoding of TIFF files: every tag that changes what a stored number means is honored or refused by its name.

tifffile reads the tags; this module checks them and turns the stored samples into an image. OpenCV decodes the
compressed bytes only: for whole files it ignores some tags for some kinds of samples, without an error.

- PhotometricInterpretation 0 (white is zero) is inverted; a palette becomes RGB.
- Samples of less than 8 bits are scaled to 8; those of 9 to 15 bits fill the upper bits of 16, as in OpenCV.
- Planes, tiles, strips, byte and bit order and predictors only say where a sample lies.
- Further channels of a color image, and the alpha of a grey one, are dropped without blending.
- Orientation is ignored, so that a pair stays aligned.
- The first page is read that is neither a thumbnail nor a mask.

Eight-bit YCbCr, CMYK and CIELab images, and those compressed as JPEG or fax, are decoded by OpenCV as a whole: there
libtiff honors all tags, but for the orientation, which is removed first.

TIFF 6.0; Adobe TIFF Technical Notes 2 (Deflate) and 3 (floating-point predictor).
"""

from __future__ import annotations

import enum
import io
import itertools
import logging
import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from textdifuse_ros.errors import FileError
from textdifuse_ros.image.headers import LIMIT_REMEDY, MAX_PIXEL_BYTES, MAX_SIDE, check_pixels
from textdifuse_ros.image.opencv import decode_with_opencv

_MAX_EXTRA = 13  # channels beyond those of RGB
_MAX_PAGES = 16  # thumbnails before the image itself
_SPARE = 1 << 26  # bytes by which a compressed strip may be longer than needed
_PRIVATE = 32768  # tags from here on are not TIFF's own
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_NONE, _FAX, _LZW, _JPEG, _DEFLATE, _PACKBITS, _LZMA = 1, (2, 3, 4), 5, 7, (8, 32946), 32773, 34925
_HORIZONTAL, _FLOATING_POINT = 2, 3
_UNSIGNED, _FLOAT, _UNDEFINED = 1, 3, 4
_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
_ALPHA = (1, 2)  # associated and unassociated
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_CONVERT = "convert it to 8 or 16 bits, grey or RGB"

# tifffile logs what is wrong in a file, which is reported by an exception here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


class _ShortError(Exception):
    """The file ends before its last sample."""


class _DamagedError(Exception):
    """Compressed bytes cannot be decompressed."""


@dataclass(frozen=True)
class _Layout:
    """What the samples of a page are.

    :ivar bits: of a sample
    :ivar floating: whether samples are floats
    :ivar order: byte order, "<" or ">"
    :ivar predictor: 1 none, 2 horizontal differences, 3 floating point
    """

    bits: int
    floating: bool
    order: str
    predictor: int

    @property
    def dtype(self) -> np.dtype:
        """Data type of a decoded sample, in native byte order."""
        size = 1 if self.bits <= 8 else 2 if self.bits <= 16 else self.bits // 8
        return np.dtype(f"{'f' if self.floating else 'u'}{size}")


def decode_tiff(data: bytes, what: str, remedy: str, max_pixels: int) -> np.ndarray:
    """Decode the content of a TIFF or BigTIFF file.

    :param data: content of the file
    :param what: name of the file in error messages
    :param remedy: remedy for damaged data in error messages
    :param max_pixels: largest accepted image [pixel]
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float32 or float64 [H, W] or [H, W, 3]
    :raises FileError: truncated, damaged, too large, or with a tag that is not supported
    """
    page = _read_page(data, what, remedy)
    check_pixels(page.imagewidth, page.imagelength, max_pixels, what)
    for name in _unsupported(page):
        raise FileError(what, "a TIFF image of a supported kind", name, _CONVERT)
    _check_memory(page.imagewidth, page.imagelength, page, max_pixels, what)
    _check_memory(page.tilewidth, page.tilelength, page, max_pixels, f"a tile of {what}")
    try:
        if _for_opencv(page):
            return _decode_whole(page, data, what)
        image = _read_samples(page, data, _CHANNELS[page.photometric])
    except _ShortError as error:
        raise FileError(what, "a whole TIFF file", f"a file truncated after {len(data)} bytes", remedy) from error
    except (zlib.error, lzma.LZMAError, _DamagedError) as error:
        found = f"{_name(page.compression)} data that are damaged"
        raise FileError(what, "a readable TIFF image", found, remedy) from error
    return _to_values(page, image)


def _read_page(data: bytes, what: str, remedy: str) -> Any:
    """Read the tags of the first page that is no thumbnail or mask."""
    import tifffile

    # Whatever the parser stumbles over, the directory is damaged; a directory at the end is lost with the end.
    try:
        pages: Any = tifffile.TiffFile(io.BytesIO(data)).pages
        first = itertools.islice(pages, _MAX_PAGES)
        page = next((page for page in first if not (page.is_reduced or page.is_mask)), pages[0])
        sizes = (page.imagewidth, page.imagelength, page.samplesperpixel)
        tags = (page.compression, page.photometric, page.planarconfig, page.predictor, page.fillorder)
        layers = (page.imagedepth, page.tiledepth)
        numbers = (*sizes, *layers, page.tilewidth, page.tilelength, page.rowsperstrip, *tags, *_places(page))
        kinds = (page.bitspersample, page.sampleformat)  # a tuple if the channels differ
        if (
            not all(isinstance(value, int) and value >= 0 for value in numbers)
            or not all(isinstance(value, (int, tuple)) for value in kinds)
            or 0 in sizes
        ):
            raise ValueError("tags of the wrong type")
        _check_entries(page, data)
        return page
    except Exception as error:
        raise FileError(what, "a readable TIFF image", "a damaged or truncated directory", remedy) from error


def _places(page: Any) -> list[int]:
    """Offsets of all strips or tiles, then their numbers of bytes."""
    return [*np.atleast_1d(page.dataoffsets).tolist(), *np.atleast_1d(page.databytecounts).tolist()]


def _check_entries(page: Any, data: bytes) -> None:
    """Check that the directory is complete: tifffile skips a tag whose value lies beyond the end of the file."""
    form = page.parent.tiff
    start, (count,) = page.offset + form.tagnosize, struct.unpack_from(form.tagnoformat, data, page.offset)
    end = start + count * form.tagsize
    codes = {struct.unpack_from(f"{form.byteorder}H", data, at)[0] for at in range(start, end, form.tagsize)}
    if end + form.offsetsize > len(data) or any(code < _PRIVATE and code not in page.tags for code in codes):
        raise ValueError("truncated tags")


def _check_memory(width: int, height: int, page: Any, max_pixels: int, what: str) -> None:
    """Check the size of the image or of a tile, in pixels and in bytes."""
    check_pixels(width, height, max_pixels, what)
    size = width * height * page.samplesperpixel * page.bitspersample / 8
    if size > MAX_PIXEL_BYTES * max_pixels:
        expected = f"an image of at most {MAX_PIXEL_BYTES * max_pixels / 1e6:.4g} MB"
        found = f"{size / 1e6:.4g} MB ({width} x {height} pixels, {page.samplesperpixel} channels)"
        raise FileError(what, expected, found, LIMIT_REMEDY)


def _unsupported(page: Any) -> Iterator[str]:
    """Name the tags that are not supported."""
    kind = _FORMATS.get(page.sampleformat, f"samples of format {page.sampleformat}")
    kind, photometric = f"{kind} of {page.bitspersample} bits", _name(page.photometric)
    floating, whole = page.sampleformat == _FLOAT, _for_opencv(page)
    allowed = (16, 32, 64) if floating else range(1, 17) if page.sampleformat in (_UNSIGNED, _UNDEFINED) else ()
    if page.bitspersample not in allowed:
        yield kind
    if page.photometric not in _CHANNELS:
        yield f"photometric interpretation {photometric}"
    if page.photometric not in (_BLACK_IS_ZERO, _RGB) and (
        floating or (page.bitspersample > 8 and page.photometric != _WHITE_IS_ZERO)
    ):
        yield f"photometric interpretation {photometric} with {kind}"
    if page.photometric == _PALETTE and _colors(page) is None:
        yield "a palette without colors"
    if page.compression not in (_NONE, _LZW, _PACKBITS, *_DEFLATE, *((_JPEG, *_FAX) if whole else (_LZMA,))):
        yield f"compression {_name(page.compression)}"
    if whole and page.bitspersample != (1 if page.compression in _FAX else 8):
        yield f"compression {_name(page.compression)} and photometric interpretation {photometric} with {kind}"
    if page.planarconfig not in (1, 2):
        yield f"planar configuration {_name(page.planarconfig)}"
    if page.is_reduced and page.subifds:
        yield "a thumbnail only, with the image in a sub-directory"
    if page.imagedepth != 1 or page.tiledepth != 1:
        yield f"an image of {page.imagedepth} layers"
    extra = page.samplesperpixel - _CHANNELS[page.photometric]
    alpha = all(item in _ALPHA for item in np.atleast_1d(page.extrasamples))
    if not 0 <= extra <= (0 if whole else _MAX_EXTRA if page.photometric == _RGB else int(alpha)):
        yield f"{page.samplesperpixel} channels with photometric interpretation {photometric}"
    if not whole:
        yield from _unsupported_coding(page, kind)


def _unsupported_coding(page: Any, kind: str) -> Iterator[str]:
    row = page.samplesperpixel * (page.tilewidth or page.imagewidth) * page.bitspersample // 8  # bytes
    if page.compression in (_LZW, _PACKBITS) and row > MAX_SIDE:
        yield f"compression {_name(page.compression)} with rows of {row} bytes"
    if not (
        page.predictor <= 1
        or (page.predictor == _HORIZONTAL and page.bitspersample in (8, 16, 32, 64))
        or (page.predictor == _FLOATING_POINT and page.sampleformat == _FLOAT)
    ):
        yield f"predictor {_name(page.predictor)} with {kind}"


def _name(value: Any) -> str:
    """Name of a tag's value: ``LZW``, or the number if it has none."""
    return value.name if isinstance(value, enum.Enum) else str(value)


def _for_opencv(page: Any) -> bool:
    return page.photometric in (_CMYK, _YCBCR, _LAB) or page.compression in (_JPEG, *_FAX)


def _colors(page: Any) -> np.ndarray | None:
    """The palette, uint16 [colors, 3]; None if it is missing or too short."""
    colors, size = np.asarray(page.tags.valueof(320)), 2**page.bitspersample
    if colors.dtype.kind not in "iu" or colors.size != 3 * size:
        return None
    return colors.astype(np.uint16).reshape(3, size).T


def _segments(page: Any, data: bytes) -> Iterator[tuple[bytes, int, int, int, int, int]]:
    """Iterate over strips or tiles: compressed bytes, plane, top, left, stored height and width."""
    height, width = page.imagelength, page.imagewidth
    tiled = page.tilewidth > 0
    rows = page.tilelength if tiled else min(max(page.rowsperstrip, 1), height)
    columns = page.tilewidth if tiled else width
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    down, across = -(-height // rows) if rows else 0, -(-width // columns)
    offsets, counts = np.atleast_1d(page.dataoffsets).tolist(), np.atleast_1d(page.databytecounts).tolist()
    if not down or len(offsets) < planes * down * across:
        raise _ShortError
    channels = page.samplesperpixel if planes == 1 else 1
    for index in range(planes * down * across):
        plane, place = divmod(index, down * across)
        top, left = place // across * rows, place % across * columns
        stored = rows if tiled else min(rows, height - top)
        if page.compression == _NONE and not _for_opencv(page):  # some programs write a wrong number of bytes, or none
            length = stored * -(-columns * channels * page.bitspersample // 8)
        else:
            length = counts[index] if index < len(counts) else 0
        if length <= 0 or offsets[index] + length > len(data):
            raise _ShortError
        raw = data[offsets[index] : offsets[index] + length]
        yield raw.translate(_REVERSED) if page.fillorder == 2 else raw, plane, top, left, stored, columns


def _read_samples(page: Any, data: bytes, colors: int) -> np.ndarray:
    """Read the first ``colors`` channels, [H, W, colors], as stored."""
    floating = page.sampleformat == _FLOAT
    layout = _Layout(page.bitspersample, floating, page.parent.byteorder, page.predictor)
    channels = 1 if page.planarconfig == 2 else page.samplesperpixel
    image = np.empty((page.imagelength, page.imagewidth, colors), layout.dtype)
    for raw, plane, top, left, rows, columns in _segments(page, data):
        if plane >= colors:
            break
        row = -(-columns * channels * layout.bits // 8)
        samples = _unpack(_decompress(raw, page.compression, rows, row), (rows, columns, channels), layout)
        bottom, right = min(top + rows, image.shape[0]), min(left + columns, image.shape[1])
        samples = samples[: bottom - top, : right - left]
        if page.planarconfig == 2:
            image[top:bottom, left:right, plane] = samples[..., 0]
        else:
            image[top:bottom, left:right] = samples[..., :colors]
    return image


def _decompress(raw: bytes, compression: int, rows: int, row: int) -> bytes:
    """Decompress a strip or tile of ``rows`` times ``row`` bytes."""
    size = rows * row
    if compression == _NONE:
        content = raw
    elif compression in _DEFLATE:
        content = _inflate(raw, size)
    elif compression == _LZMA:
        content = lzma.LZMADecompressor().decompress(raw, size + 1)
    else:
        content = _decompress_with_libtiff(raw, compression, rows, row)
    if len(content) < size:
        raise _DamagedError
    return content


def _inflate(raw: bytes, size: int) -> bytes:
    """Decompress Deflate; what follows the ``size`` bytes is read for the checksum at the end and not kept."""
    stream = zlib.decompressobj()
    content, spare, more = stream.decompress(raw, size), 0, b"-"
    while more and spare < _SPARE:
        more = stream.decompress(stream.unconsumed_tail, 1 << 16)
        spare += len(more)
    if not stream.eof:
        raise _DamagedError
    return content


def _decompress_with_libtiff(raw: bytes, compression: int, rows: int, row: int) -> bytes:
    """Decompress LZW or PackBits: OpenCV's libtiff is told that the bytes are a grey image.

    OpenCV ignores errors in images of 8 bits, so the bytes are read as 16 bits, and an odd last one as 8.
    """
    width, height = (row // 2, rows) if row % 2 == 0 or rows == 1 else (row, rows // 2)
    content = b""
    for bits, columns, lines in ((16, width, height), (8, row, rows)):
        if len(content) < rows * row and columns:
            values = (columns, lines, bits, compression, 1, 8 + 2 + 9 * 12 + 4, 1, lines, len(raw))
            tags = (256, 257, 258, 259, 262, 273, 277, 278, 279)
            entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in zip(tags, values, strict=True))
            image = decode_with_opencv(b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4) + raw)
            if image is None or image.shape != (lines, columns):
                raise _DamagedError
            content += image.astype(f"<u{bits // 8}").tobytes()[len(content) :]
    return content


def _unpack(content: bytes, shape: tuple[int, int, int], layout: _Layout) -> np.ndarray:
    """Turn the bytes of a strip or tile into samples, [rows, columns, channels]."""
    rows, columns, channels = shape
    bits, values = layout.bits, columns * channels
    stored = np.frombuffer(content, np.uint8, rows * -(-values * bits // 8)).reshape(rows, -1)
    if bits not in (8, 16, 32, 64):
        return _unpack_bits(stored, values, layout).reshape(shape)
    size = bits // 8
    if layout.predictor == _FLOATING_POINT:  # the bytes of a row, from the highest to the lowest, as differences
        stored = np.cumsum(stored.reshape(rows, -1, channels), axis=1, dtype=np.uint8)
        stored = np.ascontiguousarray(stored.reshape(rows, size, values).transpose(0, 2, 1))
        samples = stored.view(f">u{size}").reshape(shape).astype(f"u{size}")
    else:
        samples = stored.view(f"{layout.order}u{size}").reshape(shape).astype(f"u{size}")
    if layout.predictor == _HORIZONTAL:
        samples = np.cumsum(samples, axis=1, dtype=samples.dtype)
    if not layout.floating:
        return samples
    return samples.view(f"f{size}")


def _unpack_bits(stored: np.ndarray, values: int, layout: _Layout) -> np.ndarray:
    """Unpack samples that do not fill whole bytes, a few rows at a time since each bit becomes a byte."""
    bits, width = layout.bits, 8 * layout.dtype.itemsize
    samples = np.empty((len(stored), values), layout.dtype)
    step = max(1, (1 << 20) // values)
    for top in range(0, len(stored), step):
        some = np.unpackbits(stored[top : top + step], axis=1)[:, : values * bits].reshape(-1, values, bits)
        padded = np.zeros((*some.shape[:2], width), np.uint8)
        padded[..., width - bits :] = some
        samples[top : top + step] = np.packbits(padded, axis=2).view(f">u{width // 8}")[..., 0]
    return samples


def _to_values(page: Any, image: np.ndarray) -> np.ndarray:
    """Turn stored samples [H, W, 1 or 3] into the values of the image."""
    bits, white = page.bitspersample, 2**page.bitspersample - 1
    if image.dtype.kind == "f":
        image = image.astype(np.float32) if bits == 16 else image
    elif page.photometric == _PALETTE:
        colors = _colors(page)
        assert colors is not None
        colors = colors >> 8 if colors.max() > 255 else colors  # some programs write 8 bits, as libtiff has it, too
        image = colors.astype(np.uint8)[image[..., 0]]
    else:
        image = white - image if page.photometric == _WHITE_IS_ZERO else image
        if bits < 8:
            image = (image.astype(np.uint16) * 255 // white).astype(np.uint8)
        elif 8 < bits < 16:
            image = image << (16 - bits)
    return image[..., 0] if image.shape[2] == 1 else image


def _decode_whole(page: Any, data: bytes, what: str) -> np.ndarray:
    """Let OpenCV decode the page, which must be complete, without its orientation."""
    for _ in _segments(page, data):
        pass
    patched, order = bytearray(data), page.parent.byteorder
    big = int.from_bytes(data[2:4], "little" if order == "<" else "big") == 43
    struct.pack_into(f"{order}{'Q' if big else 'I'}", patched, 8 if big else 4, page.offset)
    orientation = page.tags.get(274)
    if orientation is not None:
        struct.pack_into(f"{order}{'I' if orientation.dtype == 4 else 'H'}", patched, orientation.valueoffset, 1)
    image = decode_with_opencv(bytes(patched))
    expected = (page.imagelength, page.imagewidth)
    if image is None or image.dtype != np.uint8 or image.shape[:2] != expected or image[0, 0].size not in (1, 3, 4):
        kind = f"compression {_name(page.compression)}, photometric interpretation {_name(page.photometric)}"
        found = f"{kind}, {page.bitspersample} bits, {page.samplesperpixel} channels: not supported, or damaged"
        raise FileError(what, "a TIFF image that can be decoded", found, _CONVERT)
    return image.reshape(expected) if image.ndim == 2 or image.shape[2] == 1 else image[..., 2::-1]
