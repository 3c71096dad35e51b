"""The state of a run on disk, and whether it belongs to the run that is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from textdifuse_ros.config_train import UNBINDING
from textdifuse_ros.errors import CheckpointError, ConfigError

STATE = "state.pt"
FORMAT = 2


@dataclass(frozen=True)
class Identity:
    """What fixes every bit of a run. A state goes on only as the run that it was.

    :ivar config: plain values of the :class:`.TrainConfig`
    :ivar networks: plain values of the networks' configuration
    :ivar pack: digest of the picture pack
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
                if name not in UNBINDING and mine.get(name) != its.get(name):
                    raise ConfigError(name, f"{its.get(name)!r}, {there}", repr(mine.get(name)), remedy)
        for name, what in (
            ("variant", "the variant"),
            ("processes", "the number of training processes"),
            ("pack", "the picture pack"),
            ("start", "the start checkpoint"),
        ):
            mine, its = getattr(self, name), saved[name]
            if mine != its:
                raise ConfigError(what, f"{_brief(its)}, {there}", _brief(mine), remedy)


def _brief(value: object) -> str:
    """A digest by its first digits."""
    return f"sha256 {value[:12]}" if isinstance(value, str) and len(value) == 64 else repr(value)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a state; the one before is replaced as a whole, also where the power fails, or not at all."""
    partial = folder / (STATE + ".partial")
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
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
