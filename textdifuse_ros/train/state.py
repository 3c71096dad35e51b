"""The saved state of a run, and the check that it belongs to the run being resumed."""

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
PREVIOUS_WEIGHTS = "weights_before.safetensors"
"""Weights of the save before the last: when a run diverges, the last ones may be damaged before a loss shows it."""
FORMAT = 3


@dataclass(frozen=True)
class Identity:
    """Everything that determines the bits of a run. A state is resumed only by the same run.

    :ivar config: plain values of the run's parameters
    :ivar networks: plain values of the networks' configuration
    :ivar pack: digest of the pack
    :ivar start: digest of the weights that the run started from; "" for new weights
    :ivar processes: number of processes that train together
    :ivar variant: name of an ablation's variant; "" for none
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
        :param folder: run folder, for the error
        :raises ConfigError: names the first difference
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
    """Shorten a digest to its first digits."""
    return f"sha256 {value[:12]}" if isinstance(value, str) and len(value) == 64 else repr(value)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a run folder against other runs; create it where it is missing.

    :param folder: run folder
    :raises FileError: another run holds the lock
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(f"the run folder {folder}", "used by one run at a time", "another active run") from None
        yield
    finally:
        os.close(handle)


def back_up_weights(folder: Path) -> None:
    """Copy the weights in a run folder, before new ones replace them.

    :param folder: run folder
    """
    if (folder / WEIGHTS).is_file():
        shutil.copyfile(folder / WEIGHTS, folder / PREVIOUS_WEIGHTS)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a state; it replaces the previous one as a whole or, where power or disk fail, not at all.

    :param folder: run folder
    :param state: plain values and tensors
    :raises FileError: the disk is full
    """
    partial = folder / (STATE + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:  # what torch.save raises on a full disk
        raise FileError(str(partial), "written whole", str(error).splitlines()[0], "is the disk full?") from error
    partial.replace(folder / STATE)


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read the state in a run folder; tensors are on the CPU.

    :param folder: run folder
    :returns: the state; None where there is none
    :raises CheckpointError: unreadable, or of an unknown format
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and torch raise a dozen types for a damaged file
        reason = str(error).splitlines()[0]
        remedy = "start a new run from the weights"
        raise CheckpointError(str(path), "a readable training state", reason, remedy) from error
    if state.get("format") == 2:
        state = _from_format_2(state)
    if state.get("format") != FORMAT:
        found = state.get("format", "one without a number")
        raise CheckpointError(str(path), f"a training state of format {FORMAT}", found, "use the release that wrote it")
    return state


def _from_format_2(state: dict[str, Any]) -> dict[str, Any]:
    """Convert a state whose moving average holds the trained parameters alone, with a count of its updates."""
    networks = state["network"] if "network" in state else state["networks"]
    average = {f"module.{name}": tensor for name, tensor in (networks | state["ema"]["average"]).items()}
    ema = {"n_averaged": torch.tensor(state["ema"]["updates"] + 1), **average}
    return {**state, "format": FORMAT, "networks": networks, "ema": ema}
