"""Reading and writing rosbag2 recordings (mcap, sqlite3) without ROS, through the ``rosbags`` package."""
