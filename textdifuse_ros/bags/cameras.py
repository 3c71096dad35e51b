"""Which topics of a recording are the two cameras, their stamps, and the calibrations beside them."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from pathlib import Path

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagMessage, BagReader
from textdifuse_ros.errors import BagError
from textdifuse_ros.sensors import INFRARED, VISIBLE

COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
CALIBRATION_TYPE = "sensor_msgs/msg/CameraInfo"
COMPRESSED = "/compressed"
"""What image_transport adds to the name of the raw images' topic."""

_OTHER_TRANSPORTS = ("/compressedDepth", "/zstd")
"""Topics of the compressed type that hold no JPEG or PNG."""

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
    raise BagError(f"the {camera} images of {path}", "one topic of images", listed, remedy)


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


def find_cameras(
    bag: BagReader, visible: str = "", infrared: str = "", remedy: str = "name it by --{camera}"
) -> tuple[str, str]:
    """The topics of both cameras, raw or compressed.

    :param visible: empty looks for it
    :param infrared: empty looks for it
    :param remedy: for the error where none or several are found; ``{camera}`` is ``visible`` or ``infrared``
    :raises BagError: none, several, no such topic, or the same for both
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
    for camera in (VISIBLE, INFRARED):
        if not named[camera]:
            raw, coded = ([name for name in names if name not in named.values()] for names in _images(known))
            advice = remedy.format(camera=camera)
            # What is compressed only counts where no raw images are this camera's.
            with suppress(BagError):
                named[camera] = find_camera(camera, raw, bag.path, advice)
            named[camera] = named[camera] or find_camera(camera, raw + coded, bag.path, advice)
    return named[VISIBLE], named[INFRARED]


def _images(known: dict[str, str]) -> tuple[list[str], list[str]]:
    """The topics of raw and of compressed images that may be a camera; who sends both counts by the raw ones."""
    raw = [name for name, kind in known.items() if kind == IMAGE_TYPE]
    coded = [name for name, kind in known.items() if kind == COMPRESSED_TYPE and not name.endswith(_OTHER_TRANSPORTS)]
    return raw, [name for name in coded if not name.endswith(COMPRESSED) or name.removesuffix(COMPRESSED) not in raw]


def calibration_beside(images: str) -> str:
    """The topic of the CameraInfo that goes with a topic of raw or compressed images, as image_transport has it."""
    return images.removesuffix(COMPRESSED).rpartition("/")[0] + "/camera_info"


def find_calibrations(bag: BagReader, cameras: tuple[str, str]) -> dict[str, str]:
    """The CameraInfo beside the images of each camera, where there is one.

    :param cameras: the topics of the visible and of the infrared images
    :returns: topic by ``visible`` and ``infrared``; the same one twice where both images lie under one parent
    """
    known = bag.topics()
    beside = {camera: calibration_beside(topic) for camera, topic in zip((VISIBLE, INFRARED), cameras, strict=True)}
    return {camera: topic for camera, topic in beside.items() if known.get(topic) == CALIBRATION_TYPE}
