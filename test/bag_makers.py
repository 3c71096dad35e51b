"""Small recordings of two cameras, the infrared one with raw counts, for the tests of ``textdifuse bag``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from textdifuse_ros.bags.definitions import IMAGE_TYPE, common_types
from textdifuse_ros.bags.reader import BagImage, BagReader
from textdifuse_ros.bags.writer import BagWriter

STORE: Any = common_types()
START = 1_700_000_000_000_000_000
PERIOD = 100_000_000
SKEW = 4_000_000
LATENCY = 2_000_000
NOTE = b"\x00\x01\x00\x00\x03\x00\x00\x00hi\x00"  # CDR of a std_msgs/msg/String "hi"


def scene(index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Visible uint8 [48, 64, 3], and drifting counts uint16 [48, 64], so that the gain depends on earlier images."""
    random = np.random.default_rng([seed, index])
    y, x = np.mgrid[:48, :64]
    hot = (x - 10 - index % 40) ** 2 + (y - 24) ** 2 < 60
    counts = 7000 + 40 * index + 300 * hot + random.integers(0, 60, (48, 64))
    visible = random.integers(0, 80, (48, 64, 3)) + 90 * (y > 30)[..., None]
    return visible.astype(np.uint8), counts.astype(np.uint16)


def image(pixels: np.ndarray, stamp_ns: int, frame: str, encoding: str) -> bytes:
    types = STORE.types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    data = np.frombuffer(np.ascontiguousarray(pixels).tobytes(), np.uint8)
    message = types[IMAGE_TYPE](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.size // pixels.shape[0],
        data=data,
    )
    return bytes(STORE.serialize_cdr(message, IMAGE_TYPE))


def record(path: Path, pairs: int, *, storage: str = "mcap", bad: tuple[int, ...] = (), seed: int = 0) -> Path:
    """Record two cameras 4 ms apart, 2 ms after their stamps, and a note with every tenth pair.

    :param bad: numbers of the pairs whose visible image cannot be decoded
    """
    with BagWriter(path, storage) as bag:
        bag.add_topic("/note", "std_msgs/msg/String")
        for topic in ("/cam/color/image_raw", "/cam/thermal/image_raw"):
            bag.add_topic(topic, IMAGE_TYPE)
        for index in range(pairs):
            visible, infrared = scene(index, seed)
            stamp = START + index * PERIOD
            encoding = "nonsense" if index in bad else "rgb8"
            bag.write_raw("/cam/color/image_raw", stamp + LATENCY, image(visible, stamp, "color", encoding))
            thermal = image(infrared, stamp + SKEW, "thermal", "mono16")
            bag.write_raw("/cam/thermal/image_raw", stamp + SKEW + LATENCY, thermal)
            if index % 10 == 0:
                bag.write_raw("/note", stamp + 1, NOTE)
    return path


def images(path: Path, topic: str = "/fusion_node/fused") -> list[BagImage]:
    with BagReader(path) as bag:
        return list(bag.images(topic))


def files(path: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in sorted(path.iterdir())}
