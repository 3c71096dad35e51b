"""Conversion between image messages (``sensor_msgs/Image``) and arrays, without cv_bridge.

A table gives the data type, the channels and the conversion to RGB of each encoding:

- ``8UC3`` and ``8UC4`` (and their 16-bit forms) do not specify color; they are read as BGR and BGRA, OpenCV's order.
- Alpha is dropped, without blending.
- ROS names a Bayer pattern by its first two rows (``rggb``: R G in the first, G B in the second), OpenCV by the second
  and third pixel of the second row, so that ROS's RGGB is OpenCV's BG.
- ``yuv422`` is the old name of ``uyvy``, ``yuv422_yuy2`` of ``yuyv``; BT.601, limited range (luma 16 .. 235).
- ``nv12`` and ``nv21`` (video decoders, embedded cameras) hold a luma plane, and below it a chroma plane of half the
  height, subsampled 2 x 2; also BT.601, limited range.
- ``32FC1`` (temperatures) is for infrared only: it is decoded to float32, and :func:`to_infrared` stretches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import EncodingError, quote
from textdifuse_ros.image.thermal import to_uint8

Bytes = Any  # any object with a contiguous buffer: bytes, bytearray, memoryview, array('B'), uint8 array


@dataclass(frozen=True)
class Layout:
    """Memory layout of an encoding.

    :ivar dtype: data type of a value, without byte order: ``u1``, ``u2`` or ``f4``
    :ivar channels: values per pixel
    :ivar convert: function from the stored [H, W] or [H, W, channels] (two planes: [3 H / 2, W]) to [H, W] or RGB
    :ivar min_side: minimum height and width that ``convert`` supports [pixel]
    :ivar even: whether the width must be even
    :ivar two_planes: whether a second plane of half the height follows; the height must then be even as well
    """

    dtype: str
    channels: int
    convert: Callable[[np.ndarray], np.ndarray]
    min_side: int = 1
    even: bool = False
    two_planes: bool = False


def _unchanged(stored: np.ndarray) -> np.ndarray:
    return stored


def _converter(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return partial(cv2.cvtColor, code=code)


def _table() -> dict[str, Layout]:
    table = {"32FC1": Layout("f4", 1, _unchanged)}
    for dtype, bits in (("u1", "8"), ("u2", "16")):
        table[f"mono{bits}"] = table[f"{bits}UC1"] = Layout(dtype, 1, _unchanged)
        table[f"rgb{bits}"] = Layout(dtype, 3, _unchanged)
        table[f"bgr{bits}"] = table[f"{bits}UC3"] = Layout(dtype, 3, _converter(cv2.COLOR_BGR2RGB))
        table[f"rgba{bits}"] = Layout(dtype, 4, _converter(cv2.COLOR_RGBA2RGB))
        table[f"bgra{bits}"] = table[f"{bits}UC4"] = Layout(dtype, 4, _converter(cv2.COLOR_BGRA2RGB))
        for pattern, code in (
            ("rggb", cv2.COLOR_BayerBG2RGB),
            ("bggr", cv2.COLOR_BayerRG2RGB),
            ("gbrg", cv2.COLOR_BayerGR2RGB),
            ("grbg", cv2.COLOR_BayerGB2RGB),
        ):
            # OpenCV returns a black image below 3 x 3 pixels.
            table[f"bayer_{pattern}{bits}"] = Layout(dtype, 1, _converter(code), min_side=3)
    for name in ("uyvy", "yuv422"):
        table[name] = Layout("u1", 2, _converter(cv2.COLOR_YUV2RGB_UYVY), even=True)
    for name in ("yuyv", "yuv422_yuy2"):
        table[name] = Layout("u1", 2, _converter(cv2.COLOR_YUV2RGB_YUY2), even=True)
    for name, code in (("nv12", cv2.COLOR_YUV2RGB_NV12), ("nv21", cv2.COLOR_YUV2RGB_NV21)):
        table[name] = Layout("u1", 1, _converter(code), even=True, two_planes=True)
    return table


ENCODINGS: dict[str, Layout] = _table()


def decode_image(data: Bytes, height: int, width: int, step: int, encoding: str, is_bigendian: bool) -> np.ndarray:
    """Decode the fields of a ``sensor_msgs/Image``.

    :param data: at least ``step * height`` bytes, with two planes 1.5 times as many; the rest is ignored
    :param height: image height [pixel]
    :param width: image width [pixel]
    :param step: bytes from the start of one row to the next, padding included
    :param encoding: a key of :data:`ENCODINGS`
    :param is_bigendian: byte order of 16-bit and float values
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, float32 [H, W] for ``32FC1``, in native byte order; a view of
        ``data``, possibly read-only and with padded rows, if no conversion is needed
    :raises EncodingError: unknown encoding, empty or unsupported size, ``step`` too small, or ``data`` too short
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise EncodingError("the encoding", f"one of {', '.join(sorted(ENCODINGS))}", quote(encoding))
    _check_layout(layout, height, width, step, encoding)
    rows = height * 3 // 2 if layout.two_planes else height
    required, actual = step * rows, memoryview(data).nbytes
    if actual < required:
        product = "step * height * 3 / 2" if layout.two_planes else "step * height"
        raise EncodingError("data", f"at least {product} = {step} * {rows} = {required} bytes long", actual)
    dtype = np.dtype(layout.dtype)
    row = width * layout.channels * dtype.itemsize
    stored = np.frombuffer(data, np.uint8, count=required).reshape(rows, step)[:, :row]
    stored = stored.view(dtype.newbyteorder(">" if is_bigendian else "<"))
    stored = np.require(stored, dtype, "A")  # copies if the byte order differs or an odd step misaligns the values
    if layout.channels > 1:
        stored = stored.reshape(height, width, layout.channels)
    return layout.convert(stored)


