"""One end of a transport check: ``send COUNT`` or ``listen COUNT`` pairs of 640 x 480 with sensor-data QoS.

The listener acknowledges each image, and the sender waits for both acknowledgments of a pair before the next one, at
most two seconds: the result depends on the transport, not on how fast the machine is. The sender prints how many
images were acknowledged as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Callable

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String

from textdifuse_ros.nodes.qos import input_profile

SENSORS = {"visible": ("rgb8", 3), "infrared": ("mono8", 1)}
PROFILE = input_profile(5, "best_effort")
DISCOVERY, PATIENCE = 60.0, 2.0  # seconds


def spin_until(node: Node, condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
    return condition()


def send(node: Node, count: int) -> None:
    publishers = {stream: node.create_publisher(Image, f"{stream}/image", PROFILE) for stream in SENSORS}
    heard = dict.fromkeys(SENSORS, 0)

    def acknowledge(message: String) -> None:
        heard[message.data] += 1

    node.create_subscription(String, "acknowledged", acknowledge, 2 * count)
    ends = (*publishers.values(),)
    discovered = spin_until(
        node,
        lambda: all(end.get_subscription_count() for end in ends) and node.count_publishers("acknowledged") > 0,
        DISCOVERY,
    )
    assert discovered, "no listener"
    spin_until(node, lambda: False, 0.5)
    for sent in range(1, count + 1):
        for stream, (encoding, channels) in SENSORS.items():
            data = array("B", bytes(480 * 640 * channels))
            message = Image(height=480, width=640, step=640 * channels, encoding=encoding, data=data)
            publishers[stream].publish(message)
        if not spin_until(node, lambda sent=sent: min(heard.values()) >= sent, PATIENCE):
            break
    print(json.dumps(heard))


def listen(node: Node, count: int) -> None:
    heard = dict.fromkeys(SENSORS, 0)
    acknowledgments = node.create_publisher(String, "acknowledged", 2 * count)

    def take(stream: str) -> None:
        heard[stream] += 1
        acknowledgments.publish(String(data=stream))

    for stream in SENSORS:
        node.create_subscription(Image, f"{stream}/image", lambda _, stream=stream: take(stream), PROFILE)
    spin_until(node, lambda: min(heard.values()) >= count, 2 * DISCOVERY)
    spin_until(node, lambda: node.count_subscribers("acknowledged") == 0, DISCOVERY)  # until the last one is delivered


if __name__ == "__main__":
    rclpy.init()
    node = rclpy.create_node(f"{sys.argv[1]}er")
    {"send": send, "listen": listen}[sys.argv[1]](node, int(sys.argv[2]))
    node.destroy_node()
    rclpy.shutdown()
