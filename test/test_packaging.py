"""Installed elsewhere, by pip or by colcon, everything is found and runs; the metadata agree with one another."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

import textdifuse_ros
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.config.base import parameters
from textdifuse_ros.config.files import load_config
from textdifuse_ros.config.nodes import FusionNodeConfig, PlayerConfig
from textdifuse_ros.image.encodings import ENCODINGS

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("fusion_node", "player_node", "recorder_node", "textdifuse")
SHIPPED = ("package.xml", "config/fusion.yaml", "config/fastdds_shm.xml", "launch/fusion.launch.py", "models")

needs_source = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="the tests run outside the source tree")
needs_ros = pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="rclpy is not installed")
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch_ros is not installed: the launch files were only compiled and compared with the package",
)
pytestmark = needs_source


Probe = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Installed:
    """An installation and how to run something from it."""

    prefix: Path
    programs: Path
    setup: str = ""

    @property
    def share(self) -> Path:
        return self.prefix / "share" / "textdifuse_ros"

    def start(self, command: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("TEXTDIFUSE_", "_ROS_"))}
        if not self.setup:
            env["PYTHONPATH"] = sysconfig.get_path("purelib", "posix_prefix", {"base": str(self.prefix)})
        env.update(ROS_LOG_DIR=str(folder / "log"), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", **environment)
        pipe = subprocess.PIPE
        return subprocess.Popen(
            ["bash", "-c", self.setup + command], cwd=folder, env=env, text=True, stdout=pipe, stderr=pipe
        )

    def run(self, command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(command, folder, **environment)
        try:
            out, err = process.communicate(timeout=240)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A copy of the package's source, with a small model among its weights."""
    copy = tmp_path_factory.mktemp("workspace") / "src" / "textdifuse_ros"
    copy.mkdir(parents=True)
    for name in ("setup.py", "setup.cfg", "package.xml", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    for name in ("textdifuse_ros", "launch", "config", "resource"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "models").mkdir()
    shutil.copy(tiny_checkpoint, copy / "models" / "tiny.safetensors")
    return copy


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--no-deps", "--no-index"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr


def _from_wheel(source: Path) -> Installed:
    folder = source.parents[1] / "wheel"
    _pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    prefix = folder / "prefix"
    _pip("install", "--prefix", str(prefix), "--ignore-installed", str(wheel))
    return Installed(prefix, prefix / "bin")


def _from_colcon(source: Path, *options: str) -> Installed:
    pytest.importorskip("colcon_core", reason="colcon is not installed")
    base = source.parents[1] / ("colcon" + "".join(options))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "colcon", f"--log-base={base / 'log'}", "build", f"--base-paths={source}"),
            *(f"--build-base={base / 'build'}", f"--install-base={base / 'install'}", *options),
        ],
        cwd=source.parent,
        env={**os.environ, "COLCON_HOME": str(base / "home")},
        text=True,
        capture_output=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    prefix = base / "install" / "textdifuse_ros"
    return Installed(prefix, prefix / "lib" / "textdifuse_ros", f"source '{base / 'install' / 'setup.bash'}' && ")


@pytest.fixture(scope="module", params=["wheel", "colcon", "colcon --symlink-install"])
def installed(request: pytest.FixtureRequest, source: Path) -> Installed:
    """Each kind of installation."""
    if request.param == "wheel":
        return _from_wheel(source)
    return _from_colcon(source, *request.param.split()[1:])


