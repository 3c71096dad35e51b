"""Pairing of two streams of stamped images; free of ROS."""
