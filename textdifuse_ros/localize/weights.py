"""Load and save the built-in localizer's network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from textdifuse_ros.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from textdifuse_ros.config.base import from_mapping, to_mapping
from textdifuse_ros.networks.blocks import shapes_of
from textdifuse_ros.networks.localizer import LocalizerNetwork, LocalizerNetworkConfig

KIND = "localizer"


def load_localizer(path: str | Path) -> tuple[LocalizerNetwork, Checkpoint]:
    """Build the network that a checkpoint describes and load its weights as float32.

    :param path: of the checkpoint
    :raises CheckpointError: unreadable, of another kind, or tensors that do not match the configuration
    """

    def build(config: dict[str, Any]) -> LocalizerNetwork:
        return LocalizerNetwork(from_mapping(LocalizerNetworkConfig, config, str(path)))

    checkpoint = load_checkpoint(path, KIND, lambda config: shapes_of(lambda: build(config)))
    network = build(checkpoint.config)
    tensors = {name: t.to(torch.float32) if t.is_floating_point() else t for name, t in checkpoint.tensors.items()}
    network.load_state_dict(tensors, strict=True)
    return network, checkpoint


def save_localizer(path: str | Path, network: LocalizerNetwork, provenance: Mapping[str, Any]) -> None:
    """Write a network as a checkpoint: convolutions in float16, the statistics of the normalization in float32.

    :param path: of the checkpoint to write
    :param network: to save
    :param provenance: of the weights, JSON-able
    """
    tensors = {
        name: tensor.to(torch.float16) if tensor.is_floating_point() and ".norm." not in name else tensor
        for name, tensor in network.state_dict().items()
    }
    save_checkpoint(path, KIND, to_mapping(network.config), tensors, provenance)
