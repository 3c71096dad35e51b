"""The state of a run on disk, and whether it belongs to the run that is asked for."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from textdifuse_ros.config.training import CHANGEABLE_ON_RESUME
from textdifuse_ros.errors import CheckpointError, ConfigError, FileError

STATE = "state.pt"
WEIGHTS = "weights.safetensors"
BEFORE = "weights_before.safetensors"
"""The weights of the save before: those of a run that blows up may be spoiled before a loss shows it."""
FORMAT = 2


@dataclass(frozen=True)
class Identity:
    """What fixes every bit of a run. A state goes on only as the run that it was.

    :ivar config: plain values of the :class:`.TrainConfig`
    :ivar networks: plain values of the networks' configuration
    :ivar pack: digest of the image pack
    :ivar start: digest of the weights it began from; "" for new ones
    :ivar processes: that train together
    :ivar variant: of an ablation; "" for none
    """

    config: dict[str, Any]
    networks: dict[str, Any]
    pack: str
    start: str = ""
    processes: int = 1
    variant: str = ""

    def check(self, saved: dict[str, Any], folder: Path) -> None:
        """Refuse the state of another run.

        :param saved: plain values of its identity
        :raises ConfigError: names the first thing that differs
        """
        there = f"as in the run in {folder}"
        remedy = "give another run folder to start a new run"
        for group, mine in (("config", self.config), ("networks", self.networks)):
            its = saved[group]
            for name in sorted(mine.keys() | its.keys()):
                if name not in CHANGEABLE_ON_RESUME and mine.get(name) != its.get(name):
                    raise ConfigError(name, f"{its.get(name)!r}, {there}", repr(mine.get(name)), remedy)
        for name, what in (
            ("variant", "the variant"),
            ("processes", "the number of training processes"),
            ("pack", "the image pack"),
            ("start", "the start checkpoint"),
        ):
            mine, its = getattr(self, name), saved[name]
            if mine != its:
                raise ConfigError(what, f"{_brief(its)}, {there}", _brief(mine), remedy)


def _brief(value: object) -> str:
    """A digest by its first digits."""
    return f"sha256 {value[:12]}" if isinstance(value, str) and len(value) == 64 else repr(value)


@contextmanager
def left_to_one(folder: Path) -> Iterator[None]:
    """Keep other runs out of a run's folder; it is made where it is missing.

    :raises FileError: another run is at work in it
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(f"the run folder {folder}", "left to one run at a time", "another run at work") from None
        yield
    finally:
        os.close(handle)


def keep_weights_before(folder: Path) -> None:
    """Copy the weights of a run aside, before new ones are written."""
    if (folder / WEIGHTS).is_file():
        shutil.copyfile(folder / WEIGHTS, folder / BEFORE)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a state; the one before is replaced as a whole, also where the power fails, or not at all.

    :raises FileError: the disk does not take it
    """
    partial = folder / (STATE + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:  # what torch.save makes of a full disk
        raise FileError(str(partial), "written whole", str(error).splitlines()[0], "is the disk full?") from error
    partial.replace(folder / STATE)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state in a run's folder, tensors on the CPU; None where there is none.

    :raises CheckpointError: it cannot be read, or another version wrote it
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and torch have a dozen kinds for a damaged file
        reason = str(error).splitlines()[0]
        remedy = "start a new run from the weights"
        raise CheckpointError(str(path), "a readable training state", reason, remedy) from error
    if state.get("format") != FORMAT:
        found = state.get("format", "one without a number")
        raise CheckpointError(str(path), f"a training state of format {FORMAT}", found, "use the release that wrote it")
    return state
