"""Runs fusion.launch.py under the real launch, asks the node what it got, ends it; run by test_packaging.py.

launch_probe.py LAUNCH_FILE   prints one line of JSON
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ARGUMENTS = {
    "visible": "/cam/color",
    "infrared": "/cam/thermal",
    "fused": "/out/fused",
    "namespace": "car",
    "name": "eyes",
    "model": "tiny",
    "device": "cpu",
    "steps": "2",
}
NODE = "/car/eyes"
IMAGE = "sensor_msgs/msg/Image"
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"


def launch(path: str) -> int:
    from launch import LaunchDescription, LaunchService
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    service = LaunchService()
    source = PythonLaunchDescriptionSource(path)
    included = IncludeLaunchDescription(source, launch_arguments=list(ARGUMENTS.items()))
    service.include_launch_description(LaunchDescription([included]))
    return service.run()


def look() -> dict[str, Any]:
    import rclpy
    from lifecycle_msgs.srv import GetState
    from rcl_interfaces.srv import GetParameters
    from rclpy.parameter import parameter_value_to_python

    rclpy.init()
    node = rclpy.create_node("probe")

    def ask(kind: Any, name: str, request: Any) -> Any:
        client = node.create_client(kind, f"{NODE}/{name}")
        assert client.wait_for_service(timeout_sec=60.0), f"no service {NODE}/{name}"
        future = client.call_async(request)
        rclpy.spin_until_future_complete(node, future, timeout_sec=60.0)
        return future.result()

    names = ["model", "steps", "tolerance"]
    values = ask(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
    deadline = time.monotonic() + 60
    state = ""
    while state != "active" and time.monotonic() < deadline:
        time.sleep(0.2)
        state = ask(GetState, "get_state", GetState.Request()).current_state.label
    time.sleep(0.5)
    pictures = sorted(name for name, kinds in node.get_topic_names_and_types() if IMAGE in kinds)
    return {
        "state": state,
        "values": dict(zip(names, map(parameter_value_to_python, values), strict=True)),
        "inputs": [name for name in pictures if node.get_subscriptions_info_by_topic(name)],
        "outputs": [name for name in pictures if node.get_publishers_info_by_topic(name)],
    }


def running() -> dict[int, dict[str, str]]:
    """The environments of the processes of our node."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"__ns:=/car" in (folder / "cmdline").read_bytes():
                pairs = (item.partition("=") for item in (folder / "environ").read_bytes().decode().split("\0"))
                found[int(folder.name)] = {name: value for name, _, value in pairs}
        except (OSError, UnicodeDecodeError):
            continue
    return found


def main() -> None:
    process = subprocess.Popen([sys.executable, __file__, "--launch", sys.argv[1]], stdout=sys.stderr)
    try:
        found = look()
        found["profile"] = next(iter(running().values())).get(PROFILE, "")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    found["left_running"] = list(running())
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "--launch":
        sys.exit(launch(sys.argv[2]))
    main()
