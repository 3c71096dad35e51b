"""Losses of the joint stage: the target image, its edges, and each term of the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import Tensor

from textdifuse_ros.data.crops import CropBatch
from textdifuse_ros.image.gradients import sobel_vector
from textdifuse_ros.image.ranges import unit_to_signed
from textdifuse_ros.metrics.similarity import scd
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.train.fusion_losses import (
    CORING,
    LOOKS,
    Look,
    correlate,
    grid_energy,
    local_information,
    vivid_edges,
    vivid_loss,
    vivid_target,
    without_cold_sky,
)
from textdifuse_ros.train.joint import JointStage

ROAD = LOOKS["vivid"]


def scene(seed: int = 0, size: int = 64) -> tuple[Tensor, Tensor]:
    """Create a smooth visible and a smooth infrared image over most of the range, [1, 1, S, S] each."""
    noise = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    return smooth[:1], smooth[1:]


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_the_target_uses_the_range_and_does_not_depend_on_position(look: Look) -> None:
    visible, infrared = scene()
    target = vivid_target(visible, infrared, look)
    assert target.min() >= 0 and target.max() <= 1
    assert target.max() - target.min() > 0.85
    # Rotated by 180 degrees, so that the quantiles sample the same pixels: every seventh of 4,096, from either end.
    rotated = vivid_target(visible.flip(2, 3), infrared.flip(2, 3), look).flip(2, 3)
    torch.testing.assert_close(target, rotated, atol=1e-3, rtol=0)


def test_black_stays_black_and_warm_objects_stay_bright() -> None:
    night, cold = torch.full((1, 1, 64, 64), 0.01), torch.zeros(1, 1, 64, 64)
    cold[..., 20:44, 28:36] = 0.95
    target = vivid_target(night, cold, ROAD)
    assert target[..., 20:44, 28:36].min() > 0.9
    assert target[..., :16, :].max() < 0.05


def test_there_is_no_halo_around_warm_objects() -> None:
    road, body = torch.full((1, 1, 96, 96), 0.1), torch.full((1, 1, 96, 96), 0.1)
    body[..., 30:66, 40:56] = 0.9
    target = vivid_target(road, body, ROAD)
    assert target[body == 0.1].max() - target[..., :8, :8].max() < 0.03
    assert target[body == 0.9].max() - target[body == 0.9].min() < 0.03


def test_a_dark_image_is_lifted_and_a_bright_one_is_not() -> None:
    visible, infrared = scene(3)
    mean = vivid_target(0.2 * visible, 0.2 * infrared, ROAD).mean()
    assert mean > 1.5 * 0.2 * torch.maximum(visible, infrared).mean()


def test_edges_are_the_stronger_sources_with_their_sign() -> None:
    visible, infrared = torch.full((1, 1, 32, 32), 0.5), torch.full((1, 1, 32, 32), 0.5)
    visible[..., :8, :] = 0.3
    infrared[..., 20:, :] = 0.35
    edges = vivid_edges(visible, infrared, ROAD)
    torch.testing.assert_close(edges[:, 1, 7:9], ROAD.edge_gain * sobel_vector(visible)[:, 1, 7:9])
    torch.testing.assert_close(
        edges[:, 1, 19:21], ROAD.edge_gain * (1 - CORING / 0.6) * sobel_vector(infrared)[:, 1, 19:21]
    )
    assert edges[:, 1, 8, 4] > 0 > edges[:, 1, 20, 4]


def test_lines_that_differ_in_sign_follow_the_stronger_source() -> None:
    """Lane lines are white in the visible and colder than the road; in sum and maximum they would almost vanish."""
    lines = torch.zeros(1, 1, 96, 96)
    lines[..., 20::24] = lines[..., 21::24] = 1
    visible, infrared = 0.45 + 0.35 * lines, 0.85 - 0.3 * lines

    def contrast(target: Tensor) -> float:
        return (target[lines > 0].mean() - target[lines == 0].mean()).item()

    blended = vivid_target(visible, infrared, replace(ROAD, bands=0))
    assert contrast(vivid_target(visible, infrared, ROAD)) > 2 * max(contrast(blended), 0.05)
    warm, dim = 0.2 + 0.5 * lines, 0.6 - 0.1 * lines
    assert contrast(vivid_target(dim, warm, ROAD)) > 0.3


def test_texture_of_the_cold_sky_is_removed_and_texture_of_warm_ground_is_kept() -> None:
    visible = torch.full((1, 1, 64, 64), 0.8)
    texture = 0.01 * torch.sign(torch.sin(torch.arange(64.0) * 2 * np.pi / 8)).expand(1, 1, 64, 64)

    def printed(temperature: float, look: Look) -> float:
        return vivid_edges(visible, temperature + texture, look)[..., 8:-8, 8:-8].abs().max().item()

    assert printed(0.05, ROAD) < 1e-5
    assert printed(0.60, ROAD) > 0.02
    assert printed(0.05, LOOKS["medical"]) > 0.02

    def shown(temperature: float) -> float:
        ramp = visible - torch.linspace(0, 0.3, 64)
        with_texture, without = (
            vivid_target(ramp, image, ROAD)
            for image in (temperature + 2 * texture, torch.full_like(texture, temperature))
        )
        return (with_texture - without)[..., 8:-8, 8:-8].abs().max().item()

    assert shown(0.05) < 0.02
    assert shown(0.60) > 0.05


def test_a_daylight_sky_and_its_wires_follow_the_visible_and_objects_before_it_do_not() -> None:
    visible, infrared = torch.full((1, 1, 96, 96), 0.4), torch.full((1, 1, 96, 96), 0.6)
    visible[..., :64, :] = 0.8
    infrared[..., :64, :] = 0.03 + 0.02 * torch.rand(64, 96, generator=torch.Generator().manual_seed(0))
    visible[..., 10:13, :], infrared[..., 10:13, :] = 0.3, 0.5
    visible[..., 24:64, 40:70], infrared[..., 24:64, 40:70] = 0.25, 0.7
    shown = without_cold_sky(visible, infrared, ROAD)
    torch.testing.assert_close(shown[..., :18, :], ROAD.sky_share * visible[..., :18, :], atol=0.01, rtol=0)
    torch.testing.assert_close(shown[..., 72:, :], infrared[..., 72:, :])
    torch.testing.assert_close(shown[..., 32:64, 48:62], infrared[..., 32:64, 48:62])
    sky, wire = (
        (vivid_target(visible, shown, ROAD))[..., rows, 4:30].mean() for rows in (slice(16, 20), slice(11, 12))
    )
    assert sky > vivid_target(visible, infrared, ROAD)[..., 16:20, 4:30].mean() + 0.1
    assert wire < sky - 0.3
    torch.testing.assert_close(without_cold_sky(visible / 4, infrared, ROAD), infrared)
    torch.testing.assert_close(without_cold_sky(visible, infrared, LOOKS["medical"]), infrared)


def test_the_joint_stage_targets_the_visible_sky_without_infrared_texture() -> None:
    visible, infrared = torch.full((1, 3, 96, 96), 0.4), torch.full((1, 1, 96, 96), 0.6)
    visible[..., :48, :] = 0.8
    infrared[..., :48, :] = 0.1 * torch.rand(48, 96, generator=torch.Generator().manual_seed(0))
    visible[..., 64:, ::8], infrared[..., 48:64, :] = 0.2, 0.3
    calls = []

    def objective(denoiser, target, loss, generator, variance):
        calls.append((target, loss))
        return {"loss": torch.zeros(())}

    for look in (ROAD, replace(ROAD, sky_share=0)):
        stage = JointStage(DriveNetworks(DriveConfig(**TINY)), look)
        stage.objective = objective
        stage(CropBatch(visible, visible, infrared, infrared), torch.Generator().manual_seed(1))
    (target, loss), _, (without, _), _ = calls
    sky = (..., slice(8, 32), slice(8, 88))
    assert target[sky].mean() > without[sky].mean() + 0.1
    printed = target.clone()
    printed[..., :48, :] += infrared[..., :48, :] - infrared[..., :48, :].mean()
    assert loss(printed) > loss(target) + 0.05


def test_the_loss_keeps_the_information_of_the_shown_infrared() -> None:
    visible, infrared = scene(5)
    shown = torch.rand(visible.shape, generator=torch.Generator().manual_seed(2))
    target, edges = vivid_target(visible, infrared, ROAD), vivid_edges(visible, infrared, ROAD)

    def loss(kept: Tensor) -> Tensor:
        return vivid_loss(unit_to_signed(shown), visible, infrared, kept, target, edges, ROAD)

    assert loss(shown) < loss(infrared) - 0.1


def test_correlations_of_differences_are_scd() -> None:
    a, b = scene(1)
    fused = 0.3 * a + 0.6 * b
    ours = (correlate(fused - a, b) + correlate(fused - b, a)).item()
    grey = [(255 * x[0, 0]).double().numpy() for x in (fused, a, b)]
    assert ours == pytest.approx(scd(*grey), abs=1e-4)


def test_information_falls_with_blur_and_noise_and_rises_with_contrast() -> None:
    source = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(source, 3, 1, 1)
    noisy = source + 0.2 * torch.randn(source.shape, generator=torch.Generator().manual_seed(1))
    copy, soft, bad = (local_information(x, source).item() for x in (source, blurred, noisy))
    assert copy == pytest.approx(1, abs=0.02)
    assert soft < 0.7 * copy
    assert bad < 0.7 * copy
    assert local_information(1.3 * source, source).item() > copy


def test_contrast_above_most_kept_does_not_count_but_faint_structure_may_be_raised() -> None:
    source = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))

    def kept(gain: float, scale: float) -> float:
        return local_information(gain * scale * source, scale * source, most_kept=1.3).item()

    assert kept(1.3, 1) > kept(1, 1)
    assert kept(2, 1) <= kept(1.3, 1)
    assert kept(2, 0.02) > 1.1 * kept(1.3, 0.02)


def test_grid_energy_measures_the_grid_and_neither_offset_nor_noise() -> None:
    cell = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    grid = 0.05 * cell.repeat(16, 16)[None, None]
    noise = 0.05 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    ramp = torch.linspace(0, 0.5, 64).expand(1, 1, 64, 64)
    energy = grid_energy(grid).item()
    assert energy > 0.02
    assert grid_energy(torch.full_like(grid, 0.2)).item() == pytest.approx(0, abs=1e-7)
    assert grid_energy(noise).item() < 0.4 * energy
    assert grid_energy(ramp).item() < 0.4 * energy


def test_the_loss_is_lowest_at_its_target() -> None:
    visible, infrared = scene(5)
    target, edges = vivid_target(visible, infrared, ROAD), vivid_edges(visible, infrared, ROAD)

    def loss(fused: Tensor) -> float:
        return vivid_loss(unit_to_signed(fused), visible, infrared, infrared, target, edges, ROAD).item()

    noise = 0.05 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    best = loss(target)
    for worse in (target * 0.6, target + noise, visible, torch.maximum(visible, infrared), 1 - target):
        assert loss(worse) > best + 0.01
