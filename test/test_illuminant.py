"""The illuminant estimator: gains of the whole image, applied before chroma is restored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, with_random_heads

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.weights import add_part, join_networks, load_networks, save_networks
from textdifuse_ros.image.color import rgb_to_ycbcr
from textdifuse_ros.image.ranges import unit_to_signed
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.networks.illuminant import IlluminantEstimator, apply_gains, best_gains, illuminant_error


def coded(rgb: torch.Tensor) -> torch.Tensor:
    luma, chroma = rgb_to_ycbcr(rgb)
    return torch.cat((unit_to_signed(luma), 2 * chroma), 1)


def scenes(count: int, seed: int) -> torch.Tensor:
    """Smooth random images that are grey on average, [N, 3, 64, 64] in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    rough = 0.25 + 0.3 * torch.rand(count, 3, 8, 8, generator=generator)
    return F.interpolate(rough, size=(64, 64), mode="bilinear", align_corners=False)


def test_best_gains_undo_a_cast_exactly() -> None:
    clean = scenes(3, 0)
    gains = torch.tensor([[1.0, 0.8, 0.6], [0.3, 0.3, 0.3], [0.9, 1.1, 1.0]])[:, :, None, None]
    cast, truth = coded(clean * gains), coded(clean)
    torch.testing.assert_close(best_gains(cast, truth), 1 / gains, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(apply_gains(cast, 1 / gains), truth, rtol=0, atol=1e-5)


def test_best_gains_of_a_black_image_are_finite() -> None:
    black = coded(torch.zeros(1, 3, 16, 16))
    assert torch.isfinite(best_gains(black, coded(scenes(1, 1)[:, :, :16, :16])).log()).all()


def test_an_untrained_estimator_does_not_change_an_image() -> None:
    image = coded(scenes(2, 2))
    estimator = IlluminantEstimator(8)
    assert torch.equal(estimator(image), torch.ones(2, 3, 1, 1))
    torch.testing.assert_close(apply_gains(image, estimator(image)), image, rtol=0, atol=1e-6)


def test_a_trained_estimator_corrects_casts_of_unseen_images() -> None:
    torch.manual_seed(0)
    estimator = IlluminantEstimator(16)
    optimizer = torch.optim.Adam(estimator.parameters(), 5e-3)

    def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        clean = scenes(16, seed)
        gains = (torch.rand(16, 3, generator=generator) - 1).exp()[:, :, None, None]
        return coded(clean * gains), coded(clean)

    for step in range(150):
        cast, truth = batch(step)
        loss = illuminant_error(estimator(cast), best_gains(cast, truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    cast, truth = batch(10_000)
    with torch.no_grad():
        error = (apply_gains(cast, estimator(cast)) - truth).abs().mean()
    assert error < 0.4 * (cast - truth).abs().mean()


def test_the_chroma_stage_adds_an_estimator_to_networks_without_one() -> None:
    old = DriveNetworks(DriveConfig(**TINY))
    new = add_part(old, "chroma")
    assert old.chroma.light is None and new.chroma.light is not None
    assert add_part(old, "control") is old and add_part(new, "chroma") is new
    before = old.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in new.state_dict().items() if name in before)


def test_joining_checkpoints_takes_the_estimator_with_the_chroma(tmp_path: Path) -> None:
    luma, chroma = DriveNetworks(DriveConfig(**TINY)), add_part(DriveNetworks(DriveConfig(**TINY)), "chroma")
    save_networks(tmp_path / "luma.safetensors", luma, {})
    save_networks(tmp_path / "chroma.safetensors", chroma, {})
    join_networks(tmp_path / "luma.safetensors", tmp_path / "chroma.safetensors", tmp_path / "joined.safetensors")
    joined, _ = load_networks(tmp_path / "joined.safetensors")
    assert joined.config == replace(luma.config, light_width=chroma.config.light_width)
    assert joined.chroma.light is not None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_estimated_gains_are_applied_to_the_color(precision: str) -> None:
    networks = add_part(DriveNetworks(DriveConfig(**TINY)), "chroma")
    assert networks.chroma.light is not None
    with torch.no_grad():
        networks.chroma.light.cells[-1].bias[:3] = torch.tensor([0.0, 0.0, 0.2])  # blue times e^0.4
    visible = np.full((64, 64, 3), (120, 120, 80), np.uint8)
    fused = Fuser(networks, FuserConfig(precision=precision)).restore(visible=visible).image.astype(int)
    assert abs(int((fused[..., 2] - fused[..., 0]).mean())) <= 2, "80 e^0.4 is 119"


def test_a_color_cast_is_removed_from_the_luma_before_fusion() -> None:
    torch.manual_seed(1)
    networks = with_random_heads(add_part(DriveNetworks(DriveConfig(**TINY)), "chroma"))
    assert networks.chroma.light is not None
    clean = (255 * scenes(1, 4)[0].permute(1, 2, 0).numpy()).round().astype(np.uint8)
    infrared = np.ascontiguousarray(clean[::-1, :, 0])
    gains = np.exp([-0.1, -0.1, 0.2])  # color alone: their product is 1
    cast = (clean / gains).round().clip(0, 255).astype(np.uint8)
    expected = Fuser(networks, FuserConfig()).fuse(clean, infrared).image
    uncorrected = Fuser(networks, FuserConfig()).fuse(cast, infrared).image
    with torch.no_grad():
        networks.chroma.light.cells[-1].bias[:3] = torch.from_numpy(np.arctanh(np.log(gains) / 2)).float()
    corrected = Fuser(networks, FuserConfig()).fuse(cast, infrared).image

    def luma(image: np.ndarray) -> np.ndarray:
        return image.astype(float) @ (0.299, 0.587, 0.114)

    error, uncorrected_error = (abs(luma(image) - luma(expected)).mean() for image in (corrected, uncorrected))
    assert error < 0.3 * uncorrected_error
