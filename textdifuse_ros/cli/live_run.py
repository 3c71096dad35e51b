"""What ``demo`` and ``endurance`` have in common: checks, the folder that a run replaces, the drive, the processes.

They import no ROS themselves: the nodes are processes of their own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from textdifuse_ros.checkpoint import find_checkpoint
from textdifuse_ros.cli.drive import record_frame
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.errors import FileError, InputError

if TYPE_CHECKING:
    import numpy as np

    from textdifuse_ros.scenes.config import DriveSceneConfig

# Lies in the output folder and names what runs have made there, a line each; nothing else is ever removed.
MARKER = ".textdifuse_run"
# Left by the ROS wheels; from another virtual environment it would keep this one's from finding their libraries.
_WHEELS_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"


@dataclass(frozen=True)
class Prepared:
    """The input of a run.

    :ivar source: what the player plays
    :ivar pairs: how many pairs it will publish
    :ivar samples: up to three pairs, to measure with: uint8 or uint16 [H, W, 3] RGB and [H, W]
    :ivar recorded_hz: pairs a second at rate 1; 0 for a folder, which has none
    """

    source: Path
    pairs: int
    samples: list[tuple[np.ndarray, np.ndarray]]
    recorded_hz: float


def check_ros(what: str) -> None:
    """Refuse to start where the nodes could not.

    :param what: is to be run, for the error
    :raises InputError: rclpy is not installed
    """
    if importlib.util.find_spec("rclpy") is None:
        remedy = "install the package with its extra [ros], or source a ROS 2 installation"
        raise InputError("rclpy", f"installed for {what}", "no module of that name", remedy)


def check_text(name: str, text: str) -> bool:
    """Whether a text asks for anything.

    :param name: of the argument, for the error
    :raises ConfigError: it is none, or has a word that the localizer does not know
    :raises CheckpointError: the localizer's weights are not there
    """
    from textdifuse_ros.localize.prompt import parse_prompt, resolve
    from textdifuse_ros.localize.registry import known_words

    localizer = LocalizerConfig()
    prompt = parse_prompt(text, name)
    if prompt:
        resolve(prompt, known_words(localizer) or {}, name)
        find_checkpoint(localizer.localizer_model)
    return bool(prompt)


def drive_scene(size: str, pairs: int) -> DriveSceneConfig:
    """The synthetic drive that is to be rendered.

    :param size: as ``640x480``
    :raises ConfigError: a size or a number of pairs that cannot be rendered
    """
    from textdifuse_ros.cli.info import parse_size
    from textdifuse_ros.config.base import from_mapping
    from textdifuse_ros.scenes.config import DriveSceneConfig

    width, height = parse_size(size)
    return from_mapping(DriveSceneConfig, {"frames": pairs, "width": width, "height": height})


def claim_output(output: Path, made: Sequence[str], inputs: Sequence[Path] = ()) -> None:
    """Make the folder, remove what an earlier run left there, and mark what this one will make.

    To be called when everything else has been found right: a run that is refused removes nothing.

    :param made: names of all files and folders that the run makes
    :param inputs: what the run reads
    :raises FileError: no folder, or one that cannot be written to; an input lies in what would be removed; something
        of such a name is there, and no run has made it
    """
    what = f"the output {output}"
    if output.exists() and not output.is_dir():
        raise FileError(what, "a folder", "a file")
    for path in inputs:
        for name in made:
            if _lies_in(path, output, name):
                expected = f"outside of {output / name}, which the run replaces"
                raise FileError(f"the input {path}", expected, "one within", "give another output, or move the input")
    marker = output / MARKER
    try:
        owned = marker.read_text(encoding="utf-8").splitlines() if marker.is_file() else []
        there = [name for name in made if os.path.lexists(output / name)]
        strangers = [name for name in there if name not in owned]
        if strangers:
            found = f"one with {', '.join(strangers)}, which no run has marked as its own"
            raise FileError(what, "new, or an earlier run's", found, "give another folder, or remove them yourself")
        output.mkdir(parents=True, exist_ok=True)
        marker.write_text("".join(f"{name}\n" for name in sorted({*owned, *made})), encoding="utf-8")
        for name in there:
            _remove(output / name)
    except (OSError, UnicodeDecodeError) as error:
        found = str(getattr(error, "strerror", None) or error)
        raise FileError(what, "a folder that can be written to", found) from error


def _lies_in(path: Path, output: Path, name: str) -> bool:
    """Whether a path is within ``output / name``: as it is written, or where it leads to."""
    written = Path(os.path.abspath(path)), Path(os.path.abspath(output)) / name
    led_to = path.resolve(), output.resolve() / name
    return any(inner.is_relative_to(outer) for inner, outer in (written, led_to))


def _remove(path: Path) -> None:
    """A file or a folder; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def render_drive(config: DriveSceneConfig, bag: Path) -> Prepared:
    """Render the drive into a recording."""
    import numpy as np
    from tqdm import tqdm

    from textdifuse_ros.bags.writer import BagWriter
    from textdifuse_ros.scenes.drive import NightDrive

    samples: list[tuple[np.ndarray, np.ndarray]] = []
    random = np.random.default_rng(config.seed)
    with BagWriter(bag) as writer:
        for frame in tqdm(NightDrive(config), total=config.frames, desc="rendering", unit="frame", disable=None):
            record_frame(writer, frame, random)
            if len(samples) < 3:
                samples.append((frame.visible, frame.infrared))
    return Prepared(bag, config.frames, samples, config.rate_hz)


def transport_profile() -> str:
    """The Fast DDS profile that comes with the package; empty where it is not found."""
    return next((str(path) for path in _profiles() if path.is_file()), "")


def _profiles() -> Iterator[Path]:
    """Where the Fast DDS profile may lie: beside the checkout, or where the package is installed."""
    package = Path(__file__).resolve().parents[1]
    yield package.parent / "config" / "fastdds_shm.xml"
    for prefix in (Path(sys.prefix), *package.parents):
        yield prefix / "share" / "textdifuse_ros" / "config" / "fastdds_shm.xml"


def supervise(name: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Run the processes and return what they told.

    :param name: of the module of :mod:`textdifuse_ros.nodes` that runs the plan
    :param plan: that module's ``Plan``, without ``parent``
    :raises InputError: they failed; the reason stands on stderr already
    :raises KeyboardInterrupt: interrupted; they have ended
    """
    env = {name: value for name, value in os.environ.items() if name != _WHEELS_MARK}
    command = [sys.executable, "-m", f"textdifuse_ros.nodes.{name}", json.dumps({**plan, "parent": os.getpid()})]
    # In a session of its own: a terminal sends Ctrl-C to all processes of this one, and with what is forwarded below it
    # would get two signals, of which the second means to end without a report.
    process = subprocess.Popen(command, env=env, start_new_session=True)
    asked = False

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        process.terminate()

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status == 130 or (status and asked):  # asked before it was ready to listen, or twice, it ends otherwise
        raise KeyboardInterrupt
    logs = Path(plan["output"]) / "logs"
    if status:
        remedy = f"its logs are in {logs}" if logs.is_dir() else "it ended before it wrote logs"
        raise InputError(f"the {name}", "run to its end", f"status {status}", remedy)
    report: dict[str, Any] = json.loads((logs / "run.json").read_text(encoding="utf-8"))
    return report
