"""OpenCV's image decoder, without its messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

_LEVEL_LOCK = threading.Lock()
_SILENT = 0  # LOG_LEVEL_SILENT of every release


def decode_with_opencv(data: bytes) -> np.ndarray | None:
    """Decode an image with the values stored, in OpenCV's order of channels.

    :param data: content of the file
    :returns: [H, W] or [H, W, C], BGR; None if OpenCV cannot decode it
    """
    try:
        with _quiet():
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence OpenCV's own messages about damaged files, which are reported by an exception."""
    # Debian 12 and Ubuntu 24.04 have OpenCV 4.6, without cv2.utils.logging; OpenCV 5 has no cv2.setLogLevel.
    logging: Any = getattr(cv2.utils, "logging", cv2)
    with _LEVEL_LOCK:  # the level is global: concurrent threads would restore each other's
        level = logging.setLogLevel(_SILENT)
        try:
            yield
        finally:
            logging.setLogLevel(level)
