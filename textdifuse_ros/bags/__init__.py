"""Reading and writing of rosbag2 recordings (mcap, sqlite3) without ROS, with the ``rosbags`` package."""
