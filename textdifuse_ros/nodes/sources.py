"""Sources of the player: a rosbag2 recording, or a folder of image pairs. Does not import ROS."""

from __future__ import annotations

import dataclasses
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from textdifuse_ros.bags.cameras import COMPRESSED, COMPRESSED_TYPE, find_calibrations, find_cameras, topics_line
from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.metadata import is_recording
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.errors import BagError, ConfigError, TextDifuseError
from textdifuse_ros.image.files import find_pairs, read_infrared, read_visible
from textdifuse_ros.image.swapped import swap_warning

VISIBLE_IMAGE, INFRARED_IMAGE = "visible/image", "infrared/image"
"""Names of the published images, relative and hence remappable; compressed images have a suffix."""
CALIBRATIONS = {VISIBLE_IMAGE: "visible/camera_info", INFRARED_IMAGE: "infrared/camera_info"}
"""Name of the calibration that belongs to each."""
ALL = ("all", "*")
"""Values of ``topics`` that select all topics of a recording."""
DEFAULT_GAP_NS = 100_000_000
"""Time between two laps of a recording with a single message per topic [ns]."""


@dataclass(frozen=True)
class FolderImage:
    """An image of a folder.

    :ivar pixels: uint8 or uint16 [H, W] or [H, W, 3] RGB
    :ivar stamp_ns: header stamp [ns]
    :ivar frame_id: frame of its header
    """

    pixels: np.ndarray
    stamp_ns: int
    frame_id: str


@dataclass(frozen=True)
class PlaybackEntry:
    """A message to publish.

    :ivar topic: name to publish it on
    :ivar offset_ns: when to publish it, from the start of the lap at rate 1 [ns]
    :ivar time_ns: time on ``/clock`` at that moment [ns]
    :ivar content: CDR bytes of a message, or an image
    """

    topic: str
    offset_ns: int
    time_ns: int
    content: bytes | FolderImage


