"""Text-DiFuse (NeurIPS 2024) infrared and visible fusion as a ROS 2 perception node.

Importing this package imports neither torch nor rclpy; the domain folders do, each only what it needs.
"""

__version__ = "0.1.0"
