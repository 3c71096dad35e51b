"""What a job does with one recording: its parameters, and the pairs of the recording."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from textdifuse_ros.bags.cameras import find_calibrations, find_cameras, header_stamp, topics_line
from textdifuse_ros.bags.reader import BagMessage, BagReader
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import BagError, CalibrationError
from textdifuse_ros.image.intake import SensorIntake
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE
from textdifuse_ros.sync.recorded import RecordedPair, RecordedPairs, pair_recording
from textdifuse_ros.sync.stamps import StampSeries


@dataclass(frozen=True)
class RecordingJob:
    """One recording to fuse.

    :ivar source: rosbag2 folder, or .mcap or .db3 file
    :ivar output: rosbag2 folder to write
    :ivar config: used are the parameters of fuser and sensors, ``tolerance`` and the offsets
    :ivar visible: topic of the visible images; found by name where empty
    :ivar infrared: likewise
    :ivar name: of the node that the topics are named after
    :ivar storage: ``mcap`` or ``sqlite3``
    :ivar copy_topics: copy all topics of the source beside the fused ones
    :ivar confidence: also write how sure each pixel is
    :ivar text: the objects to emphasize; empty for none
    :ivar strength: how much, in [-1, 2]
    :ivar localizer: finds them
    :ivar restart: discard what another, unfinished job left at this output
    """

    source: Path
    output: Path
    config: FusionNodeConfig = field(default_factory=FusionNodeConfig)
    visible: str = ""
    infrared: str = ""
    name: str = "fusion_node"
    storage: str = "mcap"
    copy_topics: bool = False
    confidence: bool = False
    text: str = ""
    strength: float = 1.0
    localizer: LocalizerConfig = field(default_factory=LocalizerConfig)
    restart: bool = False


def prefix(job: RecordingJob) -> str:
    """The beginning of all output topic names.

    :param job: names the node
    """
    return f"/{job.name.strip('/')}"


@dataclass(frozen=True)
class RecordingPlan:
    """The pairs of a recording.

    :ivar topics: of the visible and of the infrared images
    :ivar found: the pairs, and the images without a counterpart
    :ivar received: images of each stream
    :ivar digest: of all stamps and log times; identifies the recording
    :ivar calibrations: the first CameraInfo beside the images of each sensor, where there is one
    """

    topics: tuple[str, str]
    found: RecordedPairs
    received: dict[str, int]
    digest: str
    calibrations: dict[str, BagMessage]

    @property
    def pairs(self) -> list[RecordedPair]:
        """In the order in which they are fused."""
        return self.found.pairs

    @classmethod
    def of(cls, bag: BagReader, job: RecordingJob) -> RecordingPlan:
        """Read all stamps and pair them.

        :param bag: open
        :param job: names topics, tolerance and offsets
        :raises BagError: no such topics, a damaged recording, or not one pair
        :raises CalibrationError: both calibrations are required and there is only one
        """
        topics = find_cameras(bag, job.visible, job.infrared)
        beside = {topic: stream for stream, topic in _calibrations(bag, topics, job).items()}
        tables: dict[str, list[tuple[int, int]]] = {topic: [] for topic in topics}
        calibrations: dict[str, BagMessage] = {}
        for message in bag.messages([*topics, *beside]):
            if message.topic in tables:
                tables[message.topic].append((stamp_or_zero(message), message.stamp_ns))
            else:
                calibrations.setdefault(beside[message.topic], message)
        series = [np.array(tables[topic], np.int64).reshape(-1, 2) for topic in topics]
        offsets = {
            VISIBLE: round(1e9 * job.config.visible_offset),
            INFRARED: round(1e9 * job.config.infrared_offset),
        }
        visible, infrared = (StampSeries(table[:, 0], table[:, 1]) for table in series)
        found = pair_recording(visible, infrared, round(1e9 * job.config.tolerance), offsets)
        if not found.pairs:
            remedy = "textdifuse sync-doctor shows how far apart they are"
            expected = f"within {job.config.tolerance:g} s of one another"
            raise BagError(f"the images of {bag.path} ({topics_line(topics)})", expected, "not one pair", remedy)
        digest = hashlib.sha256(b"".join(table.tobytes() for table in series)).hexdigest()
        received = {stream: len(table) for stream, table in zip(SENSORS, series, strict=True)}
        return cls(topics, found, received, digest, calibrations)

    def messages(self, bag: BagReader) -> Iterator[tuple[RecordedPair, BagMessage, BagMessage]]:
        """Yield every pair with its two messages; holds only those that wait for a counterpart or their turn.

        :param bag: open
        """
        paired = [{getattr(pair, stream) for pair in self.pairs} for stream in SENSORS]
        held: list[dict[int, BagMessage]] = [{}, {}]
        counts = [0, 0]
        turn = iter(self.pairs)
        pair = next(turn, None)
        for message in bag.messages(self.topics):
            side = self.topics.index(message.topic)
            if counts[side] in paired[side]:
                held[side][counts[side]] = message
            counts[side] += 1
            while pair is not None and pair.visible in held[0] and pair.infrared in held[1]:
                yield pair, held[0].pop(pair.visible), held[1].pop(pair.infrared)
                pair = next(turn, None)


def _calibrations(bag: BagReader, topics: tuple[str, str], job: RecordingJob) -> dict[str, str]:
    """The CameraInfo topic of each sensor; none where both sensors share one."""
    found = find_calibrations(bag, topics)
    if len(found) == len(set(found.values())):
        return found
    if len(SensorIntake(job.config).required_calibrations) > 1:
        raise CalibrationError(
            f"the camera_info beside the images of {bag.path}",
            "a topic for each camera",
            f"{found[VISIBLE]} for both",
            "name files by --visible-calibration and --infrared-calibration",
        )
    return {}


def stamp_or_zero(message: BagMessage) -> int:
    """The header stamp; 0 for a message too short to have one, which is counted and skipped."""
    try:
        return header_stamp(message)
    except BagError:
        return 0
