"""What a run trains: the interface between :class:`.Trainer` and the networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from textdifuse_ros.config.training import LocalizerTrainConfig, TrainConfig
from textdifuse_ros.train.preview import Preview

Batch = Any
"""A named tuple of tensors, the first axis of each the crops: :class:`.CropBatch` or :class:`.LabelBatch`."""


class Task(ABC):
    """Networks, their batches and their losses.

    :ivar name: stage in the history of the checkpoint
    :ivar config: parameters of the run
    :ivar pack: path of the image or label pack
    :ivar networks: all networks, on the device; saved as a whole
    :ivar parameters: those that are trained, the ones whose gradient is clipped
    :ivar optimizer: of these parameters
    :ivar final_rate: last learning rate, as a share of the highest one
    :ivar shape_count: number of batch shapes that take turns
    :ivar partial: some batches leave some trained parameters without a gradient
    :ivar echo: steps that use each batch
    :ivar sheet_every: steps between two sheets of sample images; 0 for none
    """

    name: str
    config: TrainConfig | LocalizerTrainConfig
    pack: Path
    networks: nn.Module
    parameters: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    final_rate: float
    shape_count: int = 1
    partial: bool = False
    echo: int = 1
    sheet_every: int = 0

    @abstractmethod
    def batches(self, first: int, count: int, rank: int = 0) -> Dataset[Batch]:
        """Batches by number, on the CPU.

        :param first: number of the first batch
        :param count: number of batches
        :param rank: process that trains on them; each one has its own
        """

    @abstractmethod
    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        :param batch: on the device of the networks
        :param generator: on the same device
        :returns: scalars; ``loss`` is minimized, the others are logged
        """

    @abstractmethod
    def save(self, path: Path, networks: nn.Module, provenance: Mapping[str, Any]) -> None:
        """Write a checkpoint.

        :param path: file to write
        :param networks: :attr:`networks` with averaged weights; left unchanged
        :param provenance: version, and history of the training
        """

    def crops(self, batch: Batch) -> int:
        """Count the crops of a batch, for the log.

        :param batch: on any device
        """
        return len(batch.visible)

    def mirror(self, batch: Batch) -> Batch:
        """Flip a batch horizontally, for its second use; needed only where ``echo`` is above 1.

        :param batch: left unchanged
        """
        raise NotImplementedError

    def preview(self) -> Preview | None:
        """Create what draws the sheets of sample images; None where the task has none."""
        return None
