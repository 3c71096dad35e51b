"""Small recordings and folders for the tests of player and recorder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.bags.writer import BagWriter

START = 1_700_000_000_000_000_000
PERIOD = 50_000_000
FRAMES = 12
NOTE = b"\x00\x01\x00\x00\x04\x00\x00\x00hi!\x00"
"""CDR of a std_msgs/msg/String. Its length is a multiple of four: DDS pads other lengths with zeros."""


def record_pairs(path: Path, storage: str = "mcap") -> Path:
    """Record two cameras 2 ms apart and a note with each pair."""
    with BagWriter(path, storage) as bag:
        bag.add_topic("/note", "std_msgs/msg/String")
        for index in range(FRAMES):
            noise = np.random.default_rng(index)
            now = START + index * PERIOD
            bag.write_image("/cam/color", now, "color", noise.integers(0, 256, (48, 64, 3), dtype=np.uint8), now - 9)
            bag.write_image("/cam/thermal", now + 2_000_000, "thermal", noise.integers(0, 256, (48, 64), np.uint8))
            bag.write_raw("/note", now + 4_000_000, NOTE)
    return path


def record_blank(path: Path, pairs: int, period: int = PERIOD) -> BagWriter:
    """Record tiny black images of two cameras on /rgb and /ir; returns the open writer."""
    bag = BagWriter(path)
    for index in range(pairs):
        for topic in ("/rgb", "/ir"):
            bag.write_image(topic, START + index * period, "camera", np.zeros((4, 4), np.uint8))
    return bag


def make_folder(path: Path, pairs: int) -> Path:
    """Write pairs of noise to ``vis/`` (8 bits) and ``ir/`` (16 bits)."""
    for index in range(pairs):
        noise = np.random.default_rng(index)
        for side, shape, dtype in (("vis", (24, 32, 3), np.uint8), ("ir", (24, 32), np.uint16)):
            (path / side).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path / side / f"{index:03d}.png"), noise.integers(0, np.iinfo(dtype).max, shape, dtype))
    return path
