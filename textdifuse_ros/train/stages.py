"""The stages of training the fusion networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import BatchShape, CropBatch
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.fusion.denoise import luma_prior
from textdifuse_ros.networks.drive import DriveNetworks
from textdifuse_ros.train.chroma import ChromaStage
from textdifuse_ros.train.control import ControlStage
from textdifuse_ros.train.fusion_losses import LOOKS
from textdifuse_ros.train.joint import JointStage
from textdifuse_ros.train.luma import LumaStage
from textdifuse_ros.train.modulation import ModulationStage
from textdifuse_ros.train.objective import OBJECTIVES, AllStepsObjective


class Stage(Protocol):
    """Losses of one stage."""

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        """Batch shapes, which take turns."""
        ...

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Trained parameters; all others are frozen."""
        ...

    def __call__(self, batch: CropBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Compute the losses of a batch, scalars; ``loss`` is minimized.

        :param batch: on the device of the networks
        :param generator: on the same device
        """
        ...


STAGES: dict[str, Callable[[DriveNetworks], Any]] = {
    "luma": LumaStage,
    "chroma": ChromaStage,
    "control": ControlStage,
    "joint": JointStage,
    "modulation": ModulationStage,
}

ALL_STEPS = ("luma", "joint")
"""Stages that the objective ``all_steps`` can train."""

NEED_START = ("control", "joint", "modulation")
"""Stages that train a part of networks whose other parts are already trained."""


def make_stage(config: TrainConfig, networks: DriveNetworks) -> Stage:
    """Create the stage of a configuration, with its objective.

    :param config: names stage, objective and look
    :param networks: on their device
    """
    stage = STAGES[config.stage](networks)
    if isinstance(stage, JointStage):
        stage.look = LOOKS[config.look]
    if isinstance(stage, ChromaStage):
        if config.objective != "few_step":
            remedy = "leave the objective out: chroma is a regression"
            raise ConfigError("objective of the stage chroma", "few_step, the default", config.objective, remedy)
    elif config.objective == "all_steps":
        prior = luma_prior(networks.config, stage.schedule)
        if prior is None or config.stage not in ALL_STEPS:
            raise ConfigError("objective of the stage", f"all_steps for {' or '.join(ALL_STEPS)} alone", config.stage)
        stage.objective = AllStepsObjective(stage.schedule, prior)
    elif config.objective != "few_step":  # each stage has its own variant of few_step
        stage.objective = OBJECTIVES[config.objective](stage.schedule)
    return stage