def restamp(entry: PlaybackEntry, now_ns: int) -> bytes | FolderImage:
    """Return the content of ``entry`` with a stamp as if it had been recorded at ``now_ns`` [ns].

    A message that is too short for a stamp, or has a zero stamp, is returned unchanged: subscribers handle it.
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
    except struct.error:  # too short, or out of range of a stamp
        return content


class Source(Protocol):
    """A source that can be played repeatedly."""

    def topics(self) -> dict[str, str]:
        """Return the message type of each published name."""
        ...

    @property
    def cameras(self) -> tuple[str, str]:
        """Names of the visible and of the infrared images."""
        ...

    def latched(self) -> dict[str, int]:
        """Return the history depth of each latched name."""
        ...

    def origin(self) -> str:
        """Return a line that names what is played."""
        ...

    def remarks(self) -> list[str]:
        """Return what is left out, and which counts differ from what was read so far, a line each."""
        ...

    def lap(self, number: int) -> Iterator[PlaybackEntry]:
        """Yield all messages of a lap in order of time.

        :param number: number of the lap, from 0
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
    """A recording, whose messages are published byte for byte, with the ``camera_info`` of each camera.

    :param path: the recording
    :param visible: topic of the visible images; empty to find it
    :param infrared: topic of the infrared images; empty to find it
    :param others: additional topics, separated by commas, or one of ``ALL``
    :param report: called with a line about each topic that is left out
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
        """Return the name to publish on for each topic of the recording to play."""
        known = self._bag.topics()
        names = dict(zip(self._topics, self.cameras, strict=True))
        calibrations = find_calibrations(self._bag, self._topics)
        if len(set(calibrations.values())) < len(calibrations):
            report(f"left out: {calibrations['visible']}, which belongs to both cameras")
        else:
            names.update({topic: f"{camera}/camera_info" for camera, topic in calibrations.items()})
        listed = [item.strip() for item in others.split(",") if item.strip()]
        for topic in listed:
            self._bag.check_readable(topic)
        for topic in known if others.strip() in ALL else listed:
            if topic not in known:
                raise BagError(f"a topic of {path}", f"one of {', '.join(known)}", repr(topic))
            names.setdefault(topic, topic)
        return names

    def topics(self) -> dict[str, str]:
        """Return the message type of each published name."""
        known = self._bag.topics()
        return {name: known[topic] for topic, name in self._names.items()}

    @property
    def cameras(self) -> tuple[str, str]:
        """Names of the visible and of the infrared images."""
        known = self._bag.topics()
        visible, infrared = (COMPRESSED if known[topic] == COMPRESSED_TYPE else "" for topic in self._topics)
        return VISIBLE_IMAGE + visible, INFRARED_IMAGE + infrared

    def latched(self) -> dict[str, int]:
        """Return the history depth of each latched name."""
        # The player has one publisher in place of several recorded ones (for example of /tf_static): depths are summed.
        return {self._names[topic]: depth for topic, depth in self._bag.latched().items() if topic in self._names}

    def origin(self) -> str:
        """Return a line that names the recorded topics of the cameras."""
        return topics_line(self._topics)

    def remarks(self) -> list[str]:
        """Return what is left out, and which counts differ from what was read so far, a line each."""
        return self._bag.remarks()

    def lap(self, number: int) -> Iterator[PlaybackEntry]:
        """Yield all messages once, with the recorded stamps whatever the ``number`` of the lap.

        :raises BagError: the recording is damaged
        """
        start = self._bag.start_ns
        for message in self._bag.messages(self._names):
            offset = message.stamp_ns - start
            yield PlaybackEntry(self._names[message.topic], offset, message.stamp_ns, bytes(message.data))

    @property
    def lap_ns(self) -> int:
        """Duration of the recording plus the mean interval of its most frequent topic [ns]."""
        most = max(count for topic, count in self._bag.counts().items() if topic in self._names)
        gap = self._bag.duration_ns // (most - 1) if most > 1 else 0
        return self._bag.duration_ns + (gap or DEFAULT_GAP_NS)

    def close(self) -> None:
        """Close the recording."""
        self._bag.close()


class FolderSource:
    """A folder with ``vis/`` and ``ir/``, images paired by name.

    A pair that cannot be read is reported and left out; folders that seem to be exchanged are reported and played.
    Stamps start at the time of opening and increase over the laps.

    :param path: the folder
    :param fps: rate of the pairs [Hz]
    :param report: called with a line about each pair that cannot be read
    :raises FileError: the folders are missing or have no pair
    """

    def __init__(self, path: Path, fps: float, report: Callable[[str], object]) -> None:
        listing = find_pairs(path / "vis", path / "ir")
        if line := swap_warning(path / "vis", path / "ir", listing):
            report(line)
        self._pairs = listing.pairs
        self._period_ns = round(1e9 / fps)
        self._report = report
        self._start_ns = time.time_ns()

    def topics(self) -> dict[str, str]:
        """Return the message type of each published name."""
        return dict.fromkeys(self.cameras, IMAGE_TYPE)

    @property
    def cameras(self) -> tuple[str, str]:
        """Names of the visible and of the infrared images."""
        return VISIBLE_IMAGE, INFRARED_IMAGE

    def latched(self) -> dict[str, int]:
        """Return nothing: images are not latched."""
        return {}

    def origin(self) -> str:
        """Return a line with the number of pairs."""
        return f"{len(self._pairs)} pairs of a folder"

    def remarks(self) -> list[str]:
        """Return nothing: pairs that cannot be read are reported one by one."""
        return []

    def lap(self, number: int) -> Iterator[PlaybackEntry]:
        """Yield every pair of the lap ``number``, both images with the same stamp."""
        for index, pair in enumerate(self._pairs):
            offset = index * self._period_ns
            stamp = self._start_ns + number * self.lap_ns + offset
            try:
                images = {VISIBLE_IMAGE: read_visible(pair.visible), INFRARED_IMAGE: read_infrared(pair.infrared)}
            except TextDifuseError as error:
                self._report(f"left out: {error}")
                continue
            for name, pixels in images.items():
                yield PlaybackEntry(name, offset, stamp, FolderImage(pixels, stamp, name.split("/")[0] + "_camera"))

    @property
    def lap_ns(self) -> int:
        """One period per pair [ns]."""
        return len(self._pairs) * self._period_ns

    def close(self) -> None:
        """Do nothing: no file is open."""


def open_source(
    path: str, *, fps: float, visible: str, infrared: str, others: str, report: Callable[[str], object]
) -> Source:
    """Open a folder with ``vis/`` as images, anything else as a recording.

    :param path: folder or recording
    :param fps: rate of the pairs of a folder [Hz]
    :param visible: topic of the visible images of a recording; empty to find it
    :param infrared: topic of the infrared images of a recording; empty to find it
    :param others: additional topics of a recording, separated by commas, or one of ``ALL``
    :param report: called with a line about what is left out
    :raises TextDifuseError: there is neither
    """
    if not path:
        raise ConfigError("source", "a recording, or a folder with vis/ and ir/", "nothing", "give -p source:=PATH")
    folder = Path(path).expanduser()
    if (folder / "vis").is_dir():
        return FolderSource(folder, fps, report)
    if folder.is_dir() and not is_recording(folder):
        raise BagError(str(folder), "a rosbag2 recording, or a folder with vis/ and ir/", "a folder with neither")
    return BagSource(folder, visible, infrared, others, report)
