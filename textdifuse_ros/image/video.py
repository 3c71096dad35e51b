"""MP4 videos from frames."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import FileError, ImageError

# The OpenCV wheels (4 and 5) have no H.264 encoder. Of the codecs they can write to mp4, MPEG-4 part 2 is 40 times
# faster than VP9 at the same size and quality.
CODEC = "mp4v"


def write_video(path: str | Path, frames: Iterable[np.ndarray], rate_hz: float) -> int:
    """Write frames as an mp4 file (MPEG-4 part 2); an existing file is replaced.

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
    writer: cv2.VideoWriter | None = None
    size: tuple[int, ...] = ()
    count = 0
    try:
        for frame in frames:
            if writer is None:
                _check(frame, frame.shape)
                size = frame.shape
                writer = _open(path, size, rate_hz)
            _check(frame, size)
            writer.write(cv2.cvtColor(_even(frame), cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if not count:
        raise ImageError("a video", "of at least one frame", "none")
    if not path.is_file() or not path.stat().st_size:
        raise FileError(str(path), "a file that can be written", "an empty file", "check the free disk space")
    return count


def _open(path: Path, size: tuple[int, ...], rate_hz: float) -> cv2.VideoWriter:
    if path.suffix.lower() != ".mp4":
        raise FileError(str(path), "named *.mp4", f"the suffix {path.suffix!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(str(path.parent), "a folder that can be created", error.strerror or error) from error
    height, width = size[0] + size[0] % 2, size[1] + size[1] % 2
    fourcc = cv2.VideoWriter.fourcc(*CODEC)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, rate_hz, (width, height))
    if not writer.isOpened():
        writer.release()
        remedy = "check the folder's permissions, and that OpenCV was built with FFmpeg (the wheels are)"
        raise FileError(str(path), f"a file that OpenCV can write as {CODEC}", "a writer that did not open", remedy)
    return writer


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
