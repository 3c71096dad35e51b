"""Image messages (``sensor_msgs/Image``) to arrays and back, without cv_bridge.

One table names for each encoding its data type, its channels and the conversion to RGB. Notes to it:

- ``8UC3`` and ``8UC4`` (and their 16-bit forms) say nothing about color; they are read as BGR and BGRA, as OpenCV
  keeps them.
- Alpha is dropped; the color below it is kept.
- ROS names a Bayer mosaic by its first two rows (``rggb``: R G on the first, G B on the second), OpenCV by the second
  row's second and third pixel, so that ROS's RGGB is OpenCV's BG.
- ``yuv422`` is the old name of ``uyvy``, ``yuv422_yuy2`` that of ``yuyv``; BT.601, limited range (luma 16 .. 235).
- ``nv12`` and ``nv21`` (video decoders, cameras of embedded boards) keep luma and, in half as many rows below
  it, chroma of two by two pixels; likewise BT.601, limited range.
- ``32FC1`` (temperatures) is for infrared only: it is decoded as float32, and :func:`to_infrared` stretches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import EncodingError
from textdifuse_ros.image.thermal import to_uint8

Bytes = Any  # whatever offers a contiguous buffer: bytes, bytearray, memoryview, array('B'), uint8 array


@dataclass(frozen=True)
class Layout:
    """How an encoding keeps an image.

    :ivar dtype: type of one value, without byte order: ``u1``, ``u2`` or ``f4``
    :ivar channels: values a pixel
    :ivar convert: [H, W] or [H, W, channels] as stored to [H, W] or RGB; with a second plane [3 H / 2, W]
    :ivar least: smallest height and width that can be converted [pixels]
    :ivar even: whether the width must be even
    :ivar two_planes: whether half as many rows follow, of another plane; the height must be even then, too
    """

    dtype: str
    channels: int
    convert: Callable[[np.ndarray], np.ndarray]
    least: int = 1
    even: bool = False
    two_planes: bool = False


def _same(stored: np.ndarray) -> np.ndarray:
    return stored


def _by(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda stored: cv2.cvtColor(stored, code)


def _table() -> dict[str, Layout]:
    table = {"32FC1": Layout("f4", 1, _same)}
    for dtype, bits in (("u1", "8"), ("u2", "16")):
        table[f"mono{bits}"] = table[f"{bits}UC1"] = Layout(dtype, 1, _same)
        table[f"rgb{bits}"] = Layout(dtype, 3, _same)
        table[f"bgr{bits}"] = table[f"{bits}UC3"] = Layout(dtype, 3, _by(cv2.COLOR_BGR2RGB))
        table[f"rgba{bits}"] = Layout(dtype, 4, _by(cv2.COLOR_RGBA2RGB))
        table[f"bgra{bits}"] = table[f"{bits}UC4"] = Layout(dtype, 4, _by(cv2.COLOR_BGRA2RGB))
        for pattern, code in (
            ("rggb", cv2.COLOR_BayerBG2RGB),
            ("bggr", cv2.COLOR_BayerRG2RGB),
            ("gbrg", cv2.COLOR_BayerGR2RGB),
            ("grbg", cv2.COLOR_BayerGB2RGB),
        ):
            # Below 3 x 3 pixels OpenCV leaves the image black.
            table[f"bayer_{pattern}{bits}"] = Layout(dtype, 1, _by(code), least=3)
    for name in ("uyvy", "yuv422"):
        table[name] = Layout("u1", 2, _by(cv2.COLOR_YUV2RGB_UYVY), even=True)
    for name in ("yuyv", "yuv422_yuy2"):
        table[name] = Layout("u1", 2, _by(cv2.COLOR_YUV2RGB_YUY2), even=True)
    for name, code in (("nv12", cv2.COLOR_YUV2RGB_NV12), ("nv21", cv2.COLOR_YUV2RGB_NV21)):
        table[name] = Layout("u1", 1, _by(code), even=True, two_planes=True)
    return table


ENCODINGS: dict[str, Layout] = _table()


def decode_image(data: Bytes, height: int, width: int, step: int, encoding: str, is_bigendian: bool) -> np.ndarray:
    """The image in an image message.

    :param data: at least ``step * height`` bytes (half as much again of two planes); what lies beyond is ignored
    :param step: bytes from one row's start to the next one's; what exceeds a row is padding
    :param encoding: a key of :data:`ENCODINGS`
    :param is_bigendian: byte order of values of more than one byte
    :returns: [H, W], or [H, W, 3] RGB, uint8 or uint16 (float32 [H, W] for ``32FC1``) in native byte order; where
        nothing had to be converted a view of ``data``, read-only or with padded rows as the message has them
    :raises EncodingError: unknown encoding; a size of 0, or one that the encoding cannot have; step or data too short
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise EncodingError("the encoding", f"one of {', '.join(sorted(ENCODINGS))}", repr(encoding))
    _check_layout(layout, height, width, step, encoding)
    rows = height * 3 // 2 if layout.two_planes else height
    due, there = step * rows, memoryview(data).nbytes
    if there < due:
        product = "step * height * 3 / 2" if layout.two_planes else "step * height"
        raise EncodingError("data", f"at least {product} = {step} * {rows} = {due} bytes long", there)
    dtype = np.dtype(layout.dtype)
    row = width * layout.channels * dtype.itemsize
    stored = np.frombuffer(data, np.uint8, count=due).reshape(rows, step)[:, :row]
    stored = stored.view(dtype.newbyteorder(">" if is_bigendian else "<"))
    stored = np.require(stored, dtype, "A")  # copies where the byte order differs, or an odd step misaligns the values
    if layout.channels > 1:
        stored = stored.reshape(height, width, layout.channels)
    return layout.convert(stored)


