"""Fine detail: the last tensor of the luma pyramids, at full resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, with_random_heads

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.weights import add_part, load_networks, resize_networks, save_networks
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.networks.encoder import fine_detail


def fine_networks() -> DriveNetworks:
    """Tiny networks with random weights for fine detail."""
    torch.manual_seed(0)
    networks = with_random_heads(DriveNetworks(DriveConfig(**TINY, luma_fine=1, modulation_width=8)))
    decoder, control = networks.luma.decoder, networks.luma.control
    assert decoder.gain is not None and control.fine is not None and networks.modulation is not None
    torch.nn.init.normal_(decoder.gain.weight, std=0.1)
    torch.nn.init.normal_(control.fine.weight, std=1.0)
    for level in networks.modulation.levels:
        torch.nn.init.normal_(level.directions.weight, std=0.5)
    return networks


def decode(networks: DriveNetworks, visible: torch.Tensor, infrared: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        features = networks.luma.fuse_features(visible, infrared)
        image: torch.Tensor = networks.luma.decoder(features, torch.zeros_like(visible), torch.tensor([999]))[0]
    return image


def test_fine_detail_is_the_variation_within_a_cell() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(1, 1, 48, 64)
    assert fine_detail(ramp)[..., 4:-4, 4:-4].abs().max() < 1e-5
    stripes = ramp.clone()
    stripes[..., ::2] += 0.2
    torch.testing.assert_close(fine_detail(stripes)[..., 8:-8].amax((2, 3)), torch.full((1, 1), 0.1), atol=1e-3, rtol=0)


def test_adding_fine_detail_does_not_change_the_output_before_training() -> None:
    torch.manual_seed(1)
    old = with_random_heads(DriveNetworks(DriveConfig(**TINY)))
    visible, infrared = torch.rand(2, 1, 1, 32, 48) * 2 - 1
    for stage in ("luma", "joint"):
        new = add_part(old, stage)
        assert new.config.luma_fine == 1 and add_part(new, stage) is new
        torch.testing.assert_close(decode(new, visible, infrared), decode(old, visible, infrared))
    assert resize_networks(new, old.config, "the start") is new


def test_a_pixel_pattern_reaches_the_output_unchanged() -> None:
    """Only the decoder's gain and the control's weights act on it, not the features."""
    networks = DriveNetworks(DriveConfig(**TINY, luma_fine=1))
    gain = networks.luma.decoder.gain
    assert gain is not None and gain.bias is not None
    torch.nn.init.ones_(gain.bias)
    visible, infrared = torch.rand(2, 1, 1, 32, 48) * 2 - 1
    expected = (fine_detail(visible) + fine_detail(infrared)) / 2
    torch.testing.assert_close(decode(networks, visible, infrared), expected)


def test_the_sources_are_weighted_per_pixel() -> None:
    control = fine_networks().luma.control
    pyramids = [(*(torch.randn(1, c, 16 // s, 16 // s) for c, s in ((16, 1), (16, 2), (16, 4))), x)
                for x in (torch.ones(1, 1, 64, 64), torch.zeros(1, 1, 64, 64))]  # fmt: skip
    share = control(*pyramids)[-1]
    assert share.shape == (1, 1, 64, 64)
    within = share[0, 0].reshape(16, 4, 16, 4).permute(0, 2, 1, 3).flatten(2)
    assert (within.amax(2) - within.amin(2)).mean() > 0.1
    assert share.min() >= 0 and share.max() <= 2


def test_bfloat16_networks_keep_fine_detail_in_float32() -> None:
    networks = fine_networks().bfloat16()
    visible, infrared = torch.rand(2, 1, 1, 32, 48) * 2 - 1
    features = networks.luma.fuse_features(visible, infrared)
    assert [level.dtype for level in features] == [torch.bfloat16] * 3 + [torch.float32]
    assert decode(networks, visible, infrared).dtype == torch.float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_text_changes_no_pixel_outside_the_objects(precision: str) -> None:
    fuser = Fuser(fine_networks(), FuserConfig(precision=precision, steps=2, threads=1))
    rng = np.random.default_rng(0)
    visible = rng.integers(0, 256, (96, 128, 3), np.uint8)
    infrared = rng.integers(0, 256, (96, 128), np.uint8)
    strengths = np.zeros((96, 128), np.float32)
    strengths[40:60, 50:80] = 1
    plain, changed = (
        fuser.fuse(visible, infrared).image,
        fuser.fuse(visible, infrared, emphasis=Emphasis(strengths)).image,
    )
    assert np.array_equal(plain[strengths == 0], changed[strengths == 0])
    assert not np.array_equal(plain, changed)


def test_fine_detail_is_saved_and_loaded(tmp_path: Path) -> None:
    networks = fine_networks()
    save_networks(tmp_path / "fine.safetensors", networks, {}, torch.float32)
    loaded, _ = load_networks(tmp_path / "fine.safetensors")
    assert loaded.config == networks.config
    visible, infrared = torch.rand(2, 1, 1, 32, 48) * 2 - 1
    assert torch.equal(decode(loaded, visible, infrared), decode(networks, visible, infrared))
