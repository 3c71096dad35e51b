"""Between checkpoints and the networks of a family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from textdifuse_ros.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from textdifuse_ros.config import from_mapping, to_mapping
from textdifuse_ros.errors import CheckpointError, ConfigError
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks

KIND = "fusion"
FAMILIES = {"drive": (DriveConfig, DriveNetworks)}


def load_networks(path: str | Path) -> tuple[DriveNetworks, Checkpoint]:
    """Build the networks that a checkpoint describes and give them its weights, in float32.

    :raises CheckpointError: unreadable, of another kind or family, or tensors that do not fit
    """
    checkpoint = load_checkpoint(path, KIND)
    config = dict(checkpoint.config)
    family = config.pop("family", None)
    if family not in FAMILIES:
        raise CheckpointError(str(path), f"of family {' or '.join(FAMILIES)}", repr(family))
    config_class, networks_class = FAMILIES[family]
    try:
        networks = networks_class(from_mapping(config_class, config, str(path)))
        networks.load_state_dict({name: t.to(torch.float32) for name, t in checkpoint.tensors.items()}, strict=True)
    except (ConfigError, RuntimeError) as error:
        reason = str(error).replace("\n", " ")
        raise CheckpointError(str(path), "weights that fit their own configuration", reason) from error
    return networks, checkpoint


def join_networks(luma: str | Path, chroma: str | Path, output: str | Path) -> None:
    """Make one checkpoint of the luma (with its fusion control) of one and the chroma of another.

    The two do not see one another, so they may be trained at the same time.

    :raises CheckpointError: unreadable, or of different configurations
    """
    networks, base = load_networks(luma)
    other, giver = load_networks(chroma)
    if without_modulation(networks.config) != without_modulation(other.config):
        raise CheckpointError(str(chroma), f"of the same configuration as {luma}", "another")
    networks.chroma.load_state_dict(other.chroma.state_dict())
    stages = [
        *(stage for stage in base.provenance.get("history", []) if stage["stage"] != "chroma"),
        *(stage for stage in giver.provenance.get("history", []) if stage["stage"] == "chroma"),
    ]
    save_networks(output, networks, {**base.provenance, "history": stages})


def without_modulation(config: DriveConfig) -> DriveConfig:
    """The configuration of the networks that fuse without a text."""
    return replace(config, modulation_width=0)


def with_modulation(networks: DriveNetworks, width: int = 32) -> DriveNetworks:
    """The same networks with a text re-modulation that does nothing yet, unless they have one already.

    :param width: channels in which it decides
    """
    if networks.modulation is not None:
        return networks
    grown = DriveNetworks(replace(networks.config, modulation_width=width))
    grown.luma.load_state_dict(networks.luma.state_dict())
    grown.chroma.load_state_dict(networks.chroma.state_dict())
    return grown


def save_networks(
    path: str | Path, networks: DriveNetworks, provenance: Mapping[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write networks as a checkpoint.

    :param dtype: precision on disk; float16 keeps three digits, more than bfloat16 inference uses
    """
    tensors = {name: tensor.to(dtype) for name, tensor in networks.state_dict().items()}
    save_checkpoint(path, KIND, {"family": "drive", **to_mapping(networks.config)}, tensors, provenance)
