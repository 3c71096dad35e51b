"""Signals, errors and reports of the programs in this folder."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rclpy.utilities import remove_ros_args

from textdifuse_ros.errors import ConfigError, FileError, TextDifuseError, quote


class StopRequest:
    """Records SIGINT and SIGTERM instead of ending the process, so that files are closed and counts are reported.

    A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested = True


def report(counts: Mapping[str, Any], path: str) -> None:
    """Print counts as one line of JSON, and write the line to a file if one is named.

    :param counts: JSON-able
    :param path: of the file, or empty
    :raises FileError: the file cannot be written
    """
    line = json.dumps(counts)
    print(line, flush=True)
    if not path:
        return
    try:
        Path(path).expanduser().write_text(line + "\n", encoding="utf-8")
    except OSError as error:
        raise FileError(path, "a file that can be written", error.strerror or error) from error


def run_program(
    name: str, usage: str | None, body: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None
) -> int:
    """Run a program that takes ROS arguments only.

    A :class:`.TextDifuseError` becomes one line on stderr and status 2; a closed output pipe becomes status 141.

    :param name: of the program, for messages
    :param usage: shown for ``--help``
    :param body: takes ``argv``, returns the exit status
    :param argv: beginning with the program's name, as rclpy takes it; None for those of the process
    """
    try:
        status = _run(name, usage, body, argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python flushes stdout again at exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(name: str, usage: str | None, body: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    try:
        others = remove_ros_args(argv)[1:]
    except Exception as error:  # rcl has several types: an unreadable parameter file, a bad remapping
        detail = " ".join(str(error).split())
        print(f"{name}: {ConfigError('the ROS arguments', 'readable', detail)}", file=sys.stderr)
        return 2
    if others in (["-h"], ["--help"]):
        print((usage or "").strip())
        return 0
    if others:
        print(f"{name}: arguments must be ROS arguments, got {quote(others[0])}; see {name} --help", file=sys.stderr)
        return 2
    try:
        return body(argv)
    except TextDifuseError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return 2
