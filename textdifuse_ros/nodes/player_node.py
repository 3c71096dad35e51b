"""Plays a rosbag2 recording, or a folder of image pairs, without ``ros2 bag``.

    player_node --ros-args -p source:=PATH -p rate:=2.0 -r visible/image:=/camera/color

The visible images are published on ``visible/image`` and the infrared ones on ``infrared/image``, whatever their
recorded topics; compressed images on ``visible/image/compressed`` and ``infrared/image/compressed``. The
``camera_info`` of each camera is published with them. Messages of a recording are published byte for byte. At the end
the counts are printed as one line of JSON.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Sequence

import rclpy
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from textdifuse_ros.bags.cameras import COMPRESSED
from textdifuse_ros.config.nodes import PlayerConfig
from textdifuse_ros.errors import InputError, TextDifuseError
from textdifuse_ros.nodes.messages import calibration_name, message_class, resolved_topic
from textdifuse_ros.nodes.parameters import NodeParameters
from textdifuse_ros.nodes.process import StopRequest, report, run_program
from textdifuse_ros.nodes.qos import latched_profile, output_profile
from textdifuse_ros.nodes.sources import (
    ALL,
    CALIBRATIONS,
    FolderImage,
    PlaybackEntry,
    open_source,
    restamp,
)

QUEUE_DEPTH = 20  # messages that a slow reliable subscriber may lag behind
CLOCK_PERIOD = 0.01  # [s]
CLOCK_TOPIC = "/clock"
SETTLE = 0.5  # [s] until subscribers have discovered the publishers as well; else they would miss the first messages


class PlayerNode(Node):
    """Publishes the messages of a source in real time.

    :param stop: set by SIGINT and SIGTERM; ends the playback
    :raises TextDifuseError: a parameter or the source is wrong
    """

    def __init__(self, stop: StopRequest) -> None:
        super().__init__("player_node")
        self._stop = stop
        self.config = NodeParameters(self, PlayerConfig).config
        self._source = open_source(
            self.config.source,
            fps=self.config.fps,
            visible=self.config.visible_topic,
            infrared=self.config.infrared_topic,
            others=self.config.topics,
            report=self.get_logger().error,
        )
        self._reported: set[str] = set()
        self._report_remarks()
        clock = self.config.clock
        self._cameras = self._source.cameras
        kinds = {name: kind for name, kind in self._source.topics().items() if not (clock and name == CLOCK_TOPIC)}
        self._outputs = self._open_outputs(kinds)
        self._clock_output = self.create_publisher(Clock, CLOCK_TOPIC, output_profile(1)) if clock else None
        self._counts = dict.fromkeys(self._outputs, 0)
        self._laps = 0
        self._start_ns: int | None = None
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def _open_outputs(self, kinds: dict[str, str]) -> dict[str, Publisher]:
        """Return the publisher of each name; with ``topics`` "all", names that cannot be published are left out."""
        latched = self._source.latched()
        found = {}
        for name, kind in self._without_shared_calibration(kinds).items():
            is_latched = name in latched and name not in self._cameras
            profile = latched_profile(latched[name]) if is_latched else output_profile(QUEUE_DEPTH)
            try:
                topic = self._topic(name)
                found[name] = self.create_publisher(message_class(kind), topic, profile)
            except TextDifuseError as error:
                if self.config.topics.strip() not in ALL:
                    raise
                self.get_logger().warning(f"not playing {name}: {error}")
        return found

    def _topic(self, name: str) -> str:
        """Return the topic of a name. Compressed images and calibrations follow a remapping of the raw images."""
        for camera, calibration in CALIBRATIONS.items():
            if name == camera + COMPRESSED:
                return resolved_topic(self, camera) + COMPRESSED
            if name == calibration:
                return calibration_name(self, name.partition("/")[0])
        resolved_topic(self, name)  # raises if the name is invalid
        return name  # the resolved topic would be remapped a second time

    def _without_shared_calibration(self, kinds: dict[str, str]) -> dict[str, str]:
        """Leave out calibrations if those of both cameras would share a topic, as their images share a namespace."""
        topics = {self.resolve_topic_name(self._topic(name)) for name in CALIBRATIONS.values()}
        if len(topics) > 1 or not kinds.keys() & set(CALIBRATIONS.values()):
            return kinds
        self.get_logger().warning(
            f"not playing camera_info: {topics.pop()} would belong to both cameras; remap "
            f"{' and '.join(CALIBRATIONS.values())}"
        )
        return {name: kind for name, kind in kinds.items() if name not in CALIBRATIONS.values()}

    def play(self) -> dict[str, object]:
        """Wait for the subscribers, then play.

        :returns: counts: ``pairs``, ``published`` (messages by topic), ``laps``, ``seconds`` and ``start_ns``, the
            recorded time of the first message, or the stamp of the first pair of a folder
        :raises InputError: not enough subscribers in time
        """
        self._await_subscribers()
        self.get_logger().info(f"playing {self._source.origin()}")
        begin = time.monotonic()
        while not self._finished():
            self._play_lap(begin)
            self._report_remarks()
            self._laps += 1
            if not self.config.loop or not sum(self._counts.values()):
                break
        seconds = time.monotonic() - begin
        for output in filter(None, (*self._outputs.values(), self._clock_output)):
            output.wait_for_all_acked(Duration(seconds=3))
        published = {self._outputs[name].topic_name: count for name, count in self._counts.items()}
        return {
            "pairs": self._pairs(),
            "published": published,
            "laps": self._laps,
            "seconds": round(seconds, 3),
            "start_ns": self._start_ns,
        }

    def close(self) -> None:
        """Close the source and destroy the node."""
        self._source.close()
        self._executor.shutdown()
        self.destroy_node()

    def _report_remarks(self) -> None:
        """Log each remark of the source once."""
        for remark in self._source.remarks():
            if remark not in self._reported:
                self._reported.add(remark)
                self.get_logger().warning(remark)

    def _play_lap(self, begin: float) -> None:
        lap_begin = begin + self._laps * self._source.lap_ns / 1e9 / self.config.rate
        clock_ns: int | None = None
        for entry in self._source.lap(self._laps):
            output = self._outputs.get(entry.topic)
            if output is None:
                continue
            due = lap_begin + entry.offset_ns / 1e9 / self.config.rate
            self._wait_until(due, clock_ns, entry.time_ns)
            if self._finished():
                return
            self._tick(entry.time_ns)
            if self._start_ns is None:
                self._start_ns = entry.time_ns - entry.offset_ns
            clock_ns = entry.time_ns
            self._publish(output, entry)
            if self._finished():
                return

    def _publish(self, output: Publisher, entry: PlaybackEntry) -> None:
        live = self.config.live and entry.topic in (*self._cameras, *CALIBRATIONS.values())
        content = restamp(entry, time.time_ns()) if live else entry.content
        output.publish(content if isinstance(content, bytes) else image_message(content))
        self._counts[entry.topic] += 1

    def _wait_until(self, due: float, from_ns: int | None, to_ns: int) -> None:
        """Spin until ``due`` (steady clock) [s]; meanwhile ``/clock`` advances from ``from_ns`` to ``to_ns``."""
        while not self._stop.requested:
            remaining = due - time.monotonic()
            if remaining <= 0:
                return
            if self._clock_output is not None and from_ns is not None:
                self._tick(max(from_ns, to_ns - round(remaining * self.config.rate * 1e9)))
                remaining = min(remaining, CLOCK_PERIOD)
            self._executor.spin_once(timeout_sec=min(remaining, 0.1))

    def _tick(self, now_ns: int) -> None:
        if self._clock_output is not None:
            self._clock_output.publish(Clock(clock=Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9)))

    def _pairs(self) -> int:
        return min(self._counts[name] for name in self._cameras)

    def _finished(self) -> bool:
        return self._stop.requested or bool(self.config.pairs and self._pairs() >= self.config.pairs)

    def _await_subscribers(self) -> None:
        if not self.config.wait_for:
            return
        outputs = [self._outputs[name] for name in self._cameras]
        deadline = time.monotonic() + self.config.wait_timeout
        while not self._stop.requested:
            missing = [out for out in outputs if out.get_subscription_count() < self.config.wait_for]
            if not missing:
                time.sleep(SETTLE)
                return
            if time.monotonic() > deadline:
                names = ", ".join(f"{out.topic_name} has {out.get_subscription_count()}" for out in missing)
                expected = f"{self.config.wait_for} within {self.config.wait_timeout:g} s"
                raise InputError("the subscribers of each image topic", expected, names, "start fusion_node first")
            self._executor.spin_once(timeout_sec=0.05)


def image_message(image: FolderImage) -> Image:
    """Convert ``image`` to a message of the encoding mono8, mono16, rgb8 or rgb16."""
    pixels = image.pixels
    bits = pixels.dtype.itemsize * 8
    message = Image(height=pixels.shape[0], width=pixels.shape[1])
    message.header.stamp = Time(sec=image.stamp_ns // 10**9, nanosec=image.stamp_ns % 10**9)
    message.header.frame_id = image.frame_id
    message.encoding = f"{'mono' if pixels.ndim == 2 else 'rgb'}{bits}"
    message.is_bigendian = int(sys.byteorder == "big" and bits > 8)
    message.step = pixels[0].nbytes
    message.data = array("B", pixels.tobytes())
    return message


def _play(argv: Sequence[str] | None) -> int:
    stop = StopRequest()
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = PlayerNode(stop)
        try:
            report(node.play(), node.config.summary)
        finally:
            node.close()
    finally:
        rclpy.try_shutdown()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Play until the end or until SIGINT or SIGTERM."""
    return run_program("player_node", __doc__, _play, argv)


if __name__ == "__main__":
    sys.exit(main())
