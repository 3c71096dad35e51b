"""What is handed over with the node: layouts, the vehicle's launch file, rosdep keys, the image and the workflow."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
INPUTS = {"/visible/image", "/infrared/image"}
SHOWN = INPUTS | {"/fusion_node/fused", "/fusion_node/overlay"}

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="the tests run outside the source tree")
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch_ros is not installed: the launch files were only read, not run",
)


def _of_the_node() -> set[str]:
    """The topics of a node without a namespace, as its code names them."""
    found = {"/diagnostics", *INPUTS}
    for path in (ROOT / "textdifuse_ros" / "nodes").glob("*.py"):
        found |= {f"/fusion_node/{name}" for name in re.findall(r'"~/(\w+)"', path.read_text(encoding="utf-8"))}
    return found


def _values(tree: Any, *names: str) -> Iterator[str]:
    """All texts of these names in a tree of mappings and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        if name in names and isinstance(value, str):
            yield value
        yield from _values(value, *names)


class TestLayouts:
    def test_rviz_shows_what_the_node_has(self) -> None:
        layout = yaml.safe_load((ROOT / "config" / "fusion.rviz").read_text(encoding="utf-8"))
        displays = {item["Name"]: item for item in layout["Visualization Manager"]["Displays"] if "Topic" in item}
        assert {item["Topic"]["Value"] for item in displays.values()} == SHOWN
        assert _of_the_node() >= SHOWN
        assert set(displays) <= set(layout["Window Geometry"]), "each image has a window"
        for name, item in displays.items():
            # Drivers send best effort; a reliable subscription would see nothing and say so nowhere.
            best_effort = item["Topic"]["Reliability Policy"] == "Best Effort"
            assert best_effort == (name in ("Visible", "Infrared"))

    def test_foxglove_shows_what_the_node_has(self) -> None:
        layout = json.loads((ROOT / "config" / "fusion.foxglove.json").read_text(encoding="utf-8"))
        named = {path.split(".")[0] for path in _values(layout, "imageTopic", "topicToRender", "topicPath")}
        assert named == SHOWN | {"/diagnostics", "/fusion_node/provenance"}
        assert _of_the_node() >= named
        assert sorted(_values(layout["layout"], "first", "second")) == sorted(layout["configById"])
        assert [*_values(layout, "selectedName")] == ["fusion_node: fusion"]


class TestManifest:
    def test_every_program_that_a_launch_file_starts_has_its_package_named(self) -> None:
        manifest = ElementTree.parse(ROOT / "package.xml").getroot()
        named = {item.text for item in manifest.iter("exec_depend")} | {"textdifuse_ros"}
        started: set[str] = set()
        for path in (ROOT / "launch").glob("*.launch.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "package" and isinstance(node.value, ast.Constant):
                    started.add(str(node.value.value))
        assert {"textdifuse_ros", "tf2_ros"} <= started
        assert started - named == {"rviz2", "foxglove_bridge"}, "the views are asked for by hand"


def _package(prefix: Path, name: str, executable: str) -> None:
    """A stand-in for an installed package with one program."""
    for path in (prefix / "share/ament_index/resource_index/packages" / name, prefix / "lib" / name / executable):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)


