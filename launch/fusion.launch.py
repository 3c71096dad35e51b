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
OVERRIDES = {
    "model": (str, "Checkpoint"),
    "device": (str, "Device"),
    "steps": (int, "Steps"),
    "target_text": (str, "What is to stand out"),
    "target_strength": (float, "How much it stands out"),
    "autostart": (bool, "Configure and activate at start, or false where a lifecycle manager does"),
    "use_sim_time": (bool, "Take the time from /clock"),
}


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
            *(
                DeclareLaunchArgument(name, default_value="", description=f"{what}; empty: the parameter file's.")
                for name, (_, what) in OVERRIDES.items()
            ),
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
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in OVERRIDES.items()
        if LaunchConfiguration(name).perform(context)
    }
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
