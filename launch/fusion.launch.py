"""Start fusion_node with its parameter file.

ros2 launch textdifuse_ros fusion.launch.py visible:=/camera/color/image_raw infrared:=/thermal/image_raw
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# Beside the launch folder in the source tree as well as where the package is installed.
CONFIG = Path(__file__).resolve().parents[1] / "config"
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
# Launch arguments that become a parameter where they are given; else the parameter file decides.
OVERRIDES = {"model": str, "device": str, "steps": int}


def generate_launch_description() -> LaunchDescription:
    """The arguments and the node."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("params_file", default_value=str(CONFIG / "fusion.yaml"), description="Parameters."),
            DeclareLaunchArgument("name", default_value="fusion_node", description="Name of the node."),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
            DeclareLaunchArgument("visible", default_value="visible/image", description="Topic of the visible camera."),
            DeclareLaunchArgument(
                "infrared", default_value="infrared/image", description="Topic of the infrared camera."
            ),
            DeclareLaunchArgument("fused", default_value="~/fused", description="Topic of the fused pictures."),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock."),
            DeclareLaunchArgument(
                "autostart", default_value="true", description="Configure and activate at start; false for a manager."
            ),
            DeclareLaunchArgument("model", default_value="", description="Checkpoint; empty: the parameter file's."),
            DeclareLaunchArgument("device", default_value="", description="Device; empty: the parameter file's."),
            DeclareLaunchArgument("steps", default_value="", description="Steps; empty: the parameter file's."),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal."),
            DeclareLaunchArgument(
                "dds_profile",
                default_value=os.environ.get(PROFILE_VARIABLE, str(CONFIG / "fastdds_shm.xml")),
                description="Fast DDS profile; the default one has room for pictures in shared memory.",
            ),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Node]:
    parameters: dict[str, object] = {
        name: ParameterValue(LaunchConfiguration(name), value_type=bool) for name in ("use_sim_time", "autostart")
    }
    for name, kind in OVERRIDES.items():
        if LaunchConfiguration(name).perform(context):
            parameters[name] = ParameterValue(LaunchConfiguration(name), value_type=kind)
    return [
        Node(
            package="textdifuse_ros",
            executable="fusion_node",
            name=LaunchConfiguration("name"),
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), parameters],
            remappings=[
                ("visible/image", LaunchConfiguration("visible")),
                ("infrared/image", LaunchConfiguration("infrared")),
                ("~/fused", LaunchConfiguration("fused")),
            ],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            additional_env={PROFILE_VARIABLE: LaunchConfiguration("dds_profile")},
            output="screen",
        )
    ]
