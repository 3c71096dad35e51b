"""What the player plays: a rosbag2 recording, or a folder of image pairs. Free of ROS itself."""

from __future__ import annotations

import dataclasses
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from textdifuse_ros.bags.cameras import COMPRESSED, COMPRESSED_TYPE, find_calibrations, find_cameras
from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.errors import BagError, ConfigError, TextDifuseError
from textdifuse_ros.image.files import find_pairs, read_infrared, read_visible

VISIBLE, INFRARED = "visible/image", "infrared/image"
"""The names under which the images are published; relative, hence remappable. Compressed ones have a suffix more."""
CALIBRATIONS = {VISIBLE: "visible/camera_info", INFRARED: "infrared/camera_info"}
"""And the calibration that goes with each."""
ALL = ("all", "*")
"""Words for all topics of a recording."""
LEAST_GAP_NS = 100_000_000
"""Between two laps of a recording whose images tell no rate."""


@dataclass(frozen=True)
class FolderImage:
    """An image that is not yet a message.

    :ivar pixels: uint8 or uint16 [H, W] or [H, W, 3] RGB
    :ivar stamp_ns: time for its header [ns]
    """

    pixels: np.ndarray
    stamp_ns: int
    frame_id: str


@dataclass(frozen=True)
class Entry:
    """One thing to publish.

    :ivar topic: the name to publish on
    :ivar offset_ns: when, from the start of the lap, at rate 1 [ns]
    :ivar time_ns: the time that ``/clock`` shows then [ns]
    :ivar content: the CDR bytes of a message, or an image
    """

    topic: str
    offset_ns: int
    time_ns: int
    content: bytes | FolderImage


def stamped_now(entry: Entry, now_ns: int) -> bytes | FolderImage:
    """The content of an image's entry, as if it had been recorded at ``now_ns``: its stamp is as much before it.

    A message that is too short for a stamp, or has none (zero), is left as it is: that is for those who hear it.
    """
    content = entry.content
    if isinstance(content, FolderImage):
        return dataclasses.replace(content, stamp_ns=content.stamp_ns + now_ns - entry.time_ns)
    # CDR of a message that begins with a header: 4 bytes of encapsulation, then the stamp's seconds and nanoseconds.
    form = "<iI" if len(content) > 1 and content[1] & 1 else ">iI"
    try:
        seconds, nanoseconds = struct.unpack_from(form, content, 4)
        if not seconds and not nanoseconds:
            return content
        stamp = seconds * 10**9 + nanoseconds + now_ns - entry.time_ns
        return content[:4] + struct.pack(form, *divmod(stamp, 10**9)) + content[12:]
    except struct.error:  # too short, or beyond what a stamp can hold
        return content


