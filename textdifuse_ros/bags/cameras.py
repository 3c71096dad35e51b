"""Finds the topics of the two cameras in a recording, their stamps, and their calibrations."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from pathlib import Path

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagMessage, BagReader
from textdifuse_ros.errors import BagError
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, other_sensor

COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
CALIBRATION_TYPE = "sensor_msgs/msg/CameraInfo"
COMPRESSED = "/compressed"
"""Suffix that image_transport adds to the topic of the raw images."""

_OTHER_TRANSPORTS = ("/compressedDepth", "/zstd")
"""Suffixes of topics of the compressed type that hold no JPEG or PNG."""

_NAMED_LIKE = {
    VISIBLE: re.compile(r"vis(ible)?|rgb|colou?r|eo"),
    INFRARED: re.compile(r"infrared|infra\d?|ir|thermal|lwir"),
}


def find_camera(camera: str, candidates: list[str], path: Path, remedy: str = "") -> str:
    """Return the only topic whose name matches this camera, or else the only one that does not match the other camera.

    :param camera: ``visible`` or ``infrared``
    :param candidates: topics of images
    :param path: the recording, for the error
    :param remedy: for the error
    :raises BagError: there is none, or several
    """
    other = other_sensor(camera)

    def like(pattern: re.Pattern[str], topic: str) -> bool:
        return any(pattern.fullmatch(word) for word in re.split(r"[/_]", topic.lower()))

    found = [topic for topic in candidates if like(_NAMED_LIKE[camera], topic) and not like(_NAMED_LIKE[other], topic)]
    if not found:
        found = [topic for topic in candidates if not like(_NAMED_LIKE[other], topic)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(found or candidates) or "none"
    remedy = remedy or f"name it by the parameter {camera}_topic"
    raise BagError(f"the {camera} images of {path}", "one topic of images", listed, remedy)


def header_stamp(message: BagMessage) -> int:
    """Return the stamp [ns] of ``message``, which begins with a ``std_msgs/Header``; the rest is not read.

    :raises BagError: the message is too short
    """
    order = "<" if len(message.data) > 1 and message.data[1] & 1 else ">"
    try:
        sec, nanosec = struct.unpack_from(order + "iI", message.data, 4)
    except struct.error as error:
        raise BagError(f"a message of {message.topic}", "of at least 12 bytes", f"{len(message.data)}") from error
    return int(sec) * 1_000_000_000 + int(nanosec)


def find_cameras(
    bag: BagReader, visible: str = "", infrared: str = "", remedy: str = "name it by --{camera}"
) -> tuple[str, str]:
    """Return the topics of the visible and the infrared camera, raw or compressed.

    :param bag: the recording
    :param visible: topic of the visible images; empty to find it by its name
    :param infrared: topic of the infrared images; empty to find it by its name
    :param remedy: for the error if none or several match; ``{camera}`` is ``visible`` or ``infrared``
    :raises BagError: there is none, several, no such topic, or the same for both
    """
    known = bag.topics()
    kinds = (IMAGE_TYPE, COMPRESSED_TYPE)
    named = {VISIBLE: visible, INFRARED: infrared}
    for topic in filter(None, named.values()):
        if known.get(topic) not in kinds:
            images = ", ".join(name for name, kind in known.items() if kind in kinds) or "nothing: it has no images"
            raise BagError(f"an image topic of {bag.path}", f"one of {images}", repr(topic))
    if visible and visible == infrared:
        raise BagError(f"the two cameras of {bag.path}", "two topics", f"{visible} for both")
    for camera in SENSORS:
        if not named[camera]:
            raw, coded = ([name for name in names if name not in named.values()] for names in _images(known))
            advice = remedy.format(camera=camera)
            # Compressed images count only if this camera has no raw ones.
            with suppress(BagError):
                named[camera] = find_camera(camera, raw, bag.path, advice)
            named[camera] = named[camera] or find_camera(camera, raw + coded, bag.path, advice)
    return named[VISIBLE], named[INFRARED]


def _images(known: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the topics of raw images, and those of compressed images that have no raw topic beside them."""
    raw = [name for name, kind in known.items() if kind == IMAGE_TYPE]
    coded = [name for name, kind in known.items() if kind == COMPRESSED_TYPE and not name.endswith(_OTHER_TRANSPORTS)]
    return raw, [name for name in coded if not name.endswith(COMPRESSED) or name.removesuffix(COMPRESSED) not in raw]


def calibration_beside(images: str) -> str:
    """Return the CameraInfo topic that image_transport uses for the (raw or compressed) image topic ``images``."""
    return images.removesuffix(COMPRESSED).rpartition("/")[0] + "/camera_info"


def find_calibrations(bag: BagReader, cameras: tuple[str, str]) -> dict[str, str]:
    """Return the CameraInfo topic of each camera that has one.

    :param bag: the recording
    :param cameras: the topics of the visible and of the infrared images
    :returns: topic by ``visible`` and ``infrared``; the same topic for both if their images share a namespace
    """
    known = bag.topics()
    beside = {camera: calibration_beside(topic) for camera, topic in zip(SENSORS, cameras, strict=True)}
    return {camera: topic for camera, topic in beside.items() if known.get(topic) == CALIBRATION_TYPE}
