"""One end of a transport check: ``send COUNT`` or ``listen COUNT`` pairs of 640 x 480 with sensor-data QoS at 30 Hz.

The listener prints how many came as JSON when all came, or two seconds after the last.
"""

from __future__ import annotations

import json
import sys
import time
from array import array

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from textdifuse_ros.nodes.qos import input_profile

SENSORS = {"visible": ("rgb8", 3), "infrared": ("mono8", 1)}
PROFILE = input_profile(5, "best_effort")


def send(node: Node, count: int) -> None:
    publishers = {stream: node.create_publisher(Image, f"{stream}/image", PROFILE) for stream in SENSORS}
    while any(publisher.get_subscription_count() == 0 for publisher in publishers.values()):
        time.sleep(0.05)
    time.sleep(0.5)
    for _ in range(count):
        for stream, (encoding, channels) in SENSORS.items():
            data = array("B", bytes(480 * 640 * channels))
            message = Image(height=480, width=640, step=640 * channels, encoding=encoding, data=data)
            publishers[stream].publish(message)
        time.sleep(1 / 30)
    time.sleep(0.5)


def listen(node: Node, count: int) -> None:
    heard = dict.fromkeys(SENSORS, 0)
    last = time.monotonic() + 20.0

    def take(stream: str) -> None:
        nonlocal last
        heard[stream] += 1
        last = time.monotonic()

    for stream in SENSORS:
        node.create_subscription(Image, f"{stream}/image", lambda _, stream=stream: take(stream), PROFILE)
    while min(heard.values()) < count and time.monotonic() < last + 2.0:
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(heard))


if __name__ == "__main__":
    rclpy.init()
    node = rclpy.create_node(f"{sys.argv[1]}er")
    {"send": send, "listen": listen}[sys.argv[1]](node, int(sys.argv[2]))
    node.destroy_node()
    rclpy.shutdown()
