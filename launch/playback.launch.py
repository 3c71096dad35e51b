"""Play a recording, or a folder with vis/ and ir/, through fusion_node; all ends with the player.

ros2 launch textdifuse_ros playback.launch.py source:=/data/drive rate:=0.5
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

FOLDER = Path(__file__).resolve().parent
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"


def generate_launch_description() -> LaunchDescription:
    """The arguments of the player, the player, and fusion.launch.py, whose arguments may be given as well."""
    player = Node(
        package="textdifuse_ros",
        executable="player_node",
        parameters=[
            {
                "source": ParameterValue(LaunchConfiguration("source"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "loop": ParameterValue(LaunchConfiguration("loop"), value_type=bool),
                "clock": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
                "wait_for": 1,
                "wait_timeout": 120.0,
            }
        ],
        output="screen",
    )
    profile = os.environ.get(PROFILE_VARIABLE, str(FOLDER.parent / "config" / "fastdds_shm.xml"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("source", description="A rosbag2 recording, or a folder with vis/ and ir/."),
            DeclareLaunchArgument("rate", default_value="1.0", description="Speed of playing."),
            DeclareLaunchArgument("loop", default_value="false", description="Start again at the end."),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="Time from the recording."),
            SetEnvironmentVariable(PROFILE_VARIABLE, profile),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(FOLDER / "fusion.launch.py"))),
            player,
            RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[EmitEvent(event=Shutdown())])),
        ]
    )