class Source(Protocol):
    """Something that can be played, again and again."""

    def topics(self) -> dict[str, str]:
        """The message type of each name that is published."""
        ...

    @property
    def cameras(self) -> tuple[str, str]:
        """The names of the visible and of the infrared images."""
        ...

    def latched(self) -> dict[str, int]:
        """How many messages each name keeps for subscribers that come later, of those that keep any."""
        ...

    def lap(self, number: int) -> Iterator[Entry]:
        """Everything once, in order of time.

        :param number: of the lap, from 0
        """
        ...

    @property
    def lap_ns(self) -> int:
        """Time from the start of one lap to the start of the next [ns]."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class BagSource:
    """A recording; the bytes of its messages are published as they are.

    The ``camera_info`` beside the images of each camera goes with them.

    :param visible: topic of the visible images; empty looks for it
    :param infrared: topic of the infrared images; empty looks for it
    :param others: more topics, separated by commas, or one of ``ALL``
    :param report: takes a line about what is left out
    :raises BagError: no recording, or one without these topics
    """

    def __init__(
        self,
        path: Path,
        visible: str = "",
        infrared: str = "",
        others: str = "",
        report: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._bag = BagReader(path)
        try:
            self._topics = find_cameras(self._bag, visible, infrared, "name it by the parameter {camera}_topic")
            self._names = self._choose(path, others, report)
        except BagError:
            self._bag.close()
            raise

    def _choose(self, path: Path, others: str, report: Callable[[str], object]) -> dict[str, str]:
        """The name to publish on, by the topic in the recording."""
        known = self._bag.topics()
        names = dict(zip(self._topics, self.cameras, strict=True))
        calibrations = find_calibrations(self._bag, self._topics)
        if len(set(calibrations.values())) < len(calibrations):
            report(f"left out: {calibrations['visible']}, which is beside the images of both cameras")
        else:
            names.update({topic: f"{camera}/camera_info" for camera, topic in calibrations.items()})
        wanted = list(known) if others.strip() in ALL else [item.strip() for item in others.split(",") if item.strip()]
        for topic in wanted:
            if topic not in known:
                raise BagError(f"a topic of {path}", f"one of {', '.join(known)}", repr(topic))
            names.setdefault(topic, topic)
        return names

    def topics(self) -> dict[str, str]:
        """The message type of each name that is published."""
        known = self._bag.topics()
        return {name: known[topic] for topic, name in self._names.items()}

    @property
    def cameras(self) -> tuple[str, str]:
        """The names of the visible and of the infrared images."""
        known = self._bag.topics()
        visible, infrared = (COMPRESSED if known[topic] == COMPRESSED_TYPE else "" for topic in self._topics)
        return VISIBLE + visible, INFRARED + infrared

    def latched(self) -> dict[str, int]:
        """How many messages each name keeps for later subscribers, of those that all publishers had latched."""
        # Each publisher kept its own, as those of /tf_static do; here one stands for all of them.
        return {self._names[topic]: depth for topic, depth in self._bag.latched().items() if topic in self._names}

    def lap(self, number: int) -> Iterator[Entry]:
        """Everything once; the stamps are the recorded ones in every lap.

        :raises BagError: the recording turns out damaged
        """
        start = self._bag.start_ns
        for message in self._bag.messages(self._names):
            offset = message.stamp_ns - start
            yield Entry(self._names[message.topic], offset, message.stamp_ns, bytes(message.data))

    @property
    def lap_ns(self) -> int:
        """The recording's duration and the mean gap of its messages [ns]."""
        most = max(count for topic, count in self._bag.counts().items() if topic in self._names)
        gap = self._bag.duration_ns // (most - 1) if most > 1 else 0
        return self._bag.duration_ns + (gap or LEAST_GAP_NS)

    def close(self) -> None:
        """Close the recording."""
        self._bag.close()


class FolderSource:
    """A folder with ``vis/`` and ``ir/``, images paired by name.

    A pair that cannot be read is reported and left out. Stamps start at the time of opening and go on over the laps.

    :param fps: pairs a second
    :param report: takes a line about a pair that cannot be read
    :raises FileError: the folders are missing or hold no pair
    """

    def __init__(self, path: Path, fps: float, report: Callable[[str], object]) -> None:
        self._pairs = find_pairs(path / "vis", path / "ir").pairs
        self._period_ns = round(1e9 / fps)
        self._report = report
        self._start_ns = time.time_ns()

    def topics(self) -> dict[str, str]:
        """The message type of each name that is published."""
        return {VISIBLE: IMAGE_TYPE, INFRARED: IMAGE_TYPE}

    @property
    def cameras(self) -> tuple[str, str]:
        """The names of the visible and of the infrared images."""
        return VISIBLE, INFRARED

    def latched(self) -> dict[str, int]:
        """None."""
        return {}

    def lap(self, number: int) -> Iterator[Entry]:
        """Every pair once, both of its images with the same stamp."""
        for index, pair in enumerate(self._pairs):
            offset = index * self._period_ns
            stamp = self._start_ns + number * self.lap_ns + offset
            try:
                images = {VISIBLE: read_visible(pair.visible), INFRARED: read_infrared(pair.infrared)}
            except TextDifuseError as error:
                self._report(f"left out: {error}")
                continue
            for name, pixels in images.items():
                yield Entry(name, offset, stamp, FolderImage(pixels, stamp, name.split("/")[0] + "_camera"))

    @property
    def lap_ns(self) -> int:
        """A period for each pair [ns]."""
        return len(self._pairs) * self._period_ns

    def close(self) -> None:
        """Nothing is open."""


def open_source(
    path: str, *, fps: float, visible: str, infrared: str, others: str, report: Callable[[str], object]
) -> Source:
    """A folder with ``vis/`` is played as images, anything else as a recording.

    :raises TextDifuseError: there is neither
    """
    if not path:
        raise ConfigError("source", "a recording, or a folder with vis/ and ir/", "nothing", "give -p source:=PATH")
    folder = Path(path).expanduser()
    if (folder / "vis").is_dir():
        return FolderSource(folder, fps, report)
    if folder.is_dir() and not any(item.suffix in (".yaml", ".mcap", ".db3") for item in folder.iterdir()):
        raise BagError(str(folder), "a rosbag2 recording, or a folder with vis/ and ir/", "a folder with neither")
    return BagSource(folder, visible, infrared, others, report)
