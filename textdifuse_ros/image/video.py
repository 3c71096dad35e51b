"""MP4 videos from frames, which every browser plays."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import FileError, ImageError

CODEC = "libx264"
"""H.264, which browsers decode; they do not play the MPEG-4 part 2 of OpenCV."""
QUALITY = 20
"""Constant rate factor of the codec: 0 is lossless, 23 its default, 51 the worst."""
_COLOR = "colorprim=bt709:transfer=bt709:colormatrix=smpte170m"
"""Primaries and transfer function of sRGB; the matrix of swscale."""


def write_video(path: str | Path, frames: Iterable[np.ndarray], rate_hz: float) -> int:
    """Write frames as an mp4 file (H.264, 4:2:0, playable before it is complete); an existing file is replaced.

    The codec supports even sizes only, so the last row or column of an odd size is repeated.

    :param path: file to write, ``*.mp4``
    :param frames: uint8 [H, W, 3] RGB, all of one size; consumed one by one
    :param rate_hz: frame rate, above 0 [Hz]
    :returns: number of frames written
    :raises ImageError: no frames, a frame of wrong type, or of another size than the first
    :raises FileError: the file cannot be written
    """
    path = Path(path)
    if not rate_hz > 0:
        raise ImageError("the rate of a video", "above 0 [Hz]", rate_hz)
    container: OutputContainer | None = None
    size: tuple[int, ...] = ()
    count = 0
    try:
        for frame in frames:
            if container is None:
                _check(frame, frame.shape)
                size = frame.shape
                container = _open(path)
                stream = _add_stream(container, path, size, rate_hz)
            _check(frame, size)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_even(frame), format="rgb24")))
            count += 1
        if container is not None:
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        found = error.strerror or error
        raise FileError(str(path), "a file that can be written", found, "check the free disk space") from error
    finally:
        if container is not None:
            container.close()
    if not count:
        raise ImageError("a video", "of at least one frame", "none")
    return count


def _open(path: Path) -> OutputContainer:
    if path.suffix.lower() != ".mp4":
        raise FileError(str(path), "named *.mp4", f"the suffix {path.suffix!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(str(path.parent), "a folder that can be created", error.strerror or error) from error
    try:
        return av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    except (av.FFmpegError, OSError) as error:
        raise FileError(str(path), "a file that can be written", error.strerror or error) from error


def _add_stream(container: OutputContainer, path: Path, size: tuple[int, ...], rate_hz: float) -> VideoStream:
    try:
        stream = container.add_stream(CODEC, rate=Fraction(rate_hz).limit_denominator(10_000))
    except (av.FFmpegError, ValueError) as error:
        remedy = "install PyAV with pip (av), whose FFmpeg has it"
        raise FileError(str(path), f"a file that FFmpeg can write with {CODEC}", error, remedy) from error
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = size[1] + size[1] % 2, size[0] + size[0] % 2
    stream.pix_fmt = "yuv420p"  # the only sampling that all browsers decode
    stream.options = {"crf": str(QUALITY), "preset": "veryfast", "x264-params": _COLOR}
    return stream


def _check(frame: np.ndarray, size: tuple[int, ...]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ImageError("a frame of a video", "uint8 [H, W, 3] (RGB)", describe(frame))
    if frame.shape != size:
        raise ImageError("a frame of a video", f"as large as the first one ({size[1]} x {size[0]})", describe(frame))


def _even(frame: np.ndarray) -> np.ndarray:
    rows, columns = frame.shape[0] % 2, frame.shape[1] % 2
    if not rows and not columns:
        return frame
    return cv2.copyMakeBorder(frame, 0, rows, 0, columns, cv2.BORDER_REPLICATE)