class TestInstalled:
    def test_everything_that_is_shipped_is_there(self, installed: Installed) -> None:
        for name in SHIPPED:
            assert (installed.share / name).exists(), name
        assert (installed.share / "models" / "tiny.safetensors").is_file()
        assert (installed.prefix / "share/ament_index/resource_index/packages/textdifuse_ros").is_file()
        assert sorted(item.name for item in installed.programs.iterdir()) == sorted(PROGRAMS)

    def test_it_fuses_with_the_installed_code_and_weights(self, installed: Installed, tmp_path: Path) -> None:
        noise = np.random.default_rng(0)
        for name, shape in (("vis.png", (32, 40, 3)), ("ir.png", (32, 40))):
            cv2.imwrite(str(tmp_path / name), noise.integers(0, 256, shape, dtype=np.uint8))
        program = installed.programs / "textdifuse"
        done = installed.run(f"'{program}' --version", tmp_path)
        assert done.stdout.strip() == f"textdifuse {textdifuse_ros.__version__}", done.stderr
        done = installed.run(f"'{program}' fuse vis.png ir.png -o out --model tiny --steps 1 --device cpu", tmp_path)
        assert done.returncode == 0, done.stderr
        assert cv2.imread(str(tmp_path / "out" / "vis.png")).shape == (32, 40, 3)
        done = installed.run(f"'{sys.executable}' -c 'import textdifuse_ros as t; print(t.__file__)'", tmp_path)
        assert not Path(done.stdout.strip()).is_relative_to(ROOT), "this test must not run the source tree's code"

    @needs_ros
    def test_its_nodes_start_and_refuse_what_is_wrong(self, installed: Installed, tmp_path: Path) -> None:
        domain = {"ROS_DOMAIN_ID": str(random.SystemRandom().randint(20, 100))}
        player, node = (installed.programs / name for name in ("player_node", "fusion_node"))
        done = installed.run(f"'{player}' --help", tmp_path)
        assert done.returncode == 0 and "--ros-args" in done.stdout, done.stderr
        done = installed.run(f"'{player}' --ros-args -p source:=absent", tmp_path, **domain)
        assert done.returncode == 2 and "absent must be" in done.stderr
        process = installed.start(f"exec '{node}' --ros-args -p model:=nowhere", tmp_path, **domain)
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stderr is not None
            error = next((line for line in process.stderr if "cannot configure" in line), "")
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()
        assert "model" in error and "nowhere" in error


class TestMetadata:
    """What stands in several files says the same in each."""

    def test_versions_agree(self) -> None:
        manifest = ElementTree.parse(ROOT / "package.xml").getroot()
        assert manifest.get("format") == "3"
        assert manifest.findtext("version") == textdifuse_ros.__version__
        assert manifest.findtext("export/build_type") == "ament_python"
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
        assert citation["version"] == textdifuse_ros.__version__
        assert (citation["title"], citation["license"]) == (manifest.findtext("name"), manifest.findtext("license"))
        assert citation["preferred-citation"]["title"].startswith("Text-DiFuse")

    def test_the_manifest_is_one_that_the_ros_tools_accept_without_a_warning(self) -> None:
        package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
        warnings: list[str] = []
        found = package.parse_package(str(ROOT / "package.xml"), warnings=warnings)
        found.validate(warnings=warnings)
        assert warnings == []
        assert [url.type for url in found.urls] == ["website"]
        order = [item.tag for item in ElementTree.parse(ROOT / "package.xml").getroot() if isinstance(item.tag, str)]
        kinds = ["name", "version", "description", "maintainer", "license", "url"]
        kinds += ["exec_depend", "test_depend", "export"]
        assert list(dict.fromkeys(order)) == kinds, "the order of the schema, REP 149"
        changelog = pytest.importorskip("catkin_pkg.cli.tag_changelog")
        text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
        assert changelog.get_forthcoming_label(text) == "Forthcoming", "catkin_tag_changelog dates this section"

    def test_what_runs_before_a_commit_exists(self) -> None:
        hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
        gates = {hook["entry"].split()[1] for hook in hooks if hook["entry"].startswith("scripts/check ")}
        assert gates == {"lint", "imports", "words", "types"}
        known = re.findall(r"^ +(\w+)\) gate", (ROOT / "scripts/check").read_text(encoding="utf-8"), re.M)
        assert gates <= set(known)

    def test_the_manifest_names_the_ros_packages_that_are_imported(self) -> None:
        manifest = ElementTree.parse(ROOT / "package.xml").getroot()
        named = {item.text for item in manifest.iter("exec_depend")}
        assert {"rclpy", "cv_bridge", "message_filters"} <= named
        others = sys.stdlib_module_names | {"numpy", "textdifuse_ros", "cv2"}
        used: set[str] = set()
        for path in [*(ROOT / "textdifuse_ros/nodes").glob("*.py"), *(ROOT / "launch").glob("*.py")]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                used |= {module.split(".")[0] for module in modules} - others
        assert {name for name in used if not {name, f"python3-{name}"} & named} == set()

    def test_the_page_of_the_ros_interface_lists_the_encodings_that_are_taken(self) -> None:
        page = (ROOT / "docs" / "ros-interface.md").read_text(encoding="utf-8")
        listed = page.split("Accepted encodings:", 1)[1].split(";", 1)[0]
        names = [name for quoted in re.findall("`([^`]+)`", listed) for name in quoted.split()]
        assert len(names) == len(set(names)) and set(names) == set(ENCODINGS)

    def test_the_extra_ros_names_the_wheels_that_are_imported(self) -> None:
        manifest = ElementTree.parse(ROOT / "package.xml").getroot()
        named = {str(item.text) for item in manifest.iter("exec_depend")} - {"vision_msgs"}  # of which there is none
        wheels = {"rclpy", *(name for name in named if name.endswith(("_msgs", "_srvs", "_interfaces")))}
        setup = (ROOT / "setup.py").read_text(encoding="utf-8")
        listed = re.search(r"^ROS = \[(.*?)\]$", setup, re.S | re.M)
        assert listed is not None
        extra = {re.sub(r"^ros-(jazzy-)?|\[.*|[=<>].*", "", name) for name in re.findall(r'"([^"]+)"', listed[1])}
        assert {name.replace("_", "-") for name in wheels} == extra - {"rmw-fastrtps-cpp"}

    def test_the_source_distribution_has_no_part_of_the_tests(self, source: Path, tmp_path: Path) -> None:
        copy = tmp_path / "source"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.egg-info", "build"))
        shutil.copy(ROOT / "MANIFEST.in", copy)
        (copy / "test").mkdir()
        (copy / "test" / "test_it.py").touch()
        command = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(tmp_path)]
        subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=120)
        (archive,) = tmp_path.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            names = packed.getnames()
        assert any(name.endswith("/textdifuse_ros/errors.py") for name in names)
        assert [name for name in names if "/test" in name] == []

    def test_metadata_stand_in_setup_py_only(self) -> None:
        tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        assert set(tables) == {"tool"}, "a [project] table breaks colcon build --symlink-install"


