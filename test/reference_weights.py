"""Random weights with the names and shapes of the authors' published files."""

from __future__ import annotations

import zlib
from pathlib import Path

import torch
from torch import Tensor

from textdifuse_ros.networks.reference.networks import ReferenceConfig
from textdifuse_ros.networks.reference.released import released_shapes

TINY = (32, 32, 64, 64, 256)
"""Widths with which a step takes milliseconds; a feature of the deepest level is padded, as with the real ones."""
NAMES = {"encoder": "diffusion_stage1.pth", "decoder": "diffusion_stage2.pth", "control": "FCM-VIS-IR.pt"}


def random_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The same numbers for the same name: weights that keep the scale of a signal, biases near 0, gains near 1.

    :param name: network and tensor
    :param shape: of the tensor
    """
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) > 1:
        return tensor * torch.tensor(shape[1:]).prod().item() ** -0.5
    return 0.1 * tensor + (1.0 if name.endswith("weight") else 0.0)


def random_states(config: ReferenceConfig) -> dict[str, dict[str, Tensor]]:
    """The tensors of the three files.

    :param config: sizes
    """
    return {
        network: {name: random_tensor(f"{network}.{name}", shape) for name, shape in shapes.items()}
        for network, shapes in released_shapes(config).items()
    }


def write_files(folder: Path, config: ReferenceConfig) -> dict[str, Path]:
    """Write the three files, as the authors' program saves them.

    :param folder: to write to
    :param config: sizes
    :returns: path of each network
    """
    paths = {}
    for network, state in random_states(config).items():
        paths[network] = folder / NAMES[network]
        torch.save(state, paths[network])
    return paths
