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

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import EncodingError, FileError, quote
from textdifuse_ros.image import png_text
from textdifuse_ros.image.encodings import ENCODINGS, Bytes
from textdifuse_ros.image.headers import MAX_PIXELS, bmp_header, check_pixels, jpeg_header, png_header
from textdifuse_ros.image.opencv import decode_with_opencv
from textdifuse_ros.image.tiff import decode_tiff

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


def decode_file(data: bytes, what: str, remedy: str = "copy it again", *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode the content of an image file.

    - Alpha is dropped, without blending.
    - EXIF orientation and that of TIFF are ignored, so that a pair stays aligned.
    - Of a multi-page file the first page is read that is no thumbnail.
    - The size is taken from the header and checked before anything is decoded.

    :param data: content of the file
    :param what: name of the file in error messages
    :param remedy: remedy for damaged data in error messages
    :param max_pixels: largest accepted image [pixel]
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float [H, W] or [H, W, 3]
    :raises FileError: not an image, of an unsupported kind (which is named), too large, truncated or damaged
    """
    kind = _file_format(data)
    if kind is None:
        found = f"data that start with {data[:4]!r}" if data else "an empty file"
        raise FileError(what, "a PNG, JPEG, TIFF or BMP image", found)
    if kind == "TIFF":
        return decode_tiff(data, what, remedy, max_pixels)
    ends = True
    if kind == "JPEG":
        header, ends = jpeg_header(data)
    else:
        header = png_header(data) if kind == "PNG" else bmp_header(data)
    if header is not None:
        check_pixels(header.width, header.height, max_pixels, what)
    # Some releases of OpenCV return partly decoded images for truncated PNG and JPEG files.
    if kind == "PNG":
        for _ in png_text.chunks(data, what):
            pass
    elif not ends or header is None or len(data) < header.least_bytes:
        raise FileError(what, f"a whole {kind} file", f"a file truncated after {len(data)} bytes", remedy)
    image = decode_with_opencv(data)
    stored = f"{kind}, {header.width} x {header.height} pixels, {header.kind}" if header else kind
    if image is None and header is not None and not header.supported:
        raise FileError(what, "an image of a supported kind", stored, "save it as PNG of 8 or 16 bits")
    if image is None:
        raise FileError(what, f"a readable {kind} image", f"damaged data ({stored})", remedy)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype.name not in ("uint8", "uint16") or channels not in (1, 3, 4):
        raise FileError(what, "an image of 8 or 16 bits with 1, 3 or 4 channels", f"{stored}, {describe(image)}")
    if channels == 1:
        return image.reshape(image.shape[:2])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGB)


def decode_compressed(data: Bytes, form: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a ``sensor_msgs/CompressedImage``.

    :param data: the message's ``data``
    :param form: the message's ``format``
    :param max_pixels: largest accepted image [pixel]
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float32 [H, W]
    :raises EncodingError: truncated, damaged, too large, not an image, compressedDepth, 16-bit counts as JPEG, or a
        mosaic of the wrong type
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
        remedy = "check its publisher and the network"
        image = decode_file(content, "the compressed image", remedy, max_pixels=max_pixels)
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
        raise EncodingError("the encoding of a compressed mosaic", "a supported one", quote(encoding))
    if min(image.shape) < layout.min_side or image.dtype != np.dtype(layout.dtype):
        bits = 8 * np.dtype(layout.dtype).itemsize
        expected = f"of {bits} bits and at least {layout.min_side} x {layout.min_side} pixels"
        raise EncodingError(f"an image in {encoding}", expected, describe(image))
    return layout.convert(image)
