"""Decoding of PNG, JPEG, TIFF and BMP data, from files and from ``sensor_msgs/CompressedImage``.

The format is detected from the content, not from a suffix.

A message's ``format`` is what image_transport's compressed plugin writes, ``ENCODING; CODEC compressed CODED``:
``ENCODING`` is that of the raw image, ``CODED`` is ``bgr8`` or ``bgr16`` for color and empty otherwise. Some drivers
give only the codec (``jpeg``). It determines

- the channel order: RGB if ``ENCODING`` is a color format and ``CODED`` is not ``bgr...``, as in that plugin, else
  OpenCV's order, BGR;
- demosaicing: if ``ENCODING`` is ``bayer_...``, the compressed image is a mosaic of one channel.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import EncodingError, FileError
from textdifuse_ros.image import png_text
from textdifuse_ros.image.encodings import ENCODINGS, Bytes

_SIGNATURES = {
    png_text.SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
}
_COLOR_FORMATS = ("rgb", "bgr", "rgba", "bgra")


def decode_file(data: bytes, what: str, remedy: str = "copy it again") -> np.ndarray:
    """Decode the content of an image file.

    - Alpha is dropped, without blending.
    - EXIF orientation is ignored, so that a pair stays aligned.
    - Of a multi-page file the first page is read.

    :param data: content of the file
    :param what: name of the file in error messages
    :param remedy: remedy for damaged data in error messages
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float [H, W] or [H, W, C]
    :raises FileError: not a supported image, truncated, damaged, or not of 8 or 16 bits
    """
    kind = _file_format(data)
    if kind is None:
        found = f"data that start with {data[:4]!r}" if data else "an empty file"
        raise FileError(what, "a PNG, JPEG, TIFF or BMP image", found)
    # Some releases of OpenCV return partly decoded images for truncated PNG and JPEG files.
    if kind == "PNG":
        for _ in png_text.chunks(data, what):
            pass
    elif kind == "JPEG" and not _jpeg_ends(data):
        raise FileError(what, "a whole JPEG file", f"a file truncated after {len(data)} bytes", remedy)
    image = _decode(data)
    if image is None:
        raise FileError(what, f"a readable {kind} image", "damaged or truncated data", remedy)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype.name not in ("uint8", "uint16", "float32", "float64") or channels not in (1, 3, 4):
        raise FileError(what, "an image of 8 or 16 bits with 1, 3 or 4 channels", describe(image))
    if image.dtype.kind == "f":
        return image
    if channels == 1:
        return image.reshape(image.shape[:2])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGB)


def decode_compressed(data: Bytes, form: str) -> np.ndarray:
    """Decode a ``sensor_msgs/CompressedImage``.

    :param data: the message's ``data``
    :param form: the message's ``format``
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float32 [H, W]
    :raises EncodingError: truncated, damaged, not an image, compressedDepth, 16-bit counts as JPEG, or a mosaic of the
        wrong type
    """
    encoding, _, codec = (part.strip() for part in form.partition(";"))
    if "compressedDepth" in form:
        remedy = "use the topic .../compressed or the raw topic"
        raise EncodingError("a compressed image", "a plain PNG, JPEG or TIFF", f"{form!r} (quantized depth)", remedy)
    content = bytes(memoryview(data))
    if _file_format(content) == "JPEG" and encoding in ("mono16", "16UC1"):
        remedy = "set the format of its publisher to png, or use the raw topic"
        raise EncodingError("a 16-bit image", "compressed as PNG", f"{form!r} (8 bits)", remedy)
    try:
        image = decode_file(content, "the compressed image", "check its publisher and the network")
    except FileError as error:
        raise EncodingError(error.what, error.expected, error.actual, error.remedy) from error
    if image.ndim == 3:
        stored_rgb = encoding.rstrip("0123456789") in _COLOR_FORMATS and codec and "compressed bgr" not in codec
        return np.ascontiguousarray(image[:, :, ::-1]) if stored_rgb else image
    return _demosaic(image, encoding) if encoding.startswith("bayer_") else image


def _file_format(data: bytes) -> str | None:
    """Detect ``PNG``, ``JPEG``, ``TIFF`` or ``BMP`` by the signature; None for anything else."""
    return next((name for mark, name in _SIGNATURES.items() if data.startswith(mark)), None)


def _demosaic(image: np.ndarray, encoding: str) -> np.ndarray:
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise EncodingError("the encoding of a compressed mosaic", "a supported one", repr(encoding))
    if min(image.shape) < layout.min_side or image.dtype != np.dtype(layout.dtype):
        bits = 8 * np.dtype(layout.dtype).itemsize
        expected = f"of {bits} bits and at least {layout.min_side} x {layout.min_side} pixels"
        raise EncodingError(f"an image in {encoding}", expected, describe(image))
    return layout.convert(image)


def _decode(data: bytes) -> np.ndarray | None:
    try:
        with _quiet_opencv():
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


_LEVEL_LOCK = threading.Lock()
_SILENT = 0  # LOG_LEVEL_SILENT of every release


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's own messages about damaged files, which are reported by an exception."""
    # Debian 12 and Ubuntu 24.04 have OpenCV 4.6, without cv2.utils.logging; OpenCV 5 has no cv2.setLogLevel.
    logging: Any = getattr(cv2.utils, "logging", cv2)
    with _LEVEL_LOCK:  # the level is global: concurrent threads would restore each other's
        level = logging.setLogLevel(_SILENT)
        try:
            yield
        finally:
            logging.setLogLevel(level)


def _jpeg_ends(data: bytes) -> bool:
    """Whether an end marker follows the image data; that of an embedded thumbnail does not count."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark == 0xDA:  # start of scan: 0xFF is escaped from here on, so the end marker cannot occur by chance
            return data.find(b"\xff\xd9", at) >= 0
        at += 1 if mark == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
