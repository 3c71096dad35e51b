"""Records topics into a rosbag2 folder, where ``ros2 bag`` is absent.

    recorder_node --ros-args -p output:=fused_bag -p topics:=/fusion_node/fused

Messages are written byte for byte as DDS hands them out, with the time they came in. A topic whose message type is not
installed is left out, and said so. SIGINT or SIGTERM closes the recording; one line of JSON then tells what is in it.
A recorder that is killed loses about the last second; where the disk fails it ends, with its counts and status 2.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from textdifuse_ros.bags.writer import BagWriter, recorded_profile
from textdifuse_ros.config.nodes import RecorderConfig
from textdifuse_ros.errors import BagError, ConfigError, FileError, InputError
from textdifuse_ros.nodes.messages import message_class, resolved_topic
from textdifuse_ros.nodes.parameters import NodeParameters
from textdifuse_ros.nodes.process import StopRequest, report, run_program

QUEUE_DEPTH = 100  # messages; a disk may stall for seconds
LOOK_PERIOD = 0.2  # [s] between two looks for topics that have appeared
FLUSH_PERIOD = 1.0  # [s]; what a recorder that is killed loses at most
PATIENCE = 5.0  # [s] after which a topic without a publisher is reported
MOST_NAMED = 20  # topics in a line of the log
QUIET = 0.3  # [s] without a message, after which a stopped recorder believes that none is on its way
LONGEST_DRAIN = 3.0  # [s]


class RecorderNode(Node):
    """Subscribes to each topic as soon as somebody publishes it, with a QoS that its publishers offer.

    :raises TextDifuseError: a parameter is wrong, or the recording cannot be made
    """

    def __init__(self) -> None:
        super().__init__("recorder_node")
        self.config = NodeParameters(self, RecorderConfig).config
        if not self.config.output:
            raise ConfigError("output", "the folder of the recording to write", "nothing", "give -p output:=PATH")
        names = [name.strip() for name in self.config.topics.split(",") if name.strip()]
        if not names:
            raise ConfigError("topics", "names of topics, separated by commas", repr(self.config.topics))
        self._awaited = list(dict.fromkeys(resolved_topic(self, name) for name in names))
        self._counts = dict.fromkeys(self._awaited, 0)
        self._skipped: dict[str, str] = {}
        self._bag = BagWriter(Path(self.config.output).expanduser(), self.config.storage)
        self._last = time.monotonic()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    @property
    def status(self) -> dict[str, object]:
        """``output``, ``recorded`` (topic: messages), and ``skipped`` (topic: why it could not be recorded)."""
        return {"output": self.config.output, "recorded": self._counts, "skipped": self._skipped}

    def record(self, stop: StopRequest) -> None:
        """Record until asked to stop, and then what is still on its way.

        :raises BagError: the disk fails
        """
        begun = flushed = time.monotonic()
        looked = float("-inf")
        patient = True
        while not stop.requested:
            now = time.monotonic()
            if self._awaited and now - looked > LOOK_PERIOD:
                self._look()
                looked = now
            if patient and now - begun > PATIENCE:
                patient = False
                self._tell_of_awaited()
            if now - flushed > FLUSH_PERIOD:
                self._bag.flush()
                flushed = now
            self._executor.spin_once(timeout_sec=0.1)
        deadline = time.monotonic() + LONGEST_DRAIN
        self._last = time.monotonic()
        while time.monotonic() < min(self._last + QUIET, deadline):
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        """Close the recording and leave the graph.

        :raises BagError: the disk fails
        """
        try:
            self._bag.close()
        finally:
            self._executor.shutdown()
            self.destroy_node()

    def _look(self) -> None:
        kinds = dict(self.get_topic_names_and_types())
        for topic in [name for name in self._awaited if name in kinds and self.get_publishers_info_by_topic(name)]:
            self._awaited.remove(topic)
            kind = kinds[topic][0]
            offers = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
            try:
                received = message_class(kind)
                self._bag.add_topic(topic, kind, offered=[recorded_profile(offer) for offer in offers])
            except InputError as error:  # the other topics must not be lost with it
                self._skipped[topic] = str(error)
                self.get_logger().error(f"not recording {topic}: {error}")
                continue
            self.create_subscription(received, topic, self._keep(topic), self._qos(offers), raw=True)
            self.get_logger().info(f"recording {topic}")

    def _tell_of_awaited(self) -> None:
        """Warn of topics that nobody publishes: a name may be misspelt."""
        if not self._awaited:
            return
        names = [name for name, _ in self.get_topic_names_and_types() if self.count_publishers(name)]
        there = ", ".join(names[:MOST_NAMED]) + (" ..." if len(names) > MOST_NAMED else "")
        self.get_logger().warning(
            f"nobody publishes {', '.join(self._awaited)} so far; it is recorded as soon as somebody does. "
            f"Published are: {there or 'none'}"
        )

    def _keep(self, topic: str) -> Callable[[bytes], None]:
        def keep(data: bytes) -> None:
            self._bag.write_raw(topic, self.get_clock().now().nanoseconds, data)
            self._counts[topic] += 1
            self._last = time.monotonic()

        return keep

    def _qos(self, offers: Sequence[QoSProfile]) -> QoSProfile:
        """The most that all publishers of a topic offer: asking for more, nothing would come from some of them."""
        reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
        latched = all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=QUEUE_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )


def _record(argv: Sequence[str] | None) -> int:
    stop = StopRequest()
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = RecorderNode()
        try:
            try:
                node.record(stop)
            finally:
                node.close()
        except BagError:
            with suppress(FileError):  # the same disk, as a rule
                report(node.status, node.config.summary)
            raise
        report(node.status, node.config.summary)
    finally:
        rclpy.try_shutdown()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Record until SIGINT or SIGTERM."""
    return run_program("recorder_node", __doc__, _record, argv)


if __name__ == "__main__":
    sys.exit(main())