@pytest.fixture
def launched(source: Path, tmp_path: Path) -> Probe:
    """Runs a launch file of the installed package by way of launch_probe.py."""
    installed = _from_colcon(source)

    def probe(which: str, *arguments: str) -> dict[str, Any]:
        *options, name = which.split()
        path = installed.share / "launch" / f"{name}.launch.py"
        program = Path(__file__).with_name("launch_probe.py")
        given = ["namespace:=car", "name:=eyes", "fused:=/out/fused", "device:=cpu", *arguments]
        command = [sys.executable, str(program), *options, str(path), *given]
        domain = str(random.SystemRandom().randint(20, 100))
        done = installed.run(shlex.join(command), tmp_path, ROS_DOMAIN_ID=domain)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))

    return probe


class TestLaunchFiles:
    def test_the_parameter_file_shows_the_defaults_for_a_node_of_any_name(self) -> None:
        path = ROOT / "config" / "fusion.yaml"
        assert load_config(FusionNodeConfig, path) == FusionNodeConfig()
        assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == ["/**"]

    @pytest.mark.parametrize("name", ["fusion.launch.py", "playback.launch.py"])
    def test_they_name_executables_that_the_package_has(self, name: str) -> None:
        tree = ast.parse((ROOT / "launch" / name).read_text(encoding="utf-8"), name)
        calls = [item for item in ast.walk(tree) if isinstance(item, ast.Call) and ast.unparse(item.func) == "Node"]
        assert calls
        for call in calls:
            given = {item.arg: item.value for item in call.keywords}
            assert ast.literal_eval(given["package"]) == "textdifuse_ros"
            assert ast.literal_eval(given["executable"]) in PROGRAMS
        assert "generate_launch_description" in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}

    def test_the_overrides_are_parameters_of_the_node(self) -> None:
        tree = ast.parse((ROOT / "launch" / "fusion.launch.py").read_text(encoding="utf-8"))
        text = next(ast.unparse(item.value) for item in tree.body if ast.unparse(item).startswith("OVERRIDES = "))
        known = {item.name: item.type for item in parameters(FusionNodeConfig)}
        overrides = eval(text, {"str": str, "int": int, "float": float, "bool": bool})
        assert overrides.pop("use_sim_time")[0] is bool, "which every node has"
        assert overrides and all(known[name] is kind for name, (kind, _) in overrides.items())

    def test_what_is_handed_to_the_player_are_parameters_of_the_player(self) -> None:
        tree = ast.parse((ROOT / "launch" / "playback.launch.py").read_text(encoding="utf-8"))
        text = next(ast.unparse(item.value) for item in tree.body if ast.unparse(item).startswith("CHOICES = "))
        known = {item.name: item.type for item in parameters(PlayerConfig)}
        assert {name: known[name] for name in ast.literal_eval(text)} == {
            "visible_topic": str, "infrared_topic": str, "topics": str
        }  # fmt: skip

    @needs_launch
    @needs_ros
    def test_the_real_launch_starts_the_node_as_its_arguments_say(self, launched: Probe) -> None:
        found = launched("fusion", "visible:=/cam/color", "infrared:=/cam/thermal", "model:=tiny", "steps:=2")
        assert found["state"] == "active"
        expected = {"model": "tiny", "steps": 2, "tolerance": 0.02, "autostart": True, "use_sim_time": False}
        assert found["values"] == {**expected, "target_text": ""}
        assert found["inputs"] == ["/cam/color", "/cam/thermal"]
        assert found["outputs"] == ["/car/eyes/instances", "/car/eyes/mask", "/car/eyes/overlay", "/out/fused"]
        assert found["profile"].endswith("share/textdifuse_ros/config/fastdds_shm.xml")
        assert found["left_running"] == []

    @needs_launch
    @needs_ros
    @pytest.mark.parametrize("text", ["on", "42"])
    def test_the_real_launch_hands_a_text_on_as_it_is_written(self, launched: Probe, text: str) -> None:
        found = launched("fusion", "model:=tiny", "autostart:=false", f"target_text:={text}")
        assert found["values"]["target_text"] == text
        assert found["state"] == "unconfigured", "alive"

    @needs_launch
    @needs_ros
    def test_the_real_launch_leaves_to_the_parameter_file_what_is_not_given(
        self, launched: Probe, tmp_path: Path
    ) -> None:
        own = {"autostart": False, "use_sim_time": True, "model": "tiny", "steps": 3, "tolerance": 0.01}
        own["target_text"] = ","
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": own}}))
        found = launched("fusion", f"params_file:={tmp_path / 'own.yaml'}")
        assert found["values"] == own
        assert found["state"] == "unconfigured"
        found = launched("fusion", f"params_file:={tmp_path / 'own.yaml'}", "autostart:=true", "use_sim_time:=false")
        assert found["values"] == {**own, "autostart": True, "use_sim_time": False}
        assert found["state"] == "active"

    @needs_launch
    @needs_ros
    def test_the_real_launch_plays_a_recording_and_ends_after_the_last_pair(
        self, launched: Probe, tmp_path: Path
    ) -> None:
        """The node is slower than the player, so that a pair is in work and another waits when the player ends."""
        pairs = 60
        with BagWriter(tmp_path / "bag") as bag:
            for index in range(pairs):
                stamp = 10**9 + index * 10**8
                bag.write_image("/left", stamp, "v", np.full((240, 320, 3), 90, np.uint8))
                bag.write_image("/right", stamp, "i", np.full((240, 320), 90, np.uint8))
        given = ("visible:=color", "infrared:=thermal", "model:=tiny", "steps:=60", "rate:=1", "drain:=10")
        given += ("visible_topic:=/left", "infrared_topic:=/right", "topics:=all")
        found = launched("--until-end playback", f"source:={tmp_path / 'bag'}", *given)
        assert found["stamps"][-1:] == [10**9 + (pairs - 1) * 10**8], "the last pair comes out"
        assert found["status"] == 0 and found["left_running"] == []
