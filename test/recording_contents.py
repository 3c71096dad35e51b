"""Messages of two cameras, as recordings of any kind are to give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from bag_makers import PERIOD, START, image, scene
from mcap_maker import Channel, Message

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagReader

VISIBLE, INFRARED = "/cam/color/image_raw", "/cam/thermal/image_raw"
CHANNELS = (Channel(VISIBLE, IMAGE_TYPE), Channel(INFRARED, IMAGE_TYPE))
PAIRS = 4


def camera_messages(pairs: int = PAIRS) -> list[Message]:
    """Pairs of ``CHANNELS``, 1 ns apart, in the order of time."""
    found = []
    for index in range(pairs):
        stamp = START + index * PERIOD
        for side, encoding in enumerate(("rgb8", "mono16")):
            found.append(Message(side + 1, stamp + side, image(scene(index)[side], stamp + side, "cam", encoding)))
    return found


def read_all(path: Path) -> list[tuple[str, str, int, bytes]]:
    """Topic, type, log time and bytes of all messages."""
    with BagReader(path) as bag:
        return [(item.topic, item.type, item.stamp_ns, bytes(item.data)) for item in bag.messages()]


def expected() -> list[tuple[str, str, int, bytes]]:
    """What ``read_all`` gives for ``camera_messages``."""
    topics = {1: VISIBLE, 2: INFRARED}
    return [(topics[item.channel], IMAGE_TYPE, item.stamp_ns, item.data) for item in camera_messages()]


def remarks_of(path: Path) -> list[str]:
    """The remarks after all messages were read."""
    with BagReader(path) as bag:
        list(bag.messages())
        return bag.remarks()


def edit_metadata(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the content of a recording's metadata.yaml."""
    file = folder / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    change(content["rosbag2_bagfile_information"])
    file.write_text(yaml.safe_dump(content))
    return folder