@needs_launch
class TestLaunch:
    """Each launch file taken apart as launch does it, up to the nodes: none of them is started."""

    @pytest.fixture(autouse=True)
    def prefix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where packages are looked for; the profile's variable, which launch sets in this process, is put back."""
        monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
        monkeypatch.setenv(PROFILE, "")
        monkeypatch.delenv(PROFILE)
        _package(tmp_path, "tf2_ros", "static_transform_publisher")
        _package(tmp_path, "rviz2", "rviz2")
        return tmp_path

    def _nodes(self, name: str, *given: tuple[str, str], begun: list[Any] | None = None) -> dict[str, str]:
        """The nodes' names, each with its Fast DDS profile.

        :param begun: gets each node as launch would start it
        """
        from launch import LaunchContext
        from launch.actions import IncludeLaunchDescription
        from launch.launch_description_sources import PythonLaunchDescriptionSource

        context = LaunchContext()
        source = PythonLaunchDescriptionSource(str(ROOT / "launch" / f"{name}.launch.py"))
        waiting: list[Any] = [IncludeLaunchDescription(source, launch_arguments=given)]
        nodes: list[Any] = [] if begun is None else begun
        profiles = []
        while waiting:
            entity = waiting.pop(0)
            if type(entity).__name__ == "Node":
                nodes.append(entity)
                profiles.append(os.environ.get(PROFILE, ""))
            elif type(entity).__name__ != "RegisterEventHandler":
                waiting[:0] = entity.visit(context) or []
        for node in nodes:
            node._perform_substitutions(context)
        return {node.node_name: profile for node, profile in zip(nodes, profiles, strict=True)}

    def test_the_vehicle_has_its_node_in_a_namespace_and_a_transform_for_each_pose(self) -> None:
        names = self._nodes("vehicle", ("namespace", "front"), ("visible_pose", "1 0 2 0 0 0"), ("view", "rviz"))
        assert [name.startswith("/front/") for name in names] == [True] * 3
        assert {"/front/fusion_node", "/front/visible_camera_pose"} <= set(names)

    @pytest.mark.parametrize(
        ("name", "given", "said"),
        [
            ("vehicle", ("infrared_pose", "1 2 3"), "infrared_pose must be six numbers .* got '1 2 3'"),
            ("vehicle", ("visible_pose", "1 2 3 4 5 six"), "visible_pose must be six numbers"),
            ("vehicle", ("visible_pose", "1 2 3 4 5 nan"), "visible_pose must be six numbers"),
            ("vehicle", ("view", "foxglove"), "foxglove_bridge must be installed for view:=foxglove"),
            ("vehicle", ("steps", "abc"), "steps must be a whole number, got 'abc'"),
            ("fusion", ("steps", "abc"), "steps must be a whole number, got 'abc'"),
            ("fusion", ("target_strength", "much"), "target_strength must be a number, got 'much'"),
            ("fusion", ("autostart", "perhaps"), "autostart must be true or false, got 'perhaps'"),
            ("fusion", ("params_file", "/absent.yaml"), "params_file must be a file .* got '/absent.yaml'"),
            ("playback", ("rate", "fast"), "rate must be a number, got 'fast'"),
            ("playback", ("drain", "long"), "drain must be seconds, got 'long'"),
            ("playback", ("loop", "often"), "loop must be true or false, got 'often'"),
        ],
    )
    def test_what_is_wrong_is_named_before_anything_runs(self, name: str, given: tuple[str, str], said: str) -> None:
        begun: list[Any] = []
        with pytest.raises(ValueError, match=said):
            self._nodes(name, ("source", "drive"), given, begun=begun)
        assert begun == [], "launch leaves running what it started before an error"

    def test_the_transforms_program_is_looked_for_before_anything_runs(self, prefix: Path) -> None:
        (prefix / "lib/tf2_ros/static_transform_publisher").unlink()
        begun: list[Any] = []
        with pytest.raises(ValueError, match="installed for visible_pose, got none; apt install ros-jazzy-tf2-ros"):
            self._nodes("vehicle", ("visible_pose", "1 0 2 0 0 0"), begun=begun)
        assert begun == []

    @pytest.mark.parametrize(
        ("name", "given", "count"),
        [("vehicle", (("visible_pose", "1 0 2 0 0 0"), ("view", "rviz")), 3), ("playback", (("source", "drive"),), 2)],
    )
    def test_the_profile_reaches_every_node(self, name: str, given: tuple[tuple[str, str], ...], count: int) -> None:
        assert [*self._nodes(name, *given, ("dds_profile", "/own.xml")).values()] == ["/own.xml"] * count
        shipped = str(ROOT / "config" / "fastdds_shm.xml")
        os.environ.pop(PROFILE)
        assert [*self._nodes(name, *given).values()] == [shipped] * count


