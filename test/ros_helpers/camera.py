"""A camera as a process of its own, to be killed: ``visible`` or ``infrared``, 20 images a second, best effort.

Stamps are wall-clock times on a common grid, so that two cameras pair exactly, however they were started. Prints when
its first image was sent [s, the steady clock of this machine].
"""

from __future__ import annotations

import sys
import time
from array import array

import rclpy
from sensor_msgs.msg import Image

from textdifuse_ros.nodes.qos import input_profile

PERIOD_NS = 50_000_000

if __name__ == "__main__":
    stream = sys.argv[1]
    channels = 3 if stream == "visible" else 1
    rclpy.init()
    node = rclpy.create_node(f"{stream}_camera")
    publisher = node.create_publisher(Image, f"/{stream}/image", input_profile(5, "best_effort"))
    while publisher.get_subscription_count() == 0:
        time.sleep(0.01)
    message = Image(height=48, width=64, step=64 * channels, encoding="rgb8" if channels == 3 else "mono8")
    message.data = array("B", bytes([90]) * (48 * 64 * channels))
    first = True
    while True:
        at = (time.time_ns() // PERIOD_NS + 1) * PERIOD_NS
        time.sleep(max(0.0, (at - time.time_ns()) / 1e9))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(at, 10**9)
        publisher.publish(message)
        if first:
            print(time.monotonic(), flush=True)
            first = False