def _check_layout(layout: Layout, height: int, width: int, step: int, encoding: str) -> None:
    if height < layout.least or width < layout.least:
        raise EncodingError(
            f"an image in {encoding}", f"at least {layout.least} x {layout.least} pixels", f"{width} x {height}"
        )
    if layout.even and width % 2:
        raise EncodingError(f"the width of an image in {encoding}", "even [pixels]", width)
    if layout.two_planes and height % 2:
        raise EncodingError(f"the height of an image in {encoding}", "even [pixels]", height)
    row = width * layout.channels * np.dtype(layout.dtype).itemsize
    if step < row:
        raise EncodingError("step", f"at least {row} bytes for {width} pixels in {encoding}", step)


def to_visible(decoded: np.ndarray) -> np.ndarray:
    """A decoded image as the visible one: uint8 or uint16 [H, W, 3] RGB; grey is repeated.

    :raises EncodingError: a float image
    """
    if decoded.dtype.kind == "f":
        raise EncodingError("the visible image", "of 8 or 16 bits", describe(decoded), "float is for infrared only")
    return decoded if decoded.ndim == 3 else cv2.cvtColor(decoded, cv2.COLOR_GRAY2RGB)


def to_infrared(decoded: np.ndarray) -> np.ndarray:
    """A decoded image as the infrared one: uint8 or uint16 [H, W].

    Color is reduced to BT.601 luma; a float image is stretched to uint8 by :func:`.thermal.to_uint8`.

    :raises ImageError: a float image with NaN or infinite values
    """
    if decoded.dtype.kind == "f":
        return to_uint8(decoded, "the infrared image")
    return decoded if decoded.ndim == 2 else cv2.cvtColor(decoded, cv2.COLOR_RGB2GRAY)


def encode_image(image: np.ndarray, encoding: str) -> tuple[memoryview, int]:
    """The ``data`` and ``step`` of a message for an image.

    :param image: uint8 [H, W, 3] RGB for ``rgb8`` and ``bgr8``, uint8 [H, W] for ``mono8``, uint16 [H, W] for
        ``mono16`` (in native byte order)
    :returns: a flat view of bytes (of the image's own memory where nothing had to change), and the bytes of a row
    :raises EncodingError: another encoding, or an image that does not fit it
    """
    channels = {"rgb8": 3, "bgr8": 3, "mono8": 1, "mono16": 1}.get(encoding)
    if channels is None:
        raise EncodingError("the encoding", "one of rgb8, bgr8, mono8, mono16", repr(encoding))
    due = (3, 3) if channels == 3 else (2, None)
    dtype = np.dtype(np.uint16 if encoding == "mono16" else np.uint8)
    if image.dtype != dtype or (image.ndim, image.shape[2] if image.ndim == 3 else None) != due:
        shape = "[H, W, 3]" if channels == 3 else "[H, W]"
        raise EncodingError(f"an image for {encoding}", f"{dtype} {shape}", describe(image))
    if encoding == "bgr8" and image.size:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    flat = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
    return flat.data, image.shape[1] * channels * dtype.itemsize
