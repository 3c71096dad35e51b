"""Records topics into a rosbag2 folder, without ``ros2 bag``.

    recorder_node --ros-args -p output:=fused_bag -p topics:=/fusion_node/fused

Messages are written byte for byte as DDS delivers them, with their time of arrival. A topic whose message type is not
installed is reported and left out. SIGINT or SIGTERM closes the recording and prints the counts as one line of JSON. A
recorder that is killed loses about the last second. If the disk fails, it prints the counts and exits with status 2.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
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
DISCOVERY_PERIOD = 0.2  # [s] between two searches for new topics
FLUSH_PERIOD = 1.0  # [s]; a recorder that is killed loses at most this
WARN_AFTER = 5.0  # [s] after which topics without a publisher are reported
MAX_LISTED = 20  # topics in one line of the log
QUIET = 0.3  # [s] without a message, after which a stopped recorder ends
MAX_DRAIN = 3.0  # [s]


class RecorderNode(Node):
    """Subscribes to each topic as soon as it has a publisher, with a QoS that all its publishers offer.

    :raises TextDifuseError: a parameter is wrong, or the recording cannot be created
    """

    def __init__(self) -> None:
        super().__init__("recorder_node")
        self.config = NodeParameters(self, RecorderConfig).config
        if not self.config.output:
            raise ConfigError("output", "the folder of the recording to write", "nothing", "give -p output:=PATH")
        names = [name.strip() for name in self.config.topics.split(",") if name.strip()]
        if not names:
            raise ConfigError("topics", "names of topics, separated by commas", repr(self.config.topics))
        self._pending = list(dict.fromkeys(resolved_topic(self, name) for name in names))
        self._counts = dict.fromkeys(self._pending, 0)
        self._skipped: dict[str, str] = {}
        self._bag = BagWriter(Path(self.config.output).expanduser(), self.config.storage)
        self._last = time.monotonic()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    @property
    def status(self) -> dict[str, object]:
        """``output``, ``recorded`` (messages by topic) and ``skipped`` (reason by topic)."""
        return {"output": self.config.output, "recorded": self._counts, "skipped": self._skipped}

    def record(self, stop: StopRequest) -> None:
        """Record until ``stop`` is requested, then record the messages still in transit.

        :raises BagError: the disk fails
        """
        begin = flushed = time.monotonic()
        searched = float("-inf")
        warned = False
        while not stop.requested:
            now = time.monotonic()
            if self._pending and now - searched > DISCOVERY_PERIOD:
                self._subscribe_to_new_topics()
                searched = now
            if not warned and now - begin > WARN_AFTER:
                warned = True
                self._warn_of_pending_topics()
            if now - flushed > FLUSH_PERIOD:
                self._bag.flush()
                flushed = now
            self._executor.spin_once(timeout_sec=0.1)
        deadline = time.monotonic() + MAX_DRAIN
        self._last = time.monotonic()
        while time.monotonic() < min(self._last + QUIET, deadline):
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        """Close the recording and destroy the node.

        :raises BagError: the disk fails
        """
        try:
            self._bag.close()
        finally:
            self._executor.shutdown()
            self.destroy_node()

    def _subscribe_to_new_topics(self) -> None:
        kinds = dict(self.get_topic_names_and_types())
        for topic in [name for name in self._pending if name in kinds and self.get_publishers_info_by_topic(name)]:
            self._pending.remove(topic)
            kind = kinds[topic][0]
            offers = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
            try:
                received = message_class(kind)
                self._bag.add_topic(topic, kind, offered=[recorded_profile(offer) for offer in offers])
            except InputError as error:  # keep recording the other topics
                self._skipped[topic] = str(error)
                self.get_logger().error(f"not recording {topic}: {error}")
                continue
            self.create_subscription(received, topic, partial(self._write, topic), _subscription_qos(offers), raw=True)
            self.get_logger().info(f"recording {topic}")

    def _warn_of_pending_topics(self) -> None:
        """Warn of topics without a publisher: a name may be misspelt."""
        if not self._pending:
            return
        names = [name for name, _ in self.get_topic_names_and_types() if self.count_publishers(name)]
        published = ", ".join(names[:MAX_LISTED]) + (" ..." if len(names) > MAX_LISTED else "")
        self.get_logger().warning(
            f"no publisher on {', '.join(self._pending)} yet; waiting for one. Published topics: {published or 'none'}"
        )

    def _write(self, topic: str, data: bytes) -> None:
        self._bag.write_raw(topic, self.get_clock().now().nanoseconds, data)
        self._counts[topic] += 1
        self._last = time.monotonic()


def _subscription_qos(offers: Sequence[QoSProfile]) -> QoSProfile:
    """Return the strongest QoS that all publishers offer; a stronger one would not match some of them."""
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
            with suppress(FileError):  # the summary is usually on the same disk
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
