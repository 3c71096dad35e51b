"""End quietly when Ctrl-C comes while a program of this package imports its modules.

PyTorch, OpenCV and rclpy take seconds to import, within which a ``KeyboardInterrupt`` ends in a traceback, or in an
error that an extension module makes of it. Nothing has been done then that would need cleaning up.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_PROGRAMS = ("textdifuse", "fusion_node", "player_node", "recorder_node")


def quiet_imports(package: str, status: int, main: str = "") -> None:
    """Let SIGINT end the process quietly; does nothing in processes that only import this package.

    :param package: whose modules are started by ``python -m``
    :param status: exit status
    :param main: name of a function within which only imports are ended so, and other code by ``KeyboardInterrupt``
    """
    program = next((word for word in sys.orig_argv[1:] if not word.startswith("-")), "")
    name = os.path.basename(program)
    if not (name in _PROGRAMS or program.startswith(f"{package}.")):
        return

    def end(number: int, frame: FrameType | None) -> None:
        if main and _within(frame, main):
            raise KeyboardInterrupt
        if main:
            os.write(2, f"{_PROGRAMS[0]}: interrupted\n".encode())
        os._exit(status)

    signal.signal(signal.SIGINT, end)


def _within(frame: FrameType | None, function: str) -> bool:
    """Whether a frame runs in a function of this package, and not in an import by it."""
    while frame is not None:
        code = frame.f_code
        if "importlib._bootstrap" in code.co_filename:
            return False
        if code.co_name == function and frame.f_globals.get("__package__", "") == "textdifuse_ros.cli":
            return True
        frame = frame.f_back
    return False
