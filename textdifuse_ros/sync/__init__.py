"""Pairing of two streams of stamped images, without ROS."""
