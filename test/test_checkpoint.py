"""Checkpoints: strict, self-describing, and protected against damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from textdifuse_ros.checkpoint import average_checkpoints, find_checkpoint, load_checkpoint, save_checkpoint
from textdifuse_ros.errors import CheckpointError, ConfigError
from textdifuse_ros.fusion.weights import KIND, load_networks

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "weights.safetensors"
    save_checkpoint(path, "thing", {"width": [1, 2]}, TENSORS, {"by": "test"})
    return path


def test_a_saved_checkpoint_is_loaded_unchanged(saved: Path) -> None:
    checkpoint = load_checkpoint(saved, "thing")
    assert checkpoint.config == {"width": [1, 2]}
    assert checkpoint.provenance == {"by": "test"}
    assert set(checkpoint.tensors) == {"a", "b"}
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.tensors[name], tensor) and checkpoint.tensors[name].dtype == tensor.dtype
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    assert saved.stat().st_mode & 0o777 == 0o644


def test_an_average_has_the_mean_weights_and_names_its_sources(saved: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other.safetensors", tmp_path / "mean.safetensors"
    tensors = {"a": TENSORS["a"] + 4, "b": TENSORS["b"] * 3, "n": torch.tensor(7)}
    first = tmp_path / "first.safetensors"
    save_checkpoint(first, "thing", {"width": [1, 2]}, {**TENSORS, "n": torch.tensor(5)}, {"history": [{"stage": "x"}]})
    save_checkpoint(other, "thing", {"width": [1, 2]}, tensors, {"history": [{"stage": "y"}], "version": "1"})
    average_checkpoints([first, other], [3, 1], out)
    mean = load_checkpoint(out, "thing")
    assert torch.equal(mean.tensors["a"], TENSORS["a"] + 1) and int(mean.tensors["n"]) == 7
    assert mean.tensors["b"].dtype == torch.float16 and torch.equal(mean.tensors["b"], torch.full((4,), 1.5).half())
    entry = {"stage": "average", "of": [load_checkpoint(path).sha256 for path in (first, other)], "shares": [3, 1]}
    assert mean.provenance == {"history": [{"stage": "y"}, entry], "version": "1"}
    halves = {"a": torch.rand(5000, generator=torch.Generator().manual_seed(0)).half()}
    save_checkpoint(first, "thing", {}, halves, {})
    average_checkpoints([first] * 3, [1, 1, 1], out)
    assert torch.equal(load_checkpoint(out).tensors["a"], halves["a"]), (
        "the sum must have more precision than the weights"
    )
    save_checkpoint(first, "thing", {"width": [1, 2]}, TENSORS, {})
    with pytest.raises(CheckpointError, match="of the same kind and configuration"):
        average_checkpoints([saved, other], [1, 1], out)
    for paths, shares in (([first], [1.0]), ([first, other], [1.0]), ([first, other], [1.0, 0.0]),
                          ([first, other], [1.0, float("inf")])):  # fmt: skip
        with pytest.raises(ConfigError):
            average_checkpoints(paths, shares, out)


def test_every_flipped_bit_is_detected(saved: Path) -> None:
    """Anywhere in the file: never different weights, never another exception than CheckpointError."""
    content = saved.read_bytes()
    good = load_checkpoint(saved, "thing")
    for place in range(len(content)):
        for bit in range(8):
            broken = bytearray(content)
            broken[place] ^= 1 << bit
            saved.write_bytes(broken)
            try:
                checkpoint = load_checkpoint(saved, "thing")
            except CheckpointError:
                continue
            # Only a bit without meaning (in the header's padding) may pass.
            assert (checkpoint.config, checkpoint.provenance) == (good.config, good.provenance)
            assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_truncated_missing_and_foreign_files_are_rejected(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: len(content) - 3])
    with pytest.raises(CheckpointError):
        load_checkpoint(saved, "thing")
    saved.write_bytes(b"PK\x03\x04 no weights")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_checkpoint(saved, "thing")
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "absent.safetensors", "thing")
    save_file(TENSORS, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="format"):
        load_checkpoint(tmp_path / "foreign.safetensors", "thing")


def test_another_kind_or_version_is_rejected(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="kind 'other', got 'thing'"):
        load_checkpoint(saved, "other")
    from safetensors import safe_open

    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(saved), saved, {**metadata, "version": "99"})
    with pytest.raises(CheckpointError, match="version 1, got 99"):
        load_checkpoint(saved, "thing")


def test_weights_that_do_not_match_their_configuration_are_rejected(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint, KIND)
    path = tmp_path / "odd.safetensors"

    def refused(config: dict, tensors: dict) -> str:
        save_checkpoint(path, KIND, config, tensors, {})
        with pytest.raises(CheckpointError) as caught:
            load_networks(path)
        return str(caught.value)

    fewer = dict(list(checkpoint.tensors.items())[1:])
    assert "Missing key" in refused(checkpoint.config, fewer)
    assert "Unexpected key" in refused(checkpoint.config, {**checkpoint.tensors, "more": torch.ones(1)})
    assert "size mismatch" in refused({**checkpoint.config, "luma_widths": [16, 16, 32]}, checkpoint.tensors)
    assert "3 integers" in refused({**checkpoint.config, "luma_blocks": [1, 1]}, checkpoint.tensors)
    assert "widht" in refused({**checkpoint.config, "widht": 3}, checkpoint.tensors)
    assert "family" in refused({**checkpoint.config, "family": "unknown"}, checkpoint.tensors)


def test_names_are_searched_in_the_documented_order(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Explicit path, TEXTDIFUSE_MODELS, models/ beside the checkout, the prefix's share folder."""
    package = tmp_path / "prefix" / "lib" / "python3" / "site-packages" / "textdifuse_ros"
    package.mkdir(parents=True)
    monkeypatch.setattr("textdifuse_ros.checkpoint.__file__", str(package / "checkpoint.py"))
    beside = package.parent / "models"
    share = tmp_path / "prefix" / "share" / "textdifuse_ros" / "models"
    named = tmp_path / "named"
    monkeypatch.setenv("TEXTDIFUSE_MODELS", str(named))
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("thing")
    for folder in (share, beside, named):
        assert str(folder) in str(caught.value)
        folder.mkdir(parents=True)
        (folder / "thing.safetensors").write_bytes(saved.read_bytes())
        # Each folder takes precedence over those created so far.
        assert find_checkpoint("thing") == folder / "thing.safetensors"
    assert find_checkpoint(saved) == saved
    with pytest.raises(CheckpointError, match="no such file"):
        find_checkpoint(tmp_path / "thing.safetensors")


def test_metadata_is_plain_json(tiny_checkpoint: Path) -> None:
    from safetensors import safe_open

    with safe_open(tiny_checkpoint, "np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "textdifuse_ros" and metadata["kind"] == KIND
    assert json.loads(metadata["config"])["family"] == "drive"