def _check_layout(layout: Layout, height: int, width: int, step: int, encoding: str) -> None:
    if height < layout.min_side or width < layout.min_side:
        raise EncodingError(
            f"an image in {encoding}", f"at least {layout.min_side} x {layout.min_side} pixels", f"{width} x {height}"
        )
    if layout.even and width % 2:
        raise EncodingError(f"the width of an image in {encoding}", "even [pixels]", width)
    if layout.two_planes and height % 2:
        raise EncodingError(f"the height of an image in {encoding}", "even [pixels]", height)
    row = width * layout.channels * np.dtype(layout.dtype).itemsize
    if step < row:
        raise EncodingError("step", f"at least {row} bytes for {width} pixels in {encoding}", step)


def to_visible(decoded: np.ndarray) -> np.ndarray:
    """Convert a decoded image to a visible image; grey is repeated to three channels.

    :param decoded: uint8 or uint16 [H, W] or [H, W, 3] RGB
    :returns: same data type, [H, W, 3] RGB
    :raises EncodingError: a float image
    """
    if decoded.dtype.kind == "f":
        raise EncodingError("the visible image", "of 8 or 16 bits", describe(decoded), "float is for infrared only")
    return decoded if decoded.ndim == 3 else cv2.cvtColor(decoded, cv2.COLOR_GRAY2RGB)


def to_infrared(decoded: np.ndarray) -> np.ndarray:
    """Convert a decoded image to an infrared image; color is reduced to BT.601 luma.

    :param decoded: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float [H, W]
    :returns: same data type, [H, W]; uint8 for a float image, see :func:`.thermal.to_uint8`
    :raises ImageError: a float image with NaN or infinite values
    """
    if decoded.dtype.kind == "f":
        return to_uint8(decoded, "the infrared image")
    return decoded if decoded.ndim == 2 else cv2.cvtColor(decoded, cv2.COLOR_RGB2GRAY)


_WRITTEN: dict[str, tuple[int, type[np.generic]]] = {
    "rgb8": (3, np.uint8),
    "bgr8": (3, np.uint8),
    "mono8": (1, np.uint8),
    "mono16": (1, np.uint16),
    "32FC1": (1, np.float32),
}
"""Channels and type of what :func:`encode_image` writes."""


def encode_image(image: np.ndarray, encoding: str) -> tuple[memoryview, int]:
    """Encode an image as ``data`` and ``step`` of a ``sensor_msgs/Image``.

    :param image: uint8 [H, W, 3] RGB for ``rgb8`` and ``bgr8``, uint8 [H, W] for ``mono8``, uint16 [H, W] for
        ``mono16``, float32 [H, W] for ``32FC1`` (in native byte order)
    :param encoding: one of these
    :returns: flat bytes (a view of the image's memory if no conversion is needed), and bytes per row
    :raises EncodingError: unsupported encoding, or an image that does not match it
    """
    if encoding not in _WRITTEN:
        raise EncodingError("the encoding", f"one of {', '.join(_WRITTEN)}", quote(encoding))
    channels, kind = _WRITTEN[encoding]
    expected = (3, 3) if channels == 3 else (2, None)
    dtype = np.dtype(kind)
    if image.dtype != dtype or (image.ndim, image.shape[2] if image.ndim == 3 else None) != expected:
        shape = "[H, W, 3]" if channels == 3 else "[H, W]"
        raise EncodingError(f"an image for {encoding}", f"{dtype} {shape}", describe(image))
    if encoding == "bgr8" and image.size:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    flat = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
    return flat.data, image.shape[1] * channels * dtype.itemsize
