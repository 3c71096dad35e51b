"""Pairing of two streams of stamped pictures; free of ROS."""
