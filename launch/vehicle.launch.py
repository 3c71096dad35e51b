"""Fuse the two cameras of a vehicle in one namespace, publish the cameras' transforms, and optionally start a view.

ros2 launch textdifuse_ros vehicle.launch.py namespace:=front visible:=color/image_raw infrared:=thermal/image_raw \
    visible_pose:="1.9 0.06 1.3 -1.571 0 -1.571" infrared_pose:="1.9 -0.06 1.3 -1.571 0 -1.571" view:=rviz

The camera drivers are not started here: each brand has its own launch file. Start them in the same namespace, with the
same dds_profile. All arguments of fusion.launch.py are accepted as well.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, SubstitutionFailure
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage

FOLDER = Path(__file__).resolve().parent
CONFIG = FOLDER.parent / "config"
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
CAMERAS = ("visible", "infrared")
TRANSFORM = ("tf2_ros", "static_transform_publisher")
VIEWS = {"rviz": ("rviz2", "rviz2"), "foxglove": ("foxglove_bridge", "foxglove_bridge")}
POSE = ("--x", "--y", "--z", "--roll", "--pitch", "--yaw")


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; include fusion.launch.py; start static transforms and the view."""
    profile = os.environ.get(PROFILE_VARIABLE, str(CONFIG / "fastdds_shm.xml"))
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "namespace", default_value="vehicle", description="Namespace of the node and of all topics."
            ),
            DeclareLaunchArgument(
                "visible", default_value="color/image_raw", description="Topic of the visible camera."
            ),
            DeclareLaunchArgument(
                "infrared", default_value="thermal/image_raw", description="Topic of the infrared camera."
            ),
            DeclareLaunchArgument("base_frame", default_value="base_link", description="Parent frame of the poses."),
            *(
                argument
                for camera in CAMERAS
                for argument in (
                    DeclareLaunchArgument(
                        f"{camera}_frame",
                        default_value=f"{camera}_camera",
                        description=f"Optical frame of the {camera} camera, as in the headers of its images.",
                    ),
                    DeclareLaunchArgument(
                        f"{camera}_pose",
                        default_value="",
                        description="Pose 'x y z roll pitch yaw' [m, rad] of that frame. Empty: no transform.",
                    ),
                )
            ),
            DeclareLaunchArgument(
                "view",
                default_value="none",
                choices=["none", "rviz", "foxglove"],
                description="rviz starts rviz2 with all images, foxglove a bridge for config/fusion.foxglove.json.",
            ),
            DeclareLaunchArgument(
                "dds_profile", default_value=profile, description="Fast DDS profile of everything that is started here."
            ),
            SetEnvironmentVariable(PROFILE_VARIABLE, LaunchConfiguration("dds_profile")),
            OpaqueFunction(function=_check),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(FOLDER / "fusion.launch.py"))),
            OpaqueFunction(function=_places),
            OpaqueFunction(function=_view),
        ]
    )


def _check(context: LaunchContext) -> None:
    """Check poses and programs before anything runs; after a later error launch would leave the node running."""
    needed = [(f"{camera}_pose", *TRANSFORM) for camera in CAMERAS if _pose(context, camera)]
    view = LaunchConfiguration("view").perform(context)
    if view in VIEWS:
        needed.append((f"view:={view}", *VIEWS[view]))
    for argument, package, executable in needed:
        try:
            ExecutableInPackage(executable, package).perform(context)
        except (LookupError, SubstitutionFailure) as error:
            remedy = f"apt install ros-jazzy-{package.replace('_', '-')}"
            raise ValueError(f"{executable} must be installed for {argument}, got none; {remedy}") from error


def _pose(context: LaunchContext, camera: str) -> list[str]:
    """Split a camera's pose into its six numbers; an empty list if none is given."""
    name = f"{camera}_pose"
    text = LaunchConfiguration(name).perform(context)
    numbers = text.split()
    try:
        good = len(numbers) in (0, len(POSE)) and all(math.isfinite(float(number)) for number in numbers)
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{name} must be six numbers 'x y z roll pitch yaw' [m, rad], got '{text}'")
    return numbers


def _places(context: LaunchContext) -> list[Node]:
    """Start a static transform publisher for each camera with a pose."""
    found = []
    for camera in CAMERAS:
        numbers = _pose(context, camera)
        if not numbers:
            continue
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
    """Start the view; neither program is a dependency of the package, since a vehicle's computer has no screen."""
    namespace = LaunchConfiguration("namespace")
    view = LaunchConfiguration("view").perform(context)
    if view == "rviz":
        # The layout uses the topics of a node without a namespace.
        name, fused = (LaunchConfiguration(argument).perform(context) for argument in ("name", "fused"))
        topics = [
            ("/visible/image", LaunchConfiguration("visible")),
            ("/infrared/image", LaunchConfiguration("infrared")),
            ("/fusion_node/fused", f"{name}{fused[1:]}" if fused.startswith("~") else fused),
            ("/fusion_node/overlay", f"{name}/overlay"),
        ]
        arguments = ["-d", str(CONFIG / "fusion.rviz")]
        return [Node(package="rviz2", executable="rviz2", namespace=namespace, arguments=arguments, remappings=topics)]
    if view == "foxglove":
        return [Node(package="foxglove_bridge", executable="foxglove_bridge", namespace=namespace)]
    return []
