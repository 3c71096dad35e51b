"""Ctrl-C while a program imports its modules: it ends quietly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLOW = """
import time
open({marker!r}, "w").close()
try:
    time.sleep(120)
except BaseException:
    raise ImportError("what an extension module makes of an interrupt")
"""


def interrupted(folder: Path, module: str, command: list[str]) -> tuple[int, str]:
    """Interrupt a program while it imports ``module``; its exit status and what it wrote to stderr."""
    marker = folder / "importing"
    (folder / f"{module}.py").write_text(SLOW.format(marker=str(marker)), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(Path(__file__).parents[1])))}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        return process.wait(60), process.communicate()[1]
    finally:
        process.kill()


@pytest.mark.parametrize("module", ["numpy", "torch"])
def test_the_command_line_ends_quietly(module: str, tmp_path: Path) -> None:
    """NumPy is imported with the verbs, PyTorch by a verb at work."""
    command = [sys.executable, "-m", "textdifuse_ros.cli.main", "info"]
    assert interrupted(tmp_path, module, command) == (130, "textdifuse: interrupted\n")


@pytest.mark.parametrize("node", ["fusion_node", "player_node", "recorder_node"])
def test_a_node_ends_quietly(node: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"textdifuse_ros.nodes.{node}"]
    assert interrupted(tmp_path, "rclpy", command) == (0, "")


def test_a_process_that_only_imports_the_package_keeps_its_own_handler() -> None:
    code = "import signal; import textdifuse_ros.cli.main; "
    code += "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True)
