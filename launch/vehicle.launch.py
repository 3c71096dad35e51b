"""Fuse the two cameras of a vehicle: everything in one namespace, the cameras' places in tf, a view where asked for.

ros2 launch textdifuse_ros vehicle.launch.py namespace:=front visible:=color/image_raw infrared:=thermal/image_raw \
    visible_pose:="1.9 0.06 1.3 -1.571 0 -1.571" infrared_pose:="1.9 -0.06 1.3 -1.571 0 -1.571" view:=rviz

The drivers of the cameras are not started here: each brand has its own launch file. Start them under the same
namespace, with the same dds_profile. All arguments of fusion.launch.py may be given as well.
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

FOLDER = Path(__file__).resolve().parent
CONFIG = FOLDER.parent / "config"
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
CAMERAS = ("visible", "infrared")
POSE = ("--x", "--y", "--z", "--roll", "--pitch", "--yaw")


def generate_launch_description() -> LaunchDescription:
    """fusion.launch.py with names for a vehicle, a static transform for each camera with a pose, and a view."""
    profile = os.environ.get(PROFILE_VARIABLE, str(CONFIG / "fastdds_shm.xml"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="vehicle", description="Of the node and of all topics."),
            DeclareLaunchArgument(
                "visible", default_value="color/image_raw", description="Pictures of the visible camera."
            ),
            DeclareLaunchArgument(
                "infrared", default_value="thermal/image_raw", description="Pictures of the infrared camera."
            ),
            DeclareLaunchArgument("base_frame", default_value="base_link", description="Frame of the poses."),
            *(
                argument
                for camera in CAMERAS
                for argument in (
                    DeclareLaunchArgument(
                        f"{camera}_frame",
                        default_value=f"{camera}_camera",
                        description=f"Optical frame of the {camera} camera, as its pictures name it.",
                    ),
                    DeclareLaunchArgument(
                        f"{camera}_pose",
                        default_value="",
                        description="'x y z roll pitch yaw' [m, rad] of that frame; empty: its transform is elsewhere.",
                    ),
                )
            ),
            DeclareLaunchArgument(
                "view",
                default_value="none",
                choices=["none", "rviz", "foxglove"],
                description="rviz: rviz2 with all pictures. foxglove: a bridge for config/fusion.foxglove.json.",
            ),
            SetEnvironmentVariable(PROFILE_VARIABLE, profile),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(FOLDER / "fusion.launch.py"))),
            OpaqueFunction(function=_places),
            OpaqueFunction(function=_view),
        ]
    )


def _places(context: LaunchContext) -> list[Node]:
    """A static transform for each camera with a pose."""
    found = []
    for camera in CAMERAS:
        numbers = LaunchConfiguration(f"{camera}_pose").perform(context).split()
        if not numbers:
            continue
        if len(numbers) != len(POSE):
            raise ValueError(f"{camera}_pose must be six numbers 'x y z roll pitch yaw' [m, rad], got {len(numbers)}")
        frames = [
            "--frame-id",
            LaunchConfiguration("base_frame").perform(context),
            "--child-frame-id",
            LaunchConfiguration(f"{camera}_frame").perform(context),
        ]
        pose = [text for pair in zip(POSE, numbers, strict=True) for text in pair]
        found.append(
            Node(
                package="tf2_ros",
                executable="static_transform_publisher",
                name=f"{camera}_camera_pose",
                namespace=LaunchConfiguration("namespace"),
                arguments=[*pose, *frames],
            )
        )
    return found


def _view(context: LaunchContext) -> list[Node]:
    """Neither is a dependency of the package: a vehicle's computer has no screen."""
    namespace = LaunchConfiguration("namespace")
    view = LaunchConfiguration("view").perform(context)
    if view == "rviz":
        # The layout has the names of a node without a namespace; here the pictures are the vehicle's.
        name, fused = (LaunchConfiguration(argument).perform(context) for argument in ("name", "fused"))
        topics = [
            ("/visible/image", LaunchConfiguration("visible")),
            ("/infrared/image", LaunchConfiguration("infrared")),
            ("/fusion_node/fused", f"{name}{fused[1:]}" if fused.startswith("~") else fused),
            ("/fusion_node/overlay", f"{name}/overlay"),
        ]
        arguments = ["-d", str(CONFIG / "fusion.rviz")]
        return [
            Node(package="rviz2", executable="rviz2", namespace=namespace, arguments=arguments, remappings=topics)
        ]
    if view == "foxglove":
        return [Node(package="foxglove_bridge", executable="foxglove_bridge", namespace=namespace)]
    return []
