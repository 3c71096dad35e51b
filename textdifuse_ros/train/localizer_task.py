"""Training of the built-in localizer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textdifuse_ros.config.base import from_mapping, to_mapping
from textdifuse_ros.config.training import LocalizerTrainConfig
from textdifuse_ros.data.label_pack import LabelBatch, LabelBatches, LabelPack
from textdifuse_ros.data.labels import CLASSES
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.localize.weights import load_localizer, save_localizer
from textdifuse_ros.networks.blocks import channels_last
from textdifuse_ros.networks.localizer import LocalizerNetwork, LocalizerNetworkConfig
from textdifuse_ros.train.localizer_loss import LocalizerLoss, thing_weights
from textdifuse_ros.train.state import Identity, load_state
from textdifuse_ros.train.task import Task
from textdifuse_ros.train.trainer import Trainer


class LocalizerTask(Task):
    """The network of the built-in localizer, on labeled crops.

    :param config: parameters of the run
    :param pack: label pack
    :param network: on its device
    """

    name = "localizer"
    config: LocalizerTrainConfig
    networks: LocalizerNetwork
    final_rate = 0.01

    def __init__(self, config: LocalizerTrainConfig, pack: Path, network: LocalizerNetwork) -> None:
        self.config, self.pack, self.networks = config, pack, network.train()
        self.parameters = list(network.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        self.loss = LocalizerLoss(self.parameters[0].device)

    def batches(self, first: int, count: int, rank: int = 0) -> LabelBatches:
        """See :meth:`.Task.batches` for ``first`` and ``count``; ``rank`` must be 0.

        :raises ConfigError: several processes train
        """
        if rank:
            raise ConfigError("the number of training processes", "1 for the localizer", "several")
        config = self.config
        return LabelBatches(self.pack, config.crop, config.crops, config.seed, first, count)

    def losses(self, batch: LabelBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """See :meth:`.Task.losses` for ``batch``; ``generator`` is not used."""
        cells = self.networks(batch.visible, batch.infrared)
        with torch.autocast(batch.visible.device.type, enabled=False):
            return self.loss(cells, batch.codes, batch.boxes)

    def save(self, path: Path, networks: nn.Module, provenance: Mapping[str, Any]) -> None:
        """See :meth:`.Task.save` for ``path``, ``networks`` and ``provenance``.

        A class of weight w is learned as if it were w times as frequent. For things the checkpoint undoes this, so that
        their probabilities are those of the images; with the other classes undone too, poles and signs would vanish.
        """
        network = copy.deepcopy(networks).eval()
        assert isinstance(network, LocalizerNetwork)
        _shift_logits(network, -thing_weights().log())
        save_localizer(path, network, provenance)


def localizer_trainer(
    config: LocalizerTrainConfig,
    folder: Path,
    pack: Path,
    start: Path | None = None,
    device: torch.device | str = "cpu",
    sizes: LocalizerNetworkConfig | None = None,
) -> Trainer[LocalizerTask]:
    """Create the trainer of the localizer: a new run, or the one whose state is in the folder.

    :param config: parameters of the run
    :param folder: run folder
    :param pack: label pack
    :param start: checkpoint to start from; None for new weights, or to resume whatever the run started from
    :param device: of the network
    :param sizes: of a new network; None for the defaults
    :raises ConfigError: the folder holds another run: other parameters, pack or start
    :raises CheckpointError: the start or the state is damaged
    """
    state = load_state(folder)
    saved = state["run"] if state else None
    if start is not None:
        network, checkpoint = load_localizer(start)
        _shift_logits(network, thing_weights().log())
        digest, history = checkpoint.sha256, checkpoint.provenance.get("history", [])
    else:
        if saved:
            sizes = from_mapping(LocalizerNetworkConfig, saved["networks"], "the state")
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
            torch.manual_seed(config.seed)
            network = LocalizerNetwork(sizes or LocalizerNetworkConfig(classes=len(CLASSES)))
        digest, history = saved["start"] if saved else "", []
    network = channels_last(network.to(device))
    identity = Identity(to_mapping(config), to_mapping(network.config), LabelPack(pack).digest, digest)
    return Trainer(LocalizerTask(config, pack, network), folder, identity, state, history)


def _shift_logits(network: LocalizerNetwork, shift: Tensor) -> None:
    bias = network.to_logits.bias
    if bias is None or bias.shape != shift.shape:
        found = "none" if bias is None else len(bias)
        raise ConfigError("classes", f"{len(shift)}, as many as the labels have", found)
    with torch.no_grad():
        bias += shift.to(bias.device)
