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

# Beside the launch folder, both in the source tree and in an installation.
CONFIG = Path(__file__).resolve().parents[1] / "config"
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
# Launch arguments that override the parameter file if they are given.
OVERRIDES = {
    "model": (str, "Checkpoint: a name or a path"),
    "device": (str, "Compute device"),
    "steps": (int, "Reverse diffusion steps per image"),
    "target_text": (str, "Objects to emphasize"),
    "target_strength": (float, "Strength of the emphasis, in [-1, 2]"),
    "autostart": (bool, "Configure and activate at startup; false leaves this to a lifecycle manager"),
    "use_sim_time": (bool, "Use the time of /clock"),
}
WORDS = {int: "a whole number", float: "a number", bool: "true or false"}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the node."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file", default_value=str(CONFIG / "fusion.yaml"), description="Parameter file."
            ),
            DeclareLaunchArgument("name", default_value="fusion_node", description="Name of the node."),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
            DeclareLaunchArgument("visible", default_value="visible/image", description="Topic of the visible camera."),
            DeclareLaunchArgument(
                "infrared", default_value="infrared/image", description="Topic of the infrared camera."
            ),
            DeclareLaunchArgument("fused", default_value="~/fused", description="Topic of the fused images."),
            *(
                DeclareLaunchArgument(name, default_value="", description=f"{what}. Empty: as in params_file.")
                for name, (_, what) in OVERRIDES.items()
            ),
            DeclareLaunchArgument(
                "log_level", default_value="info", description="Log level: debug, info, warn, error or fatal."
            ),
            DeclareLaunchArgument(
                "dds_profile",
                default_value=os.environ.get(PROFILE_VARIABLE, str(CONFIG / "fastdds_shm.xml")),
                description="Fast DDS profile; the default has enough shared memory for images.",
            ),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Node]:
    params_file = LaunchConfiguration("params_file").perform(context)
    # launch_ros would only warn and run the node with its defaults.
    if not Path(params_file).is_file():
        raise ValueError(f"params_file must be a file with parameters, got '{params_file}', which does not exist")
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
    """Convert an argument to its parameter's type; launch's own error does not name the argument."""
    value = ParameterValue(LaunchConfiguration(name), value_type=kind)
    try:
        value.evaluate(context)
    except ValueError as error:
        found = LaunchConfiguration(name).perform(context)
        raise ValueError(f"{name} must be {WORDS[kind]}, got '{found}'") from error
    return value
