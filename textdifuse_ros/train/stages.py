"""The stages of training: what each one sees, and which part of the networks learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import Sample, Shape
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.networks.drive import DriveNetworks
from textdifuse_ros.train.chroma import ChromaStage
from textdifuse_ros.train.control import ControlStage
from textdifuse_ros.train.fusion_losses import LOOKS
from textdifuse_ros.train.joint import JointStage
from textdifuse_ros.train.luma import LumaStage
from textdifuse_ros.train.modulation import ModulationStage
from textdifuse_ros.train.objective import OBJECTIVES, Objective


class Stage(Protocol):
    """One stage.

    :ivar shapes: the batches it is fed
    :ivar parameters: what learns; everything else stays as it is
    :ivar schedule: the full one
    :ivar objective: what the diffusion is trained for
    """

    objective: Objective

    @property
    def shapes(self) -> tuple[Shape, ...]: ...

    @property
    def parameters(self) -> list[nn.Parameter]: ...

    @property
    def schedule(self) -> NoiseSchedule: ...

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a batch: scalars, ``loss`` is minimised; the generator is on the batch's device."""
        ...


STAGES: dict[str, Callable[[DriveNetworks], Any]] = {
    "luma": LumaStage,
    "chroma": ChromaStage,
    "control": ControlStage,
    "joint": JointStage,
    "modulation": ModulationStage,
}

NEED_START = ("control", "joint", "modulation")
"""Stages that train a part of networks whose other parts are already trained."""


def make_stage(config: TrainConfig, networks: DriveNetworks) -> Stage:
    """The stage of a configuration, with its objective."""
    stage: Stage = STAGES[config.stage](networks)
    if isinstance(stage, JointStage):
        stage.look = LOOKS[config.look]
    if config.objective != "few_step":  # which every stage makes as is best for it
        stage.objective = OBJECTIVES[config.objective](stage.schedule)
    return stage
