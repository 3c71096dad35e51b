"""The fuser: any pair in, the same bytes out, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.errors import CheckpointError, ConfigError, DeviceError, ImageError
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.networks.drive import LumaNetwork

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path) -> FuserConfig:
    return FuserConfig(model=str(tiny_checkpoint), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def fuser(config: FuserConfig) -> Fuser:
    return Fuser.from_config(config)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 31), (45, 70), (96, 64), (33, 17)])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_any_size_comes_out_as_it_went_in(fuser: Fuser, height: int, width: int, steps: int) -> None:
    rng = np.random.default_rng(1)
    result = fuser.fuse(
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        rng.integers(0, 256, (height, width), dtype=np.uint8),
        steps=steps,
    )
    assert result.image.shape == (height, width, 3)
    assert result.image.dtype == np.uint8
    assert result.image.flags.c_contiguous
    assert result.provenance["steps"] == steps


def test_same_input_seed_and_weights_give_the_same_bytes(config: FuserConfig, fuser: Fuser, pair: Pair) -> None:
    first = fuser.fuse(*pair).image
    other = fuser.fuse(pair[0][::-1].copy(), pair[1]).image
    assert not np.array_equal(first, other)
    assert np.array_equal(first, fuser.fuse(*pair).image)
    assert np.array_equal(first, Fuser.from_config(config).fuse(*pair).image)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm_solver"])
def test_every_sampler_is_repeatable_and_hears_the_seed(fuser: Fuser, pair: Pair, sampler: str) -> None:
    first = fuser.fuse(*pair, sampler=sampler, seed=1)
    assert np.array_equal(first.image, fuser.fuse(*pair, sampler=sampler, seed=1).image)
    assert not np.array_equal(first.image, fuser.fuse(*pair, sampler=sampler, seed=2).image)
    assert first.provenance["sampler"] == sampler and first.provenance["seed"] == 1


def test_samplers_and_steps_differ(fuser: Fuser, pair: Pair) -> None:
    images = [
        fuser.fuse(*pair, sampler=sampler, steps=steps).image
        for sampler, steps in (("ddim", 4), ("dpm_solver", 4), ("ancestral", 4), ("ddim", 1))
    ]
    for i, one in enumerate(images):
        for other in images[i + 1 :]:
            assert not np.array_equal(one, other)


def test_both_sources_matter(fuser: Fuser, pair: Pair) -> None:
    visible, infrared = pair
    base = fuser.fuse(visible, infrared).image
    assert not np.array_equal(base, fuser.fuse(255 - visible, infrared).image)
    assert not np.array_equal(base, fuser.fuse(visible, 255 - infrared).image)


def test_bfloat16_is_close_to_float32(config: FuserConfig, fuser: Fuser, pair: Pair) -> None:
    brief = Fuser.from_config(replace(config, precision="bfloat16")).fuse(*pair)
    assert brief.provenance["precision"] == "bfloat16"
    difference = np.abs(brief.image.astype(int) - fuser.fuse(*pair).image.astype(int))
    assert 0 < difference.mean() < 3


def test_sixteen_bit_images_are_taken(fuser: Fuser, pair: Pair) -> None:
    visible, infrared = pair
    wide = fuser.fuse(visible.astype(np.uint16) * 257, infrared).image
    assert np.array_equal(wide, fuser.fuse(visible, infrared).image)
    raw = 20_000 + infrared.astype(np.uint16) * 3
    assert fuser.fuse(visible, raw).image.shape == visible.shape


def test_constant_and_read_only_images_are_fused(fuser: Fuser) -> None:
    visible, infrared = np.zeros((32, 40, 3), np.uint8), np.full((32, 40), 255, np.uint8)
    visible.flags.writeable = infrared.flags.writeable = False
    assert fuser.fuse(visible, infrared).image.shape == (32, 40, 3)


def test_provenance_and_timings_say_what_made_the_image(fuser: Fuser, config: FuserConfig, pair: Pair) -> None:
    result = fuser.fuse(*pair)
    assert result.provenance["model"] == "tiny"
    assert len(str(result.provenance["weights"])) == 64
    assert result.provenance["device"] == "cpu"
    parts = [result.timings[name] for name in ("prepare", "encode", "steps", "chroma", "finish")]
    assert all(part > 0 for part in parts)
    assert result.timings["total"] == pytest.approx(sum(parts), rel=1e-6)


@pytest.mark.parametrize(
    ("visible", "infrared"),
    [
        (np.zeros((32, 40), np.uint8), np.zeros((32, 40), np.uint8)),
        (np.zeros((32, 40, 3), np.float32), np.zeros((32, 40), np.uint8)),
        (np.zeros((32, 40, 3), np.uint8), np.zeros((32, 40, 3), np.uint8)),
        (np.zeros((4, 40, 3), np.uint8), np.zeros((4, 40), np.uint8)),
    ],
)
def test_other_types_and_sizes_are_refused(fuser: Fuser, visible: np.ndarray, infrared: np.ndarray) -> None:
    with pytest.raises(ImageError):
        fuser.fuse(visible, infrared)


def test_sizes_that_differ_are_refused_with_both_sizes(fuser: Fuser) -> None:
    with pytest.raises(ImageError, match=r"40 x 32 pixels.*got 48 x 32"):
        fuser.fuse(np.zeros((32, 40, 3), np.uint8), np.zeros((32, 48), np.uint8))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 101}, {"seed": -1}, {"sampler": "euler"}])
def test_settings_out_of_range_are_refused_by_name(fuser: Fuser, pair: Pair, wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        fuser.fuse(*pair, **wrong)


def test_absent_devices_and_models_are_refused(config: FuserConfig) -> None:
    with pytest.raises(ConfigError, match="device"):
        Fuser.from_config(replace(config, device="tpu"))
    with pytest.raises(CheckpointError, match="TEXTDIFUSE_MODELS"):
        Fuser.from_config(replace(config, model="nowhere"))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda"):
            Fuser.from_config(replace(config, device="cuda"))


def test_closed_fuser_says_so(config: FuserConfig, pair: Pair) -> None:
    fuser = Fuser.from_config(config)
    fuser.close()
    with pytest.raises(DeviceError, match="closed"):
        fuser.fuse(*pair)


def test_out_of_memory_is_one_error_and_not_the_end(
    config: FuserConfig, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuser = Fuser.from_config(config)
    encode = LumaNetwork.encode_pair

    def greedy(self: object, visible: torch.Tensor, infrared: torch.Tensor) -> object:
        torch.empty(2**50)  # PyTorch's allocator itself refuses this
        return encode(self, visible, infrared)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(LumaNetwork, "encode_pair", greedy)
        with pytest.raises(DeviceError, match=r"memory of cpu.*70 x 45 pixels"):
            fuser.fuse(*pair)
    assert fuser.fuse(*pair).image.shape == pair[0].shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_gives_nearly_the_image_of_the_cpu(config: FuserConfig, fuser: Fuser, pair: Pair) -> None:
    result = Fuser.from_config(replace(config, device="cuda")).fuse(*pair)
    assert np.abs(result.image.astype(int) - fuser.fuse(*pair).image.astype(int)).max() <= 2
