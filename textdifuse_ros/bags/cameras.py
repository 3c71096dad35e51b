"""Finds the topics of the two cameras in a recording, their stamps, and their calibrations."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textdifuse_ros.bags.definitions import IMAGE_TYPE, common_types
from textdifuse_ros.bags.reader import BagMessage, BagReader
from textdifuse_ros.errors import BagError, quote
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, other_sensor

COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
CALIBRATION_TYPE = "sensor_msgs/msg/CameraInfo"
COMPRESSED = "/compressed"
"""Suffix that image_transport adds to the topic of the raw images."""

_OTHER_TRANSPORTS = ("/compressedDepth", "/zstd")
"""Suffixes of topics of the compressed type that hold no JPEG or PNG."""

_NAMED_LIKE = {
    VISIBLE: re.compile(r"vis(ible)?|rgb|colou?r|eo"),
    INFRARED: re.compile(r"infrared\d?|infra\d?|n?ir\d?|thermal\d?|[lm]wir\d?|boson|lepton"),
}
_THERMAL = (re.compile(r"thermal\d?|[lm]wir\d?|boson|lepton"), re.compile(r"infrared\d?|ir\d?"))
"""Names of infrared topics, from those that are thermal for certain; the rest may be near infrared (``infra1``)."""

_DEPTH = re.compile(r"depth|disparit|confidence")
"""Parts of the names of topics that hold distances, or how certain they are."""
_DISTANCE = re.compile(r"disp|range|distance|tof|stereo|lidar")
"""Words in such names that count only with an encoding that a distance can have."""
_COLOR = re.compile(r"(rgb|bgr|bayer|yuv|uyvy|yuyv|nv\d).*|\d+[A-Z]C[34]")
_DISTANCES = ("16UC1", "32FC1", "64FC1")
"""Encodings of depth images: millimeters or meters (REP 118)."""
_COUNTS = ("mono16", "16UC1", "16SC1", "32FC1", "64FC1")
"""Encodings of thermal images that are not yet grey levels."""
_NAME_NEEDED = 3
"""Rank of an encoding with which a topic is taken for a camera only by its name."""


@dataclass(frozen=True)
class TopicContent:
    """What the first image of a topic says; empty where there is none.

    :ivar encoding: of the raw image, for example ``rgb8``
    :ivar frame: frame of its header
    :ivar messages: number of messages
    """

    encoding: str = ""
    frame: str = ""
    messages: int = 1


def find_camera(
    camera: str,
    candidates: list[str],
    path: Path,
    remedy: str = "",
    contents: Mapping[str, TopicContent] | None = None,
) -> str:
    """Return the topic of a camera, by its name and by the encoding of its images.

    A topic that is named like this camera counts, else one that is not named like the other and has an encoding that
    this camera can have. Of several, those of color are visible, those of 16 bits infrared, and a thermal camera goes
    before a near infrared one. Depth is neither.

    :param camera: ``visible`` or ``infrared``
    :param candidates: topics of images
    :param path: the recording, for the error
    :param remedy: for the error
    :param contents: what their images say; by name alone where it is missing
    :raises BagError: there is none, or several
    """
    known = {topic: (contents or {}).get(topic, TopicContent()) for topic in candidates}
    found = _of_camera(camera, {topic: content for topic, content in known.items() if not _is_depth(topic, content)})
    if len(found) == 1:
        return found[0]
    there = {topic: known[topic] for topic in found} or contents or known
    listed = ", ".join(_described(topic, content) for topic, content in there.items()) or "no images"
    remedy = remedy or f"name it by the parameter {camera}_topic"
    actual = listed if found or not there else f"none among {listed}"
    raise BagError(f"the {camera} images of {path}", "one topic of images", actual, remedy)


def _of_camera(camera: str, known: Mapping[str, TopicContent]) -> list[str]:
    """Return the topics that fit best."""
    free = [topic for topic in known if not _like(_NAMED_LIKE[other_sensor(camera)], topic)]
    found = [topic for topic in free if _like(_NAMED_LIKE[camera], topic)]
    if camera == INFRARED:
        tiers = [[topic for topic in found if _like(pattern, topic)] for pattern in _THERMAL]
        found = next(filter(None, tiers), [])
    if not found:
        found = [topic for topic in free if _rank(camera, known[topic].encoding) < _NAME_NEEDED]
    for order in (lambda item: not item.messages, lambda item: _rank(camera, item.encoding)):
        best = min((order(known[topic]) for topic in found), default=0)
        found = [topic for topic in found if order(known[topic]) == best]
    return found


def _rank(camera: str, encoding: str) -> int:
    """Return how well an encoding fits a camera: 0 is best."""
    color, counts = _COLOR.fullmatch(encoding) is not None, encoding in _COUNTS
    if camera == VISIBLE:
        return _NAME_NEEDED if counts and encoding != "mono16" else 0 if color else 2 if counts else 1
    return _NAME_NEEDED if color or encoding.startswith(("32F", "64F")) else 0 if counts else 1


def _is_depth(topic: str, content: TopicContent) -> bool:
    if _DEPTH.search(topic.lower()):
        return True
    if content.encoding not in _DISTANCES or _like(_NAMED_LIKE[INFRARED], topic):
        return False
    return _like(_DISTANCE, topic) or _DEPTH.search(content.frame.lower()) is not None


def _like(pattern: re.Pattern[str], topic: str) -> bool:
    return any(pattern.fullmatch(word) for word in re.split(r"[/_]", topic.lower()))


def _described(topic: str, content: TopicContent) -> str:
    parts = [content.encoding or "unknown encoding", *(["depth"] if _is_depth(topic, content) else [])]
    return f"{topic} ({', '.join(parts)})" if content != TopicContent() else topic


def read_content(bag: BagReader, topic: str) -> TopicContent:
    """Read the first image of a topic.

    :param bag: the recording
    :param topic: a topic of images, raw or compressed
    """
    store: Any = common_types()
    # Without messages the whole recording would be searched for one.
    message = next(bag.messages([topic]), None) if bag.counts()[topic] else None
    if message is None:
        return TopicContent(messages=0)
    with suppress(Exception):  # whatever the generated code of rosbags stumbles over: the intake counts and reports it
        image = store.deserialize_cdr(message.data, message.type)
        encoding = image.format.partition(";")[0] if message.type == COMPRESSED_TYPE else image.encoding
        encoding = encoding.strip() if encoding.strip() not in ("jpeg", "jpg", "png") else ""
        return TopicContent(encoding if len(encoding) < 40 else quote(encoding), image.header.frame_id)
    return TopicContent(encoding="unreadable")


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
        bag.check_readable(topic)
        if known.get(topic) not in kinds:
            images = ", ".join(name for name, kind in known.items() if kind in kinds) or "nothing: it has no images"
            raise BagError(f"an image topic of {bag.path}", f"one of {images}", repr(topic))
    if visible and visible == infrared:
        raise BagError(f"the two cameras of {bag.path}", "two topics", f"{visible} for both")
    raw, coded = _images(known)
    contents = {} if visible and infrared else {topic: read_content(bag, topic) for topic in raw + coded}
    for camera in SENSORS:
        if not named[camera]:
            free = [topic for topic in raw if topic not in named.values()]
            advice = remedy.format(camera=camera)
            # Compressed images count only if this camera has no raw ones.
            with suppress(BagError):
                named[camera] = find_camera(camera, free, bag.path, advice, contents)
            free += [topic for topic in coded if topic not in named.values()]
            named[camera] = named[camera] or find_camera(camera, free, bag.path, advice, contents)
    return named[VISIBLE], named[INFRARED]


def topics_line(topics: tuple[str, str]) -> str:
    """Return a line that tells which topics were taken.

    :param topics: of the visible and of the infrared images
    """
    return ", ".join(f"{camera} {topic}" for camera, topic in zip(SENSORS, topics, strict=True))


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
