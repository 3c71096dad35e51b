"""Child processes that end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Children:
    """Runs modules of this package as processes, each with a log file; leaving the ``with`` block stops them.

    Each runs in its own session, so that Ctrl-C in a terminal reaches only this process, which decides the order in
    which they stop. On Linux they are also stopped if this process is killed.

    :param logs: folder for NAME.log, created if missing
    :param env: changes to the environment
    """

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        self._logs = logs
        # The children run the same interpreter, so the environment that its ROS wheels have set is valid for them.
        self._env = {**os.environ, **env}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for name in self._running:
            self.stop(name, signal.SIGTERM, 5.0)

    def start(self, name: str, module: str, parameters: Mapping[str, object]) -> subprocess.Popen[bytes]:
        """Run ``python -m module`` with ROS parameters.

        :param name: unique name of the child and its log file
        :param module: module to run
        :param parameters: ROS parameters by name
        """
        given = [item for key, value in parameters.items() for item in ("-p", f"{key}:={_ros_value(value)}")]
        command = [sys.executable, "-m", module, *(["--ros-args", *given] if given else [])]
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._running[name] = process
        return process

    def ended(self, name: str) -> bool:
        """Return whether the child ``name`` has ended."""
        return self._running[name].poll() is not None

    def log(self, name: str) -> Path:
        """Return the log file of the child ``name``."""
        return self._logs / f"{name}.log"

    def tail(self, name: str, lines: int = 5) -> str:
        """Return the last ``lines`` lines of the log of the child ``name``."""
        return "\n".join(self.log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:])

    def stop(self, name: str, number: int = signal.SIGINT, timeout: float = 30.0) -> int:
        """Stop a child, and kill it if it does not end in time.

        :param name: name of the child
        :param number: signal to send
        :param timeout: how long to wait before killing it [s]
        :returns: its exit status
        """
        process = self._running[name]
        if process.poll() is None:
            process.send_signal(number)
        deadline = time.monotonic() + timeout
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
        return process.wait()


def _ros_value(value: object) -> str:
    """Format a parameter value for the ROS command line; text is quoted, or ``on`` and ``42`` would change type."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, (str, Path)):
        escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