class TestImageAndWorkflow:
    def test_the_workflow_builds_in_a_ros_container_and_runs_the_gates_without_ros(self) -> None:
        workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
        jobs = workflow["jobs"]
        commands = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()}
        assert jobs["ros"]["container"] == "ros:jazzy-ros-base"
        for command in ("rosdep install", "colcon build", "pytest"):
            assert command in commands["ros"]
        assert commands["python"].strip() == ".ci/run" and (ROOT / ".ci" / "run").stat().st_mode & 0o100
        assert "docker build" in commands["image"]
        assert all("actions/checkout" in job["steps"][0]["uses"] for job in jobs.values())
        assert all(job["timeout-minutes"] for job in jobs.values()), "a hanging job ends"

    def test_image_and_workflow_install_the_same_things(self) -> None:
        """What has no rosdep key is named by setup.py, by the image, by the workflow and by the README."""
        image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
        by_apt = {"numpy", "opencv-python-headless", "pillow", "pyyaml", "tqdm"}
        required = re.search(r"install_requires=\[(.*?)\]", (ROOT / "setup.py").read_text(encoding="utf-8"), re.S)
        assert required is not None
        with_rosbags = {"backports.zstd", "lz4"}
        named = {re.split(r"[><=;]", name)[0] for name in re.findall(r'"([^"]+)"', required[1])}
        wanted = named - by_apt - with_rosbags
        assert wanted == {"av", "torch", "safetensors", "rosbags", "tifffile"}
        readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## On a ROS 2 machine")[1].split("\n## ")[0]
        for text in (image, workflow, readme):
            assert all(re.search(rf"\b{name}\b", text) for name in wanted)
            assert "setuptools>=77.0.3,<80" in text

    def test_what_the_image_copies_is_there_and_its_entry_point_is_a_good_script(self) -> None:
        image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        assert re.search(r"^FROM ros:jazzy-ros-base$", image, re.M)
        copied = re.findall(r"^COPY (\S+) (\S+)$", image, re.M)
        assert all((ROOT / source).exists() for source, _ in copied)
        (entry,) = re.findall(r'ENTRYPOINT \["([^"]+)"\]', image)
        script = ROOT / next(source for source, target in copied if target == entry)
        assert script.stat().st_mode & 0o111, "it can be executed"
        assert subprocess.run(["bash", "-n", str(script)], capture_output=True).stderr == b""

    def test_the_entry_point_starts_the_node_with_arguments_and_any_other_command_as_it_is(
        self, tmp_path: Path
    ) -> None:
        """Run with stand-ins for the two workspaces and for ``ros2``."""
        script = (ROOT / "docker" / "entrypoint.sh").read_text(encoding="utf-8")
        for folder in ("opt/ros/jazzy", "ws/install", "bin"):
            (tmp_path / folder).mkdir(parents=True)
        (tmp_path / "opt/ros/jazzy/setup.bash").write_text(f"PATH={tmp_path}/bin:$PATH\n")
        (tmp_path / "ws/install/setup.bash").write_text("")
        (tmp_path / "bin/ros2").write_text('#!/bin/sh\necho ros2 "$@"\n')
        (tmp_path / "bin/ros2").chmod(0o755)
        script = script.replace("/opt/ros/", f"{tmp_path}/opt/ros/").replace("/ws/", f"{tmp_path}/ws/")

        def run(*arguments: str) -> str:
            command = ["bash", "-c", script, "entrypoint", *arguments]
            env = {"ROS_DISTRO": "jazzy", "PATH": "/usr/bin:/bin"}
            return subprocess.run(command, capture_output=True, text=True, env=env, check=True).stdout.strip()

        launch = "ros2 launch textdifuse_ros fusion.launch.py"
        assert run() == launch
        assert run("visible:=/a", "device:=cpu") == f"{launch} visible:=/a device:=cpu"
        assert run("echo", "as it is") == "as it is"
