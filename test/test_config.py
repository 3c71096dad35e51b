"""Configuration dataclasses, files and flags."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments, from_mapping, parameters, to_mapping
from textdifuse_ros.config.files import load_config
from textdifuse_ros.config.localizer import LocalizerConfig, TrackingConfig
from textdifuse_ros.config.nodes import FusionNodeConfig, PlayerConfig, RecorderConfig
from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.errors import ConfigError, FileError
from textdifuse_ros.networks.drive import DriveConfig

KINDS = [
    FuserConfig,
    DriveConfig,
    TrainConfig,
    LocalizerConfig,
    TrackingConfig,
    FusionNodeConfig,
    PlayerConfig,
    RecorderConfig,
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_help_text_and_a_valid_default(kind: type) -> None:
    for item in parameters(kind):
        assert item.help.endswith("."), item.name
        if item.default is not None:
            item.check(item.default)


def test_unknown_names_are_rejected_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean sampler"):
        from_mapping(FuserConfig, {"smapler": "ddim"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, r"steps must be an integer in \[1, 100\], got 0"),
        ({"steps": 2.5}, "steps must be an integer"),
        ({"steps": True}, "steps must be an integer"),
        ({"steps": "4"}, "steps must be an integer"),
        ({"sampler": "euler"}, "sampler must be one of ancestral, ddim, dpm_solver"),
        ({"model": 3}, "model must be text"),
    ],
)
def test_invalid_values_are_rejected_by_name(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(FuserConfig, values)


def test_lists_are_converted_to_tuples_and_back() -> None:
    config = from_mapping(DriveConfig, {"luma_widths": [16, 32, 64]})
    assert config.luma_widths == (16, 32, 64)
    assert from_mapping(DriveConfig, to_mapping(config)) == config
    with pytest.raises(ConfigError, match="luma_widths"):
        from_mapping(DriveConfig, {"luma_widths": [16, "x"]})
    with pytest.raises(ConfigError, match="luma_widths must be a list"):
        from_mapping(DriveConfig, {"luma_widths": 48})


def test_flags_are_derived_from_the_fields() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, FuserConfig)
    arguments = parser.parse_args(["--steps", "2", "--sampler", "ancestral"])
    assert from_arguments(FuserConfig, arguments) == FuserConfig(steps=2, sampler="ancestral")
    assert from_arguments(FuserConfig, parser.parse_args([])) == FuserConfig()
    with pytest.raises(ConfigError, match="steps"):
        from_arguments(FuserConfig, parser.parse_args(["--steps", "0"]))


def test_plain_yaml_and_ros_parameter_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "fuser.yaml"
    path.write_text("steps: 2\n", encoding="utf-8")
    assert load_config(FuserConfig, path) == FuserConfig(steps=2)
    path.write_text("fusion_node:\n  ros__parameters:\n    steps: 1\n", encoding="utf-8")
    assert load_config(FuserConfig, path) == FuserConfig(steps=1)
    path.write_text("", encoding="utf-8")
    assert load_config(FuserConfig, path) == FuserConfig()


def test_invalid_yaml_is_rejected_with_the_file_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    with pytest.raises(FileError, match=r"bad\.yaml"):
        load_config(FuserConfig, path)
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(FileError, match="YAML"):
        load_config(FuserConfig, path)
    path.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="mapping"):
        load_config(FuserConfig, path)
    path.write_text("steps: 1\nseed: 3\nsteps: 2\n", encoding="utf-8")
    with pytest.raises(FileError, match="duplicate key steps"):
        load_config(FuserConfig, path)
    path.write_text("stepz: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean steps"):
        load_config(FuserConfig, path)
