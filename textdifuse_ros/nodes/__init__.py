"""The ROS 2 nodes; the only place that imports rclpy and message packages."""

from textdifuse_ros.interrupts import quiet_imports

quiet_imports(__name__, status=0)
