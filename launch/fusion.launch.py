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
WORDS = {int: "a whole number", float: "a number", bool: "true or false"}


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
            DeclareLaunchArgument("fused", default_value="~/fused", description="Topic of the fused images."),
            *(
                DeclareLaunchArgument(name, default_value="", description=f"{what}; empty: the parameter file's.")
                for name, (_, what) in OVERRIDES.items()
            ),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal."),
            DeclareLaunchArgument(
                "dds_profile",
                default_value=os.environ.get(PROFILE_VARIABLE, str(CONFIG / "fastdds_shm.xml")),
                description="Fast DDS profile; the default one has room for images in shared memory.",
            ),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Node]:
    params_file = LaunchConfiguration("params_file").perform(context)
    # launch_ros only warns, and the node would run with its defaults.
    if not Path(params_file).is_file():
        raise ValueError(f"params_file must be a file with parameters, got '{params_file}', and no such file is there")
    parameters: dict[str, object] = {
        name: _typed(context, name, kind)
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


def _typed(context: LaunchContext, name: str, kind: type) -> ParameterValue:
    """The value of an argument, of its parameter's type; launch's own error does not name the argument."""
    value = ParameterValue(LaunchConfiguration(name), value_type=kind)
    try:
        value.evaluate(context)
    except ValueError as error:
        found = LaunchConfiguration(name).perform(context)
        raise ValueError(f"{name} must be {WORDS[kind]}, got '{found}'") from error
    return value
