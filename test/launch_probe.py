"""Runs a launch file under the real launch, looks at what it started, ends it; run by test_packaging.py.

launch_probe.py LAUNCH_FILE NAME:=VALUE ...            prints one line of JSON: what the node got from its arguments
launch_probe.py --until-end LAUNCH_FILE NAME:=VALUE    the same: what came out until the launch ended by itself

The node must be called /car/eyes.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from textdifuse_ros.sensors import stamp_of

NODE = "/car/eyes"
FUSED = "/out/fused"
IMAGE = "sensor_msgs/msg/Image"
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
PARAMETERS = ["model", "steps", "tolerance", "autostart", "use_sim_time", "target_text"]


def launch(path: str, arguments: list[str]) -> int:
    from launch import LaunchDescription, LaunchService
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    service = LaunchService()
    source = PythonLaunchDescriptionSource(path)
    given = [(name, value) for name, _, value in (argument.partition(":=") for argument in arguments)]
    service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given)]))
    return service.run()


def look(node: Any) -> dict[str, Any]:
    import rclpy
    from lifecycle_msgs.srv import GetState
    from rcl_interfaces.srv import GetParameters
    from rclpy.parameter import parameter_value_to_python

    def ask(kind: Any, name: str, request: Any) -> Any:
        client = node.create_client(kind, f"{NODE}/{name}")
        assert client.wait_for_service(timeout_sec=60.0), f"no service {NODE}/{name}"
        future = client.call_async(request)
        rclpy.spin_until_future_complete(node, future, timeout_sec=60.0)
        return future.result()

    def state() -> str:
        return str(ask(GetState, "get_state", GetState.Request()).current_state.label)

    found = ask(GetParameters, "get_parameters", GetParameters.Request(names=PARAMETERS)).values
    values = dict(zip(PARAMETERS, map(parameter_value_to_python, found), strict=True))
    deadline = time.monotonic() + 60
    while values["autostart"] and state() != "active" and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(0.5)
    images = sorted(name for name, kinds in node.get_topic_names_and_types() if IMAGE in kinds)
    return {
        "state": state(),
        "values": values,
        "inputs": [name for name in images if node.get_subscriptions_info_by_topic(name)],
        "outputs": [name for name in images if node.get_publishers_info_by_topic(name)],
        "profile": next(iter(running().values())).get(PROFILE, ""),
    }


def listen(node: Any, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    import rclpy
    from sensor_msgs.msg import Image

    stamps: list[int] = []
    node.create_subscription(Image, FUSED, lambda message: stamps.append(stamp_of(message.header)), 10)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    return {"stamps": stamps, "status": process.poll()}


def running() -> dict[int, dict[str, str]]:
    """The environments of the processes of our nodes."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"__ns:=/car" in (folder / "cmdline").read_bytes():
                pairs = (item.partition("=") for item in (folder / "environ").read_bytes().decode().split("\0"))
                found[int(folder.name)] = {name: value for name, _, value in pairs}
        except (OSError, UnicodeDecodeError):
            continue
    return found


def main(arguments: list[str]) -> None:
    import rclpy

    until_end = arguments[0] == "--until-end"
    command = [sys.executable, __file__, "--launch", *arguments[until_end:]]
    rclpy.init(args=[])
    node = rclpy.create_node("probe")
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        found = listen(node, process) if until_end else look(node)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    found["left_running"] = list(running())
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "--launch":
        sys.exit(launch(sys.argv[2], sys.argv[3:]))
    main(sys.argv[1:])
