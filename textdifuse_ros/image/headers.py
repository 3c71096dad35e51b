"""What the header of an image file says, read without decoding it.

The size is checked before any memory is taken: a PNG of 2 MB may hold an image of 625 megapixels.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from textdifuse_ros.config.sensors import MAX_MEGAPIXELS
from textdifuse_ros.errors import FileError

MAX_PIXELS = round(MAX_MEGAPIXELS * 1e6)
"""Default of the largest image that is decoded [pixel]."""
MAX_SIDE = 1 << 20
"""OpenCV's widest and highest image [pixel]."""
MAX_PIXEL_BYTES = 8
"""Most bytes per pixel, stored and decoded: four channels of 16 bits, or a float of 64."""
LIMIT_REMEDY = "if its source is trusted, raise max_megapixels of fuse, locate, bag or fusion_node"

_PNG_COLORS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_JPEG_PROCESSES = {0: "baseline", 1: "extended", 2: "progressive", 3: "lossless"}


@dataclass(frozen=True)
class Header:
    """Size and kind of an image.

    :ivar width: [pixel]
    :ivar height: [pixel]
    :ivar kind: what is stored, such as "12 bits, 3 channels, progressive", for error messages
    :ivar supported: whether OpenCV decodes what is stored, as far as the header tells
    :ivar least_bytes: size of the smallest complete file, as far as the header tells
    """

    width: int
    height: int
    kind: str
    supported: bool = True
    least_bytes: int = 0


def check_pixels(width: int, height: int, max_pixels: int, what: str) -> None:
    """Check the size of an image against the limit.

    :param width: [pixel]
    :param height: [pixel]
    :param max_pixels: largest accepted number of pixels
    :param what: name of the image in the error message
    :raises FileError: the image is larger
    """
    if width * height > max_pixels:
        found = f"{width} x {height} pixels ({width * height / 1e6:.4g} megapixels)"
        raise FileError(what, f"an image of at most {max_pixels / 1e6:.4g} megapixels", found, LIMIT_REMEDY)


def png_header(data: bytes) -> Header | None:
    """Read the header chunk of a PNG file.

    :param data: content of the file
    :returns: None if the file is too short, or the chunk damaged
    """
    if len(data) < 33 or data[12:16] != b"IHDR" or zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        return None
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    kind = f"{bits} bits, {_PNG_COLORS.get(color, f'color type {color}')}"
    return Header(width, height, kind, color in _PNG_COLORS and max(width, height) <= MAX_SIDE)


def bmp_header(data: bytes) -> Header | None:
    """Read the header of a BMP file.

    :param data: content of the file
    :returns: None if the file is too short
    """
    if len(data) < 34:
        return None
    start, header_size = int.from_bytes(data[10:14], "little"), int.from_bytes(data[14:18], "little")
    if header_size == 12:  # the header of OS/2
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    width, height = abs(width), abs(height)  # height < 0: rows from the top
    rows = height * ((width * bits + 31) // 32 * 4) if compression in (0, 3, 6) else 0
    supported = bits in (1, 4, 8, 16, 24, 32) and compression in (0, 1, 2, 3) and max(width, height) <= MAX_SIDE
    return Header(width, height, f"{bits} bits, compression {compression}", supported, start + rows)


def jpeg_header(data: bytes) -> tuple[Header | None, bool]:
    """Read the frame header of a JPEG file, and look for its end.

    :param data: content of the file
    :returns: the header, None if there is none before the image data; and whether the end marker follows the image
        data (that of an embedded thumbnail does not count)
    """
    header, at = None, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark == 0xDA:  # start of scan: 0xFF is escaped from here on, so the end marker cannot occur by chance
            return header, data.find(b"\xff\xd9", at) >= 0
        if 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC) and at + 10 <= len(data):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            process = _JPEG_PROCESSES.get(mark - 0xC0, f"process {mark - 0xC0}")
            supported = bits == 8 and channels in (1, 3, 4) and mark <= 0xC2
            header = Header(width, height, f"{bits} bits, {channels} channels, {process}", supported)
        at += 1 if mark == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return header, False
