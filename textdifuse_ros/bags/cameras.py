"""Which topics of a recording are the two cameras, and their stamps."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagMessage, BagReader
from textdifuse_ros.errors import BagError

VISIBLE, INFRARED = "visible", "infrared"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"

_NAMED_LIKE = {
    VISIBLE: re.compile(r"vis(ible)?|rgb|colou?r|eo"),
    INFRARED: re.compile(r"infrared|infra\d?|ir|thermal|lwir"),
}


def find_camera(camera: str, candidates: list[str], path: Path, remedy: str = "") -> str:
    """The one topic whose name says that it is of this camera, or the only one that does not name the other.

    :param camera: ``visible`` or ``infrared``
    :param remedy: for the error
    :raises BagError: none, or several
    """
    other = INFRARED if camera == VISIBLE else VISIBLE

    def like(pattern: re.Pattern[str], topic: str) -> bool:
        return any(pattern.fullmatch(word) for word in re.split(r"[/_]", topic.lower()))

    found = [topic for topic in candidates if like(_NAMED_LIKE[camera], topic) and not like(_NAMED_LIKE[other], topic)]
    if not found:
        found = [topic for topic in candidates if not like(_NAMED_LIKE[other], topic)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(found or candidates) or "none"
    remedy = remedy or f"name it by the parameter {camera}_topic"
    raise BagError(f"the {camera} pictures of {path}", f"one topic of type {IMAGE_TYPE}", listed, remedy)


def header_stamp(message: BagMessage) -> int:
    """The stamp [ns] of a message that begins with a ``std_msgs/Header``; the rest is not looked at.

    :raises BagError: too short
    """
    order = "<" if len(message.data) > 1 and message.data[1] & 1 else ">"
    try:
        sec, nanosec = struct.unpack_from(order + "iI", message.data, 4)
    except struct.error as error:
        raise BagError(f"a message of {message.topic}", "of at least 12 bytes", f"{len(message.data)}") from error
    return int(sec) * 1_000_000_000 + int(nanosec)


def find_cameras(bag: BagReader, visible: str = "", infrared: str = "") -> tuple[str, str]:
    """The topics of both cameras, raw or compressed.

    :param visible: empty looks for it
    :param infrared: empty looks for it
    :raises BagError: none, several, or no such topic
    """
    known = bag.topics()
    kinds = (IMAGE_TYPE, COMPRESSED_TYPE)
    named = {VISIBLE: visible, INFRARED: infrared}
    for topic in filter(None, named.values()):
        if known.get(topic) not in kinds:
            pictures = ", ".join(name for name, kind in known.items() if kind in kinds) or "nothing: it has no pictures"
            raise BagError(f"a picture topic of {bag.path}", f"one of {pictures}", repr(topic))
    for camera in (VISIBLE, INFRARED):
        if not named[camera]:
            # A camera that sends both raw and compressed pictures counts once, by the raw ones.
            free = [name for name, kind in known.items() if kind == IMAGE_TYPE and name not in named.values()]
            coded = [name for name, kind in known.items() if kind == COMPRESSED_TYPE and name not in named.values()]
            plain = [name for name in coded if name.removesuffix("/compressed") not in known]
            named[camera] = find_camera(camera, free + plain, bag.path, f"name it by --{camera}")
    return named[VISIBLE], named[INFRARED]
