"""Play a recording, or a folder with vis/ and ir/, through fusion_node; the node ends shortly after the player.

ros2 launch textdifuse_ros playback.launch.py source:=/data/drive rate:=0.5
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

FOLDER = Path(__file__).resolve().parent
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
TYPES = {"rate": (float, "a number"), "drain": (float, "seconds"), "loop": (bool, "true or false")}

# Parameters of the player that are passed on if they are given.
CHOICES = {
    "visible_topic": "Topic of the visible images in the recording",
    "infrared_topic": "Topic of the infrared images in the recording",
    "topics": "Other topics of the recording to play, separated by commas, or all",
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments of the player, include fusion.launch.py with its arguments, and start the player."""
    profile = os.environ.get(PROFILE_VARIABLE, str(FOLDER.parent / "config" / "fastdds_shm.xml"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("source", description="A rosbag2 recording, or a folder with vis/ and ir/."),
            DeclareLaunchArgument(
                "rate", default_value="1.0", description="Playback speed; 2 is twice as fast as recorded."
            ),
            DeclareLaunchArgument("loop", default_value="false", description="Restart at the end."),
            *(
                DeclareLaunchArgument(name, default_value="", description=f"{what}. Empty: the player's default.")
                for name, what in CHOICES.items()
            ),
            DeclareLaunchArgument(
                "use_sim_time", default_value="", description="true: the player publishes /clock, and the node uses it."
            ),
            DeclareLaunchArgument(
                "drain", default_value="2.0", description="Time for the last pairs after the player has ended [s]."
            ),
            DeclareLaunchArgument(
                "dds_profile", default_value=profile, description="Fast DDS profile of player and node."
            ),
            SetEnvironmentVariable(PROFILE_VARIABLE, LaunchConfiguration("dds_profile")),
            OpaqueFunction(function=_check),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(FOLDER / "fusion.launch.py"))),
            OpaqueFunction(function=_player),
        ]
    )


def _check(context: LaunchContext) -> None:
    """Check the player's arguments before anything runs; after a failed player launch would leave the node running."""
    for name, (kind, expected) in TYPES.items():
        found = LaunchConfiguration(name).perform(context)
        try:
            ParameterValue(LaunchConfiguration(name), value_type=kind).evaluate(context)
        except ValueError as error:
            raise ValueError(f"{name} must be {expected}, got '{found}'") from error


def _player(context: LaunchContext) -> list[Node | RegisterEventHandler]:
    """Start the player; it uses topics and namespace of fusion.launch.py, so that file is included first."""
    parameters: dict[str, object] = {
        "source": ParameterValue(LaunchConfiguration("source"), value_type=str),
        "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
        "loop": ParameterValue(LaunchConfiguration("loop"), value_type=bool),
        "wait_for": 1,
        "wait_timeout": 120.0,
    }
    for name in CHOICES:
        if LaunchConfiguration(name).perform(context):
            parameters[name] = ParameterValue(LaunchConfiguration(name), value_type=str)
    if LaunchConfiguration("use_sim_time").perform(context):
        parameters["clock"] = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    player = Node(
        package="textdifuse_ros",
        executable="player_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[parameters],
        remappings=[
            ("visible/image", LaunchConfiguration("visible")),
            ("infrared/image", LaunchConfiguration("infrared")),
        ],
        output="screen",
    )
    # Delayed: the node may be fusing a pair while another one waits.
    end = TimerAction(period=LaunchConfiguration("drain"), actions=[EmitEvent(event=Shutdown())])
    return [player, RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[end]))]
