"""Records topics into a rosbag2 folder, where ``ros2 bag`` is absent.

    recorder_node --ros-args -p output:=fused_bag -p topics:=/fusion_node/fused

Messages are written byte for byte as DDS hands them out, with the time they came in. A topic whose message type is not
installed is left out, and said so. SIGINT or SIGTERM closes the recording; one line of JSON then tells what is in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.config_nodes import RecorderConfig
from textdifuse_ros.errors import ConfigError, InputError
from textdifuse_ros.nodes.messages import message_class
from textdifuse_ros.nodes.parameters import NodeParameters
from textdifuse_ros.nodes.process import StopRequest, report, run_program

QUEUE_DEPTH = 100  # messages; a disk may stall for seconds
LOOK_PERIOD = 0.2  # [s] between two looks for topics that have appeared
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
        self._awaited = [self.resolve_topic_name(name) for name in names]
        self._counts = dict.fromkeys(self._awaited, 0)
        self._skipped: dict[str, str] = {}
        self._bag = BagWriter(self.config.output, self.config.storage)
        self._last = time.monotonic()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def record(self, stop: StopRequest) -> dict[str, object]:
        """Record until asked to stop, and then what is still on its way.

        :return: ``output``, ``recorded`` (topic: messages), and ``skipped`` (topic: why it could not be recorded)
        """
        looked = float("-inf")
        while not stop.requested:
            if self._awaited and time.monotonic() - looked > LOOK_PERIOD:
                self._look()
                looked = time.monotonic()
            self._executor.spin_once(timeout_sec=0.1)
        deadline = time.monotonic() + LONGEST_DRAIN
        self._last = time.monotonic()
        while time.monotonic() < min(self._last + QUIET, deadline):
            self._executor.spin_once(timeout_sec=0.05)
        return {"output": self.config.output, "recorded": self._counts, "skipped": self._skipped}

    def close(self) -> None:
        """Close the recording and leave the graph."""
        self._bag.close()
        self._executor.shutdown()
        self.destroy_node()

    def _look(self) -> None:
        kinds = dict(self.get_topic_names_and_types())
        for topic in [name for name in self._awaited if name in kinds and self.get_publishers_info_by_topic(name)]:
            self._awaited.remove(topic)
            kind = kinds[topic][0]
            try:
                received = message_class(kind)
                self._bag.add_topic(topic, kind)
            except InputError as error:  # the other topics must not be lost with it
                self._skipped[topic] = str(error)
                self.get_logger().error(f"not recording {topic}: {error}")
                continue
            self.create_subscription(received, topic, self._keep(topic), self._qos(topic), raw=True)
            self.get_logger().info(f"recording {topic}")

    def _keep(self, topic: str) -> Callable[[bytes], None]:
        def keep(data: bytes) -> None:
            self._bag.write_raw(topic, self.get_clock().now().nanoseconds, data)
            self._counts[topic] += 1
            self._last = time.monotonic()

        return keep

    def _qos(self, topic: str) -> QoSProfile:
        """The most that all publishers of a topic offer: asking for more, nothing would come from some of them."""
        offers = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
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
            counts = node.record(stop)
        finally:
            node.close()
        report(counts, node.config.summary)
    finally:
        rclpy.try_shutdown()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Record until SIGINT or SIGTERM."""
    return run_program("recorder_node", __doc__, _record, argv)


if __name__ == "__main__":
    sys.exit(main())
