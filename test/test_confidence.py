"""The confidence of a fusion: from the model's own variance to files, recordings and topics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from bag_makers import images, record
from conftest import TINY, with_random_heads

from textdifuse_ros.cli.main import main
from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.errors import CheckpointError
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.weights import add_prior, save_networks
from textdifuse_ros.image.files import write_png
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.runtime.engine import DirectBackend, FusionRequest

WORST = math.sqrt(2 / math.pi) * 127.5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks with a prior; the logarithm of their variance is random."""
    torch.manual_seed(3)
    networks = add_prior(DriveNetworks(DriveConfig(**TINY, modulation_width=8)))
    path = tmp_path_factory.mktemp("models") / "prior.safetensors"
    save_networks(path, with_random_heads(networks), {})
    return path


@pytest.fixture(scope="module")
def fuser(checkpoint: Path) -> Fuser:
    return Fuser.from_config(FuserConfig(model=str(checkpoint), steps=1))


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (50, 70, 3), dtype=np.uint8), rng.integers(0, 256, (50, 70), dtype=np.uint8)


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "dpm_solver"])
def test_it_is_the_expected_error_and_changes_no_byte_of_the_image(fuser: Fuser, pair, sampler: str) -> None:
    for steps in (1, 3):
        plain = fuser.fuse(*pair, steps=steps, sampler=sampler)
        result = fuser.fuse(*pair, steps=steps, sampler=sampler, confidence=True)
        assert plain.confidence is None
        assert np.array_equal(result.image, plain.image)
        levels = result.confidence
        assert levels is not None and levels.dtype == np.float32 and levels.shape == (50, 70)
        assert 0 < levels.min() < levels.max() <= WORST * math.exp(3.5) * 0.1
        assert np.array_equal(levels, fuser.fuse(*pair, steps=1, confidence=True).confidence), "of the first step"


def test_an_emphasis_keeps_it_and_a_smaller_scale_enlarges_it(fuser: Fuser, pair) -> None:
    strengths = np.zeros((50, 70), np.float32)
    strengths[10:30, 20:40] = 1.0
    alone = fuser.fuse(*pair, confidence=True)
    emphasized = fuser.fuse(*pair, emphasis=Emphasis(strengths), confidence=True)
    assert not np.array_equal(alone.image, emphasized.image)
    assert np.array_equal(alone.confidence, emphasized.confidence)
    request = FusionRequest(1, "ddim", 0, scale=0.8, confidence=True)
    scaled = DirectBackend(fuser).fuse(*pair, request)
    assert scaled.confidence is not None and scaled.confidence.shape == (50, 70)


def test_a_model_that_does_not_know_refuses_and_in_a_stream_gives_none(tiny_checkpoint: Path, pair) -> None:
    fuser = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), steps=1))
    with pytest.raises(CheckpointError, match="without a variance of x0; leave the confidence out"):
        fuser.fuse(*pair, confidence=True)
    result = DirectBackend(fuser).fuse(*pair, FusionRequest(1, "ddim", 0, confidence=True))
    assert result.confidence is None


def test_fuse_writes_it_as_a_float_tiff(fuser: Fuser, checkpoint: Path, pair, tmp_path: Path) -> None:
    write_png(tmp_path / "v.png", pair[0])
    write_png(tmp_path / "i.png", pair[1])
    given = [
        "fuse",
        tmp_path / "v.png",
        tmp_path / "i.png",
        "-o",
        tmp_path / "out",
        "--model",
        checkpoint,
        "--steps",
        1,
    ]
    assert main([*map(str, given), "--save-confidence"]) == 0
    stored = tifffile.imread(tmp_path / "out" / "v_confidence.tif")
    assert stored.dtype == np.float32
    assert np.array_equal(stored, fuser.fuse(*pair, confidence=True).confidence)
    assert not list((tmp_path / "out").glob("*mask*"))


def test_fuse_and_bag_refuse_it_before_anything_is_written(tiny_checkpoint: Path, pair, tmp_path: Path, capsys) -> None:
    write_png(tmp_path / "v.png", pair[0])
    write_png(tmp_path / "i.png", pair[1])
    source = record(tmp_path / "in", 2)
    model = ["--model", tiny_checkpoint, "--steps", 1]
    for given in (
        ["fuse", tmp_path / "v.png", tmp_path / "i.png", "-o", tmp_path / "out", *model, "--save-confidence"],
        ["bag", source, tmp_path / "out", *model, "--confidence"],
    ):
        assert main([str(item) for item in given]) == 2
        assert "one that gives a confidence" in capsys.readouterr().err
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_recording_carries_it_beside_the_fused_images(checkpoint: Path, tmp_path: Path) -> None:
    source = record(tmp_path / "in", 2)
    model = ["--model", checkpoint, "--steps", 1]
    assert main([str(item) for item in ["bag", source, tmp_path / "out", *model, "--confidence"]]) == 0
    found = images(tmp_path / "out", "/fusion_node/confidence")
    fused = images(tmp_path / "out")
    assert len(found) == len(fused) == 2
    for confidence, image in zip(found, fused, strict=True):
        assert confidence.encoding == "32FC1" and confidence.stamp_ns == image.stamp_ns
