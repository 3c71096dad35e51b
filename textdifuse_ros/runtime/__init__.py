"""From an aligned pair to a fused image and its objects, live or recorded; free of ROS."""
