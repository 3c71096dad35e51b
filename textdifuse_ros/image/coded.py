"""Coded images: the content of a PNG, JPEG, TIFF or BMP file, and of a ``sensor_msgs/CompressedImage``.

The content decides what an image is, not the name that it goes by.

``format`` of a message is as image_transport's compressed plugin writes it: ``ENCODING; CODEC compressed CODED``, with
``ENCODING`` that of the raw image and ``CODED`` ``bgr8`` or ``bgr16`` for colors and empty for all else; some
drivers give only the codec (``jpeg``). Of it counts:

- the order of colors: RGB where ``ENCODING`` is a color and ``CODED`` is not ``bgr...``, as that plugin reads it;
  what OpenCV codes, BGR, in all other cases;
- a mosaic: where ``ENCODING`` is ``bayer_...`` the coded image has one channel, which is still to be converted.
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
_COLORS = ("rgb", "bgr", "rgba", "bgra")


def decode_coded(data: bytes, what: str, again: str = "copy it again") -> np.ndarray:
    """The image in the bytes of a file.

    - Alpha is dropped; the color below it is kept.
    - EXIF orientation is ignored: both cameras' images are taken as the pixels lie, so that a pair stays aligned.
    - Of a file with several pages the first is read.

    :param what: names the file in error messages
    :param again: the remedy for a damaged one
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float [H, W] or [H, W, C]
    :raises FileError: no image of these kinds, truncated or damaged, not of 8 or 16 bits
    """
    kind = kind_of(data)
    if kind is None:
        found = f"one that starts with {data[:4]!r}" if data else "an empty file"
        raise FileError(what, "a PNG, JPEG, TIFF or BMP image", found)
    # Some releases of OpenCV return what they could decode of a truncated file, grey below; TIFF and BMP they refuse.
    if kind == "PNG":
        for _ in png_text.chunks(data, what):
            pass
    elif kind == "JPEG" and not _jpeg_ends(data):
        raise FileError(what, "a whole JPEG file", f"one that breaks off after {len(data)} bytes", again)
    image = _decode(data)
    if image is None:
        raise FileError(what, f"a readable {kind} image", "a damaged or truncated one", again)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype.name not in ("uint8", "uint16", "float32", "float64") or channels not in (1, 3, 4):
        raise FileError(what, "an image of 8 or 16 bits with 1, 3 or 4 channels", describe(image))
    if image.dtype.kind == "f":
        return image
    if channels == 1:
        return image.reshape(image.shape[:2])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGB)


def decode_compressed(data: Bytes, form: str) -> np.ndarray:
    """The image in a ``sensor_msgs/CompressedImage``.

    :param form: its ``format``
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float32 [H, W]
    :raises EncodingError: truncated, damaged or no image; compressedDepth; counts of 16 bits in a JPEG; a mosaic
        that is none
    """
    encoding, _, codec = (part.strip() for part in form.partition(";"))
    if "compressedDepth" in form:
        remedy = "take the topic .../compressed, or the raw one"
        raise EncodingError("a compressed image", "a plain PNG, JPEG or TIFF", f"{form!r} (quantized depth)", remedy)
    content = bytes(memoryview(data))
    if kind_of(content) == "JPEG" and encoding in ("mono16", "16UC1"):
        remedy = "set the format of its publisher to png, or take the raw topic"
        raise EncodingError("an image of 16 bits", "compressed as PNG", f"{form!r}, eight bits of it", remedy)
    try:
        image = decode_coded(content, "the compressed image", "see that its publisher and the network keep it whole")
    except FileError as error:
        raise EncodingError(error.what, error.expected, error.actual, error.remedy) from error
    if image.ndim == 3:
        literal = encoding.rstrip("0123456789") in _COLORS and codec and "compressed bgr" not in codec
        return np.ascontiguousarray(image[:, :, ::-1]) if literal else image
    return _from_mosaic(image, encoding) if encoding.startswith("bayer_") else image


def kind_of(data: bytes) -> str | None:
    """``PNG``, ``JPEG``, ``TIFF``, ``BMP``, or None for anything else."""
    return next((name for mark, name in _SIGNATURES.items() if data.startswith(mark)), None)


def _from_mosaic(image: np.ndarray, encoding: str) -> np.ndarray:
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise EncodingError("the encoding of a compressed mosaic", "a known one", repr(encoding))
    if min(image.shape) < layout.least or image.dtype != np.dtype(layout.dtype):
        expected = f"{8 * np.dtype(layout.dtype).itemsize} bits and at least {layout.least} x {layout.least} pixels"
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
    """Keep OpenCV from printing about a damaged file: the error raised says it in the project's form."""
    # Debian 12 and Ubuntu 24.04 have OpenCV 4.6, which knows no cv2.utils.logging; OpenCV 5 no cv2.setLogLevel.
    place: Any = getattr(cv2.utils, "logging", cv2)
    with _LEVEL_LOCK:  # the level is the process's: two threads would restore one another's
        level = place.setLogLevel(_SILENT)
        try:
            yield
        finally:
            place.setLogLevel(level)


def _jpeg_ends(data: bytes) -> bool:
    """Whether the end mark follows the coded image; the one of an embedded thumbnail does not count."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark == 0xDA:  # start of scan: from here on 0xFF is escaped, so the end mark cannot occur by chance
            return data.find(b"\xff\xd9", at) >= 0
        at += 1 if mark == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
