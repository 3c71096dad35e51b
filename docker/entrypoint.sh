#!/bin/bash
# Arguments NAME:=VALUE, or none, start the node by its launch file; everything else is run as a command.
set -e
source "/opt/ros/$ROS_DISTRO/setup.bash"
source /ws/install/setup.bash
if [[ $# -eq 0 || "$1" == *:=* ]]; then
    exec ros2 launch textdifuse_ros fusion.launch.py "$@"
fi
exec "$@"
