"""The weights that ship, on images that the project draws: they restore, fuse, and follow a text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from textdifuse_ros.checkpoint import find_checkpoint
from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.weights import load_networks
from textdifuse_ros.image.color import rgb_to_ycbcr
from textdifuse_ros.image.ranges import unit_to_signed
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.regions import contrast_gain, instance_masks, object_contrast
from textdifuse_ros.metrics.similarity import scd, vif
from textdifuse_ros.scenes.config import DriveSceneConfig
from textdifuse_ros.scenes.drive import Frame, NightDrive


@pytest.fixture(scope="module")
def frame() -> Frame:
    return NightDrive(DriveSceneConfig()).frame(20)


@pytest.fixture(scope="module", params=["drive", "quality"])
def fuser(request: pytest.FixtureRequest) -> Fuser:
    return Fuser.from_config(FuserConfig(model=request.param, steps=1))


def test_a_dark_street_becomes_readable_and_persons_stay_bright(fuser: Fuser, frame: Frame) -> None:
    fused = to_grey(fuser.fuse(frame.visible, frame.infrared).image)
    visible = to_grey(frame.visible)
    assert fused.mean() > 1.3 * visible.mean()
    assert scd(fused, visible, frame.infrared) > 1.2
    assert min(vif(fused, visible), vif(fused, frame.infrared)) > 0.15
    hot = frame.infrared > np.percentile(frame.infrared, 99.5)
    assert fused[hot].mean() > 0.75 * frame.infrared[hot].mean()


def test_strength_raises_and_lowers_contrast_and_nothing_else(fuser: Fuser, frame: Frame) -> None:
    masks = instance_masks(frame.instances)
    masks = masks[[mask.sum() > 60 for mask in masks]]
    assert len(masks)
    named = masks.any(0)
    plain = fuser.fuse(frame.visible, frame.infrared).image
    before = object_contrast(to_grey(plain), masks)
    gains = {}
    for strength in (-1.0, 0.5, 1.0, 2.0):
        emphasis = Emphasis(np.where(named, np.float32(strength), np.float32(0)))
        changed = fuser.fuse(frame.visible, frame.infrared, emphasis=emphasis).image
        np.testing.assert_array_equal(changed[~named], plain[~named])
        gains[strength] = contrast_gain(object_contrast(to_grey(changed), masks), before)
    assert gains[-1.0] < 0 < gains[0.5] < gains[1.0] < gains[2.0]
    assert gains[1.0] > 0.05  # what is warm is nearly white already, and cannot stand out much more


def test_one_step_is_about_as_good_as_four(fuser: Fuser, frame: Frame) -> None:
    one = to_grey(fuser.fuse(frame.visible, frame.infrared).image)
    four = to_grey(fuser.fuse(frame.visible, frame.infrared, steps=4).image)
    assert scd(one, to_grey(frame.visible), frame.infrared) > 0.97 * scd(four, to_grey(frame.visible), frame.infrared)
    assert np.abs(one.astype(float) - four).mean() < 8


@pytest.mark.parametrize("model", ["drive", "quality"])
def test_noise_would_hardly_change_the_color(model: str, frame: Frame) -> None:
    """Why chroma is a regression (ADR 14): its decoder, given noise as in a first step, answers the same."""
    networks, _ = load_networks(find_checkpoint(model))
    chroma = networks.eval().chroma
    image = torch.from_numpy(frame.visible).permute(2, 0, 1)[None] / 255
    luma, colors = rgb_to_ycbcr(F.avg_pool2d(image, 2))
    with torch.inference_mode():
        condition = chroma.white_balance(torch.cat((unit_to_signed(luma), 2 * colors), 1))
        noise = torch.randn(condition[:, 1:].shape, generator=torch.Generator().manual_seed(0))
        features, timestep = chroma.encoder(condition), torch.tensor([networks.config.timesteps - 1])
        correction, _ = chroma.decoder(features, noise, timestep, variance=False)
        levels = 255 * (condition[:, 1:] + correction - chroma(condition)) / 2
    assert 0 < levels.abs().mean() < 0.5
