"""Starts the ROS programs of the demo and the endurance run in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from textdifuse_ros.demo.plans import RunPlan
from textdifuse_ros.errors import InputError

# Set by the ROS wheels; inherited from another virtual environment, it would keep this one's wheels from finding their
# libraries.
_WHEELS_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"


def transport_profile() -> str:
    """Return the path of the Fast DDS profile shipped with the package; empty if it is not found."""
    return next((str(path) for path in _profiles() if path.is_file()), "")


def _profiles() -> Iterator[Path]:
    """Yield where the Fast DDS profile may be: in the checkout, or in the prefix of the installed package."""
    package = Path(__file__).resolve().parents[1]
    yield package.parent / "config" / "fastdds_shm.xml"
    for prefix in (Path(sys.prefix), *package.parents):
        yield prefix / "share" / "textdifuse_ros" / "config" / "fastdds_shm.xml"


def launch(program: str, plan: RunPlan) -> dict[str, Any]:
    """Run a program of :mod:`textdifuse_ros.nodes` to its end.

    :param program: name of its module
    :param plan: what it has to run; ``parent`` is filled in
    :returns: its report
    :raises InputError: it failed; it has printed the reason to stderr
    :raises KeyboardInterrupt: interrupted; all processes have ended
    """
    env = {name: value for name, value in os.environ.items() if name != _WHEELS_MARK}
    argument = json.dumps(asdict(replace(plan, parent=os.getpid())))
    command = [sys.executable, "-m", f"textdifuse_ros.nodes.{program}", argument]
    # In its own session: a terminal sends Ctrl-C to all processes of the session. With the forwarded signal below, the
    # program would get two, and it ends without a report at the second.
    process = subprocess.Popen(command, env=env, start_new_session=True)
    interrupted = False

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        process.terminate()

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status == 130 or (status and interrupted):  # another status if interrupted during startup, or twice
        raise KeyboardInterrupt
    logs = Path(plan.output) / "logs"
    if status:
        remedy = f"its logs are in {logs}" if logs.is_dir() else "it ended before it wrote logs"
        raise InputError(f"the {program}", "run to its end", f"status {status}", remedy)
    report: dict[str, Any] = json.loads((logs / "run.json").read_text(encoding="utf-8"))
    return report
