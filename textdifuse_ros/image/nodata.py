"""The value that a file itself declares as no data.

Of a TIFF that is the tag GDAL_NODATA (42113), of a grey PNG the transparent grey (chunk tRNS).
"""

from __future__ import annotations

import io
import struct
from typing import Any

from textdifuse_ros.errors import FileError
from textdifuse_ros.image import png_text

_GDAL_NODATA = 42113
_WHITE_IS_ZERO = 0


def declared_nodata(data: bytes) -> float | None:
    """Read the declared value; None if there is none, or if it cannot be read.

    :param data: content of an image file that :func:`.coded.decode_file` has decoded to a grey image
    :returns: in the values of the decoded image
    """
    if data.startswith(png_text.SIGNATURE):
        return _of_png(data)
    return _of_tiff(data) if data[:2] in (b"II", b"MM") else None


def _of_png(data: bytes) -> float | None:
    try:
        chunks = {bytes(kind): bytes(content) for kind, content in png_text.chunks(data, "the image")}
    except FileError:
        return None
    content = chunks.get(b"tRNS", b"")
    bits, color_type = chunks[b"IHDR"][8:10]
    if color_type != 0 or len(content) < 2:
        return None
    value = float(struct.unpack(">H", content[:2])[0])
    return value if bits >= 8 else value * (255 // (2**bits - 1))


def _of_tiff(data: bytes) -> float | None:
    import tifffile

    # Whatever is wrong in the tags: decode_file has read the image, and without the tag no value is declared.
    try:
        pages: Any = tifffile.TiffFile(io.BytesIO(data)).pages
        page = next((page for page in pages if not (page.is_reduced or page.is_mask)), pages[0])
        value = float(str(page.tags.valueof(_GDAL_NODATA)).strip("\0 "))
    except Exception:
        return None
    if page.sampleformat == 3:
        return value
    bits = int(page.bitspersample)
    value = 2**bits - 1 - value if page.photometric == _WHITE_IS_ZERO else value
    return value * 2 ** (16 - bits) if 8 < bits < 16 else value
