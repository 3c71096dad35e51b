"""Training of the fusion networks, one stage at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textdifuse_ros.config.base import from_mapping, to_mapping
from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import BatchShape, CropBatch, CropBatches
from textdifuse_ros.data.pack import ImagePack
from textdifuse_ros.fusion.weights import add_part, add_prior, load_networks, resize_networks, save_networks
from textdifuse_ros.networks.blocks import channels_last
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.train.preview import Preview
from textdifuse_ros.train.ranks import ALONE, Ranks
from textdifuse_ros.train.stages import Stage, make_stage
from textdifuse_ros.train.state import Identity, load_state
from textdifuse_ros.train.task import Task
from textdifuse_ros.train.trainer import Trainer


class FusionTask(Task):
    """One stage of the fusion networks; parameters outside the stage are frozen.

    :param config: parameters of the run
    :param pack: image pack
    :param networks: on their device
    :param stage: losses and trained parameters, of these networks
    """

    config: TrainConfig
    networks: DriveNetworks
    final_rate = 0.02

    def __init__(self, config: TrainConfig, pack: Path, networks: DriveNetworks, stage: Stage) -> None:
        self.name, self.config, self.pack = config.stage, config, pack
        self.networks = networks.requires_grad_(False)
        self.stage = stage
        self.parameters = stage.parameters
        for item in self.parameters:
            item.requires_grad_(True)
        trained = [item for item in networks.parameters() if item.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=config.learning_rate)
        self.shape_count = len(stage.shapes)
        # Where batches of one source alternate with pairs, some skip the fusion control.
        self.partial = len({(shape.visible > 0, shape.infrared > 0) for shape in stage.shapes}) > 1
        self.echo = config.echo
        # The objects that the modulation sees beside the images are drawn within its stage.
        self.sheet_every = 0 if config.stage == "modulation" else config.sheet_every

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        """Batch shapes of one process, which take turns."""
        times = self.config.batch
        return tuple(
            BatchShape(shape.size, shape.visible * times, shape.infrared * times, shape.pairs)
            for shape in self.stage.shapes
        )

    def batches(self, first: int, count: int, rank: int = 0) -> CropBatches:
        """See :meth:`.Task.batches` for ``first``, ``count`` and ``rank``."""
        config = self.config
        return CropBatches(str(self.pack), self.shapes, config.seed, first, count, config.degradations, rank)

    def crops(self, batch: CropBatch) -> int:
        """Count the crops of both sensors in a ``batch``."""
        return len(batch.visible) + len(batch.infrared)

    def losses(self, batch: CropBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Compute the losses of the stage; see :meth:`.Task.losses` for ``batch`` and ``generator``."""
        return self.stage(batch, generator)

    def save(self, path: Path, networks: nn.Module, provenance: Mapping[str, Any]) -> None:
        """See :meth:`.Task.save` for ``path``, ``networks`` and ``provenance``."""
        assert isinstance(networks, DriveNetworks)
        save_networks(path, networks, provenance)

    def mirror(self, batch: CropBatch) -> CropBatch:
        """Flip a ``batch`` horizontally."""
        return CropBatch(*(part.flip(-1) for part in batch))

    def preview(self) -> Preview:
        """Create what draws the sheets of sample images."""
        config = self.config
        return Preview(config.stage, str(self.pack), self.stage.shapes, config.seed, config.degradations)


def fusion_trainer(
    config: TrainConfig,
    folder: Path,
    pack: Path,
    start: Path | None = None,
    device: torch.device | str = "cpu",
    *,
    drive: DriveConfig | None = None,
    ranks: Ranks = ALONE,
    make: Callable[[TrainConfig, DriveNetworks], Stage] = make_stage,
    variant: str = "",
) -> Trainer[FusionTask]:
    """Create the trainer of a stage: a new run, or the one whose state is in the folder.

    :param config: parameters of the run
    :param folder: run folder
    :param pack: image pack
    :param start: checkpoint to start from; None for new weights, or to resume whatever the run started from
    :param device: of the networks
    :param drive: sizes of new networks; None for the defaults
    :param ranks: the processes that train together
    :param make: creates the stage; replaced for the variants of an ablation
    :param variant: name of what ``make`` changes
    :raises ConfigError: the folder holds another run: other parameters, pack, start or number of processes
    :raises CheckpointError: the start or the state is damaged
    """
    state = ranks.from_first(lambda: load_state(folder))
    saved = state["run"] if state else None
    networks, digest, history = _initial_networks(config, start, drive, saved)
    networks = channels_last(networks.to(device))
    pack_digest = ImagePack(pack).digest
    ranks.check_same("the image pack", pack_digest)
    ranks.check_same("the start checkpoint", digest)
    identity = Identity(to_mapping(config), to_mapping(networks.config), pack_digest, digest, ranks.size, variant)
    task = FusionTask(config, pack, networks, make(config, networks))
    return Trainer(task, folder, identity, state, history, ranks)


def _initial_networks(
    config: TrainConfig, start: Path | None, drive: DriveConfig | None, saved: dict[str, Any] | None
) -> tuple[DriveNetworks, str, list[dict[str, Any]]]:
    """Create the networks; return them with the digest and the history of the checkpoint they come from."""
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(config.seed)
        if start is not None:
            networks, checkpoint = load_networks(start)
            networks, history = resize_networks(networks, drive, str(start)), checkpoint.provenance.get("history", [])
            return _with_parts(networks, config), checkpoint.sha256, history
        if drive is None:
            drive = from_mapping(DriveConfig, saved["networks"], "the state") if saved else DriveConfig()
        return _with_parts(DriveNetworks(drive), config), saved["start"] if saved else "", []


def _with_parts(networks: DriveNetworks, config: TrainConfig) -> DriveNetworks:
    """Add what the stage and its objective train, where it is missing."""
    networks = add_part(networks, config.stage)
    return add_prior(networks) if config.objective == "all_steps" else networks
