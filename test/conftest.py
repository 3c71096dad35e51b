"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("ros_helpers", "evaluation_rig")

# The same examples in every run, and no deadline: durations say nothing on a busy machine. `--hypothesis-profile fuzz`
# searches longer and at random, in the tests that do not set a number of examples.
settings.register_profile("bounded", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", settings.get_profile("bounded"), max_examples=20_000, derandomize=False)
settings.load_profile("bounded")

TINY = {
    "luma_widths": (16, 16, 16),
    "luma_blocks": (1, 1, 1),
    "luma_decoder_blocks": (1, 1, 1),
    "control_width": 8,
    "chroma_widths": (8, 8, 8),
    "chroma_blocks": (1, 1, 1),
    "chroma_decoder_blocks": (1, 1, 1),
}


def with_random_heads(networks):  # type: ignore[no-untyped-def]
    """Randomize the heads of the decoders, whose initial zeros would give the same image whatever the features."""
    for part in (networks.luma, networks.chroma):
        part.decoder.head.reset_parameters()
    return networks


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of small networks with random weights."""
    import torch

    from textdifuse_ros.fusion.weights import save_networks
    from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_networks(path, with_random_heads(DriveNetworks(DriveConfig(**TINY))), {"made by": "the tests"})
    return path


@pytest.fixture(scope="session")
def tiny_text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of small networks with a text modulation, whose random weights have a strong effect."""
    import torch

    from textdifuse_ros.fusion.weights import save_networks
    from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks

    torch.manual_seed(0)
    networks = with_random_heads(DriveNetworks(DriveConfig(**TINY, modulation_width=8)))
    assert networks.modulation is not None
    for level in networks.modulation.levels:
        torch.nn.init.normal_(level.directions.weight, std=0.3)  # type: ignore[arg-type, union-attr]
        torch.nn.init.normal_(level.directions.bias, std=0.5)  # type: ignore[arg-type, union-attr]
    path = tmp_path_factory.mktemp("models") / "tiny_text.safetensors"
    save_networks(path, networks, {"made by": "the tests"})
    return path


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A structured pair of an odd size: visible uint8 [45, 70, 3] and infrared uint8 [45, 70]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:45, :70]
    infrared = np.where((x - 30) ** 2 + (y - 20) ** 2 < 100, 220, 40).astype(np.uint8)
    visible = np.stack((x * 3, y * 5, (x + y) * 2), 2).astype(np.uint8)
    return visible ^ rng.integers(0, 4, visible.shape, dtype=np.uint8), infrared


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the evaluation images, from the environment variable ``TEXTDIFUSE_DATA``."""
    named = os.environ.get("TEXTDIFUSE_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("TEXTDIFUSE_DATA names no folder with the evaluation images")
    return Path(named)
