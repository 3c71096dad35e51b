"""Load, save, join and widen the networks of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textdifuse_ros.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from textdifuse_ros.config.base import from_mapping, to_mapping
from textdifuse_ros.errors import CheckpointError, ConfigError, quote
from textdifuse_ros.networks.blocks import shapes_of
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.networks.reference.networks import FAMILY, ReferenceConfig, ReferenceNetworks
from textdifuse_ros.networks.widening import can_widen, widen

KIND = "fusion"
LUMA_PRIOR = 0.1
DRIVE, REFERENCE = "drive", FAMILY
FAMILIES: dict[str, tuple[type[Any], type[Any]]] = {
    DRIVE: (DriveConfig, DriveNetworks),
    REFERENCE: (ReferenceConfig, ReferenceNetworks),
}
"""Configuration and networks of each family."""

FusionNetworks = DriveNetworks | ReferenceNetworks
OPTIONAL: dict[str, Any] = {"modulation_width": 0, "light_width": 0, "luma_fine": 0, "luma_prior": 0.0}
"""Sizes of optional parts, and their values where a checkpoint lacks them."""


def load_networks(path: str | Path) -> tuple[DriveNetworks, Checkpoint]:
    """Build the ``drive`` networks that a checkpoint describes and load its weights as float32.

    :param path: of the checkpoint
    :raises CheckpointError: unreadable, of another kind or family, or tensors that do not match
    """
    networks, checkpoint = load_family(path, (DRIVE,))
    assert isinstance(networks, DriveNetworks)
    return networks, checkpoint


def load_family(path: str | Path, families: Sequence[str] = tuple(FAMILIES)) -> tuple[FusionNetworks, Checkpoint]:
    """Build the networks of any of some families, and load the weights as float32.

    :param path: of the checkpoint
    :param families: names in :data:`FAMILIES`
    :raises CheckpointError: unreadable, of another kind or family, or tensors that do not match
    """

    def build(config: dict[str, Any]) -> FusionNetworks:
        values = dict(config)
        family = values.pop("family", None)
        if not isinstance(family, str) or family not in families:
            raise CheckpointError(str(path), f"of family {' or '.join(families)}", quote(family))
        config_class, networks_class = FAMILIES[family]
        networks: FusionNetworks = networks_class(from_mapping(config_class, values, str(path)))
        return networks

    checkpoint = load_checkpoint(path, KIND, lambda config: shapes_of(lambda: build(config)))
    networks = build(checkpoint.config)
    networks.load_state_dict({name: t.to(torch.float32) for name, t in checkpoint.tensors.items()}, strict=True)
    return networks, checkpoint


def save_reference(
    path: str | Path, config: ReferenceConfig, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]
) -> None:
    """Write ``reference`` weights as a checkpoint, in their own precision.

    :param path: of the checkpoint to write
    :param config: sizes of the networks
    :param tensors: of :func:`.released.read_released`
    :param provenance: what made the weights, JSON-able
    """
    save_checkpoint(path, KIND, {"family": REFERENCE, **to_mapping(config)}, tensors, provenance)


def join_networks(luma: str | Path, chroma: str | Path, output: str | Path) -> None:
    """Join the luma networks of one checkpoint and the chroma networks of another.

    Neither reads the other, so both can be trained at the same time.

    :param luma: checkpoint with the luma networks, including fusion control and modulation
    :param chroma: checkpoint with the chroma networks
    :param output: checkpoint to write
    :raises CheckpointError: unreadable, or of different configurations
    """
    networks, base = load_networks(luma)
    other, giver = load_networks(chroma)
    if replace(networks.config, **OPTIONAL) != replace(other.config, **OPTIONAL):
        raise CheckpointError(str(chroma), f"of the same configuration as {luma}", "another")
    networks = _resized(networks, replace(networks.config, light_width=other.config.light_width))
    networks.chroma.load_state_dict(other.chroma.state_dict())
    stages = [
        *(stage for stage in base.provenance.get("history", []) if stage["stage"] != "chroma"),
        *(stage for stage in giver.provenance.get("history", []) if stage["stage"] == "chroma"),
    ]
    save_networks(output, networks, {**base.provenance, "history": stages})


def resize_networks(networks: DriveNetworks, requested: DriveConfig | None, path: str) -> DriveNetworks:
    """Widen the networks of a checkpoint to a requested size (:mod:`textdifuse_ros.networks.widening`).

    :param networks: of the checkpoint
    :param requested: None for the checkpoint's sizes; an optional part of size 0 keeps its size
    :param path: of the checkpoint, for errors
    :raises ConfigError: the requested networks are smaller or otherwise different
    """
    if requested is None:
        return networks
    current = networks.config
    target = replace(requested, **{name: getattr(current, name) for name in OPTIONAL if not getattr(requested, name)})
    if target == current:
        return networks
    if not can_widen(current, target):
        remedy = "leave out the networks' sizes: the start has its own"
        raise ConfigError("the networks", f"as large as those of {path}, or larger", "smaller", remedy)
    return widen(networks, target)


def add_part(networks: DriveNetworks, stage: str) -> DriveNetworks:
    """Add the optional part that a stage trains, where it is missing; untrained it has no effect.

    :param networks: not changed
    :param stage: ``modulation`` adds the text re-modulation, ``chroma`` the illuminant estimator, ``luma`` and
        ``joint`` the fine detail
    """
    if stage == "modulation" and networks.modulation is None:
        return _resized(networks, replace(networks.config, modulation_width=32))
    if stage == "chroma" and networks.chroma.light is None:
        return _resized(networks, replace(networks.config, light_width=32))
    if stage in ("luma", "joint") and not networks.config.luma_fine:
        return _resized(networks, replace(networks.config, luma_fine=1))
    return networks


def add_prior(networks: DriveNetworks) -> DriveNetworks:
    """Give luma a prior and let its second output be the variance of x0, as the objective ``all_steps`` trains it.

    :param networks: not changed
    """
    if networks.config.luma_prior:
        return networks
    other = _resized(networks, replace(networks.config, luma_prior=LUMA_PRIOR))
    head = other.luma.decoder.head
    with torch.no_grad():
        # The output was the logit of the fraction v: another quantity.
        head.weight[head.out_channels // 2 :].zero_()
        assert head.bias is not None
        head.bias[head.out_channels // 2 :].zero_()
    return other


def _resized(networks: DriveNetworks, config: DriveConfig) -> DriveNetworks:
    """Networks of another configuration, with the weights of all parts that both have."""
    other = DriveNetworks(config)
    new, old = other.state_dict(), networks.state_dict()
    other.load_state_dict({name: old.get(name, tensor) for name, tensor in new.items()})
    return other


def save_networks(
    path: str | Path, networks: DriveNetworks, provenance: Mapping[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write networks as a checkpoint.

    :param path: of the checkpoint to write
    :param networks: the networks
    :param provenance: what made the weights, JSON-able
    :param dtype: precision on disk; float16 keeps three digits, more than bfloat16 inference uses
    """
    tensors = {name: tensor.to(dtype) for name, tensor in networks.state_dict().items()}
    save_checkpoint(path, KIND, {"family": DRIVE, **to_mapping(networks.config)}, tensors, provenance)
