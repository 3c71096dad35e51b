"""Checkpoints whose digest is right and whose content is not: refused, and before memory is taken."""

from __future__ import annotations

import json
import resource
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from textdifuse_ros.checkpoint import load_checkpoint, save_checkpoint
from textdifuse_ros.cli.main import main
from textdifuse_ros.errors import CheckpointError
from textdifuse_ros.fusion.weights import KIND, load_networks
from textdifuse_ros.localize.builtin import BuiltinLocalizer
from textdifuse_ros.localize.weights import KIND as LOCALIZER_KIND
from textdifuse_ros.localize.weights import load_localizer, save_localizer
from textdifuse_ros.networks.localizer import LocalizerNetwork, LocalizerNetworkConfig

HUGE = [1024, 1024, 1024]
MANY = [16, 16, 16]
NOT_FINITE = {
    "NaN": (float("nan"), torch.float16),
    "infinity": (float("inf"), torch.float32),
    "negative infinity": (float("-inf"), torch.bfloat16),
    "finite as float64 only": (1e300, torch.float64),
    "finite as float32, not as bfloat16": (3.4e38, torch.float32),
}


@pytest.fixture
def tiny_localizer(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "locate.safetensors"
    save_localizer(path, LocalizerNetwork(LocalizerNetworkConfig(widths=(8, 8, 8), blocks=(1, 1, 1), neck=8)), {})
    return path


def changed(path: Path, target: Path, config: Any = None, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A checkpoint with another configuration or other tensors, and the right digest."""
    good = load_checkpoint(path)
    save_checkpoint(target, good.kind, good.config if config is None else config, tensors or good.tensors, {})
    return target


@pytest.mark.parametrize(("value", "dtype"), NOT_FINITE.values(), ids=NOT_FINITE)
def test_one_bad_number_among_millions_is_refused(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    weights = torch.zeros(2_000_000, dtype=dtype)
    weights[1_234_567] = value
    save_checkpoint(tmp_path / "x.safetensors", "thing", {}, {"good": torch.ones(3), "bad": weights}, {})
    with pytest.raises(CheckpointError, match=r"finite weights, got .* in bad \(1 of 2000000\)"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_the_largest_numbers_of_use_and_integers_are_read(tmp_path: Path) -> None:
    tensors = {
        "a": torch.tensor([3.38e38, -3.38e38, 1e-45]),
        "b": torch.tensor([2**62]),
        "c": torch.tensor([65504.0], dtype=torch.float16),
        "d": torch.zeros(0),
    }
    save_checkpoint(tmp_path / "x.safetensors", "thing", {}, tensors, {})
    assert set(load_checkpoint(tmp_path / "x.safetensors").tensors) == set(tensors)


@pytest.mark.parametrize(("value", "dtype"), NOT_FINITE.values(), ids=NOT_FINITE)
def test_every_part_of_the_networks_is_checked(
    value: float, dtype: torch.dtype, tiny_text_checkpoint: Path, tmp_path: Path
) -> None:
    tensors = load_checkpoint(tiny_text_checkpoint).tensors
    for name in (min(tensors), max(tensors)):
        bad = tensors[name].to(dtype, copy=True)
        bad.view(-1)[-1] = value
        path = changed(tiny_text_checkpoint, tmp_path / "x.safetensors", tensors={**tensors, name: bad})
        with pytest.raises(CheckpointError, match=f"finite weights, got .* in {name}"):
            load_networks(path)


@pytest.mark.parametrize(("value", "dtype"), NOT_FINITE.values(), ids=NOT_FINITE)
def test_the_localizer_is_checked(value: float, dtype: torch.dtype, tiny_localizer: Path) -> None:
    tensors = load_checkpoint(tiny_localizer).tensors
    name = max(name for name, tensor in tensors.items() if tensor.is_floating_point())
    bad = tensors[name].to(dtype, copy=True)
    bad.view(-1)[0] = value
    changed(tiny_localizer, tiny_localizer, tensors={**tensors, name: bad})
    with pytest.raises(CheckpointError, match="finite weights"):
        BuiltinLocalizer(tiny_localizer)


def test_weights_that_are_finite_only_until_they_are_folded_are_refused(tiny_localizer: Path) -> None:
    tensors = load_checkpoint(tiny_localizer).tensors
    name = next(name for name in tensors if name.endswith("running_var"))
    changed(tiny_localizer, tiny_localizer, tensors={**tensors, name: -tensors[name] - 1})
    with pytest.raises(CheckpointError, match="finite weights"):
        BuiltinLocalizer(tiny_localizer)


def test_the_command_line_says_that_the_weights_are_not_finite(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {name: tensor * float("nan") for name, tensor in load_checkpoint(tiny_checkpoint).tensors.items()}
    path = changed(tiny_checkpoint, tmp_path / "x.safetensors", tensors=tensors)
    assert main(["info", "--model", str(path)]) == 2
    error = capsys.readouterr().err
    assert "finite weights" in error and error.count("\n") == 1 and len(error) < 600


@pytest.mark.parametrize("config", [[], ["family"], "drive", 3, None, True, [[1]]])
@pytest.mark.parametrize("kind", ["fusion", "localizer"])
def test_a_configuration_that_is_no_mapping_is_refused(
    config: Any, kind: str, tiny_checkpoint: Path, tiny_localizer: Path, tmp_path: Path
) -> None:
    path, load = {"fusion": (tiny_checkpoint, load_networks), "localizer": (tiny_localizer, load_localizer)}[kind]
    target = tmp_path / "x.safetensors"
    good = load_checkpoint(path)
    save_checkpoint(target, good.kind, config, good.tensors, {})
    with pytest.raises(CheckpointError, match=r"config of .* must be a mapping, got"):
        load(target)


@pytest.mark.parametrize(
    "values",
    [
        {"family": ["drive"]}, {"family": {}}, {"family": None}, {"family": "x" * 100_000}, {"luma_widths": "abc"},
        {"luma_widths": {}}, {"luma_widths": [float("nan")] * 3}, {"luma_widths": [10**400] * 3}, {"timesteps": 1e400},
        {"luma_widths": [[16]] * 3}, {"": 1}, {"x" * 100_000: 1}, {"luma_blocks": [1]}, {"schedule": ["cosine"]},
    ],
    ids=str,
)  # fmt: skip
def test_odd_values_are_refused_in_one_line(values: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path) -> None:
    good = load_checkpoint(tiny_checkpoint)
    path = changed(tiny_checkpoint, tmp_path / "x.safetensors", config={**good.config, **values})
    with pytest.raises(CheckpointError) as caught:
        load_networks(path)
    assert len(str(caught.value)) < 1500 and "\n" not in str(caught.value)


@pytest.mark.parametrize("provenance", [[], "x", 3, None])
def test_a_provenance_that_is_no_mapping_is_refused(provenance: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", "thing", {}, {"a": torch.ones(1)}, provenance)
    with pytest.raises(CheckpointError, match=r"provenance of .* must be a mapping"):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{", '{"a": ' * 50_000, ""])
def test_metadata_that_cannot_be_parsed_are_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textdifuse_ros.checkpoint.json.dumps", lambda value, **options: text)
    save_checkpoint(tmp_path / "x.safetensors", "thing", {}, {"a": torch.ones(1)}, {})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "x.safetensors")
    assert len(str(caught.value)) < 1500


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def huge(path: Path, target: Path) -> Path:
    """A file of the tensors of one checkpoint, and the configuration of networks of ten gigabytes."""
    sizes = ("luma_widths", "chroma_widths"), ("luma_blocks", "luma_decoder_blocks", "chroma_blocks")
    config = {**load_checkpoint(path).config, **dict.fromkeys(sizes[0], HUGE), **dict.fromkeys(sizes[1], MANY)}
    return changed(path, target, config=config)


def test_networks_of_any_size_are_compared_with_their_tensors_before_they_take_memory(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = huge(tiny_checkpoint, tmp_path / "x.safetensors")
    before = peak_megabytes()
    with pytest.raises(CheckpointError, match=r"fit their own configuration, got .*size mismatch|Missing key"):
        load_networks(path)
    assert peak_megabytes() - before < 500


def test_a_localizer_of_any_size_is_compared_with_its_tensors_before_it_takes_memory(tiny_localizer: Path) -> None:
    changed(tiny_localizer, tiny_localizer, config={"widths": [512] * 3, "blocks": MANY, "neck": 512})
    before = peak_megabytes()
    with pytest.raises(CheckpointError, match="fit their own configuration"):
        load_localizer(tiny_localizer)
    assert peak_megabytes() - before < 300


@pytest.mark.parametrize(("kind", "load"), [(KIND, load_networks), (LOCALIZER_KIND, load_localizer)])
def test_tensors_that_do_not_fit_are_not_read(kind: str, load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A sparse file that claims, and has, eight gigabytes."""
    size = 8 * 2**30
    config = {"family": "drive"} if kind == KIND else {}
    metadata = {"format": "textdifuse_ros", "version": "1", "kind": kind, "config": json.dumps(config)}
    metadata |= {"provenance": "{}", "sha256": "0" * 64}
    header = {"__metadata__": metadata, "big": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)
    before = peak_megabytes()
    with pytest.raises(CheckpointError, match="fit their own configuration"):
        load(path)
    assert peak_megabytes() - before < 300
