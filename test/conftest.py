"""Fixtures that several areas share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

TINY = {
    "luma_widths": (16, 16, 16),
    "luma_blocks": (1, 1, 1),
    "luma_decoder_blocks": (1, 1, 1),
    "control_width": 8,
    "chroma_widths": (8, 8, 8),
    "chroma_blocks": (1, 1, 1),
    "chroma_decoder_blocks": (1, 1, 1),
}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real checkpoint of small networks with random weights: everything runs, quickly, and means nothing."""
    import torch

    from textdifuse_ros.fusion.weights import save_networks
    from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_networks(path, DriveNetworks(DriveConfig(**TINY)), {"made by": "the tests"})
    return path


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A structured pair of an odd size: uint8 [45, 70, 3] and [45, 70]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:45, :70]
    infrared = np.where((x - 30) ** 2 + (y - 20) ** 2 < 100, 220, 40).astype(np.uint8)
    visible = np.stack((x * 3, y * 5, (x + y) * 2), 2).astype(np.uint8)
    return visible ^ rng.integers(0, 4, visible.shape, dtype=np.uint8), infrared


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The shared evaluation pictures, where ``TEXTDIFUSE_DATA`` names their folder."""
    named = os.environ.get("TEXTDIFUSE_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("TEXTDIFUSE_DATA names no folder: the shared pictures are not here")
    return Path(named)
