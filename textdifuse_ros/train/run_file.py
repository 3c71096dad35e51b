"""Run file: one YAML file for a whole model, with its images, its networks and the parameters of each stage.

    data:                                   # what `train pack` packs
      pairs: [{visible: DIR, infrared: DIR}]
      clean: [DIR]
      folder: DIR                           # roadscene, camvid, bsds500
      harvard: DIR
    pack: images.pack
    runs: runs                              # each stage in a folder of its own below it
    device: auto
    networks: {luma_widths: [48, 96, 192]}  # of new networks
    degradations: road                      # any parameter of a run, for all stages
    luma: {steps: 12000}                    # any parameter or start, for one stage
    control: {start: joined.safetensors, steps: 1200}

Flags override the section of the stage, which overrides the parameters for all stages, which override the defaults.
Relative paths start at the working directory, as those of flags do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textdifuse_ros.config.base import from_mapping, parameters
from textdifuse_ros.config.files import read_mapping
from textdifuse_ros.config.training import STAGES, TrainConfig
from textdifuse_ros.data.pairs import Source, clean_sources, harvard_sources, pair_sources, road_sources
from textdifuse_ros.errors import ConfigError, quote
from textdifuse_ros.networks.drive import DriveConfig


@dataclass(frozen=True)
class Images:
    """Sources of training images.

    :ivar pairs: folders of visible and infrared images
    :ivar clean: folders of clean visible images
    :ivar folder: data folder with public road data sets
    :ivar harvard: data folder with medical pairs
    """

    pairs: tuple[tuple[Path, Path], ...] = ()
    clean: tuple[Path, ...] = ()
    folder: Path | None = None
    harvard: Path | None = None

    def sources(self) -> list[Source]:
        """List all images without reading them.

        :raises ConfigError: no source is given
        :raises FileError: a folder is missing or empty, or an image has no counterpart
        """
        found: list[Source] = []
        for visible, infrared in self.pairs:
            found.extend(pair_sources(visible, infrared))
        for folder in self.clean:
            found.extend(clean_sources(folder))
        if self.folder:
            found.extend(road_sources(self.folder))
        if self.harvard:
            found.extend(harvard_sources(self.harvard))
        if not found:
            named = "given by DATA, --pairs, --clean or --harvard, or under data in --config"
            raise ConfigError("the images to pack", named, "none")
        return found


@dataclass(frozen=True)
class RunFile:
    """Content of a run file; the defaults apply where there is no file.

    :ivar images: sources of the pack
    :ivar pack: path of the image pack
    :ivar runs: folder of the run folders, one per stage
    :ivar device: where to train
    :ivar networks: sizes of new networks
    :ivar starts: checkpoint to start from, by stage
    :ivar common: plain values for all stages
    :ivar stages: plain values by stage
    """

    images: Images = field(default_factory=Images)
    pack: Path | None = None
    runs: Path | None = None
    device: str = "auto"
    networks: DriveConfig | None = None
    starts: Mapping[str, Path] = field(default_factory=dict)
    common: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def config(self, stage: str, flags: Mapping[str, Any]) -> TrainConfig:
        """Merge the parameters of a stage.

        :param stage: name of the stage
        :param flags: plain values given on the command line
        :raises ConfigError: names the parameter
        """
        values = {**_with_floats(self.common), **_with_floats(self.stages.get(stage, {})), **flags, "stage": stage}
        return from_mapping(TrainConfig, values, "the configuration of the run")


def load_run_file(path: Path) -> RunFile:
    """Read a run file and check all its stages.

    :param path: of the file
    :raises FileError: missing, or not YAML
    :raises ConfigError: an unknown name, or an invalid value
    """
    content = read_mapping(path)
    names = {item.name for item in parameters(TrainConfig)} - {"stage"}
    known = {"data", "pack", "runs", "device", "networks", *STAGES, *names}
    for name in content:
        if name not in known:
            raise ConfigError(f"a key in {path}", f"one of {', '.join(sorted(known))}", quote(name))
    stages, starts = {}, {}
    for stage in STAGES:
        section = _mapping(content, stage)
        start = _path(section.pop("start", None), f"{stage}: start")
        if start:
            starts[stage] = start
        if "stage" in section:
            raise ConfigError(f"a parameter in {stage} of {path}", "another than stage", "stage")
        stages[stage] = section
    device = content.get("device", "auto")
    if not isinstance(device, str):
        raise ConfigError("device", "text", quote(device))
    networks = from_mapping(DriveConfig, _mapping(content, "networks"), str(path)) if "networks" in content else None
    file = RunFile(
        _images(_mapping(content, "data"), path),
        _path(content.get("pack"), "pack"),
        _path(content.get("runs"), "runs"),
        device,
        networks,
        starts,
        {name: value for name, value in content.items() if name in names},
        stages,
    )
    for stage in STAGES:
        file.config(stage, {})
    return file


def _images(data: dict[str, Any], path: Path) -> Images:
    known = ("pairs", "clean", "folder", "harvard")
    for name in data:
        if name not in known:
            raise ConfigError(f"a key in data of {path}", f"one of {', '.join(known)}", quote(name))
    pairs = []
    for pair in _list(data, "pairs"):
        if not isinstance(pair, dict) or set(pair) != {"visible", "infrared"}:
            raise ConfigError("data: pairs", "a list of {visible: DIR, infrared: DIR}", quote(pair))
        both = [_path(pair[name], f"data: pairs: {name}") for name in ("visible", "infrared")]
        if not both[0] or not both[1]:
            raise ConfigError("data: pairs", "two folders each", quote(pair))
        pairs.append((both[0], both[1]))
    clean = [_path(folder, "data: clean") for folder in _list(data, "clean")]
    folder, harvard = _path(data.get("folder"), "data: folder"), _path(data.get("harvard"), "data: harvard")
    return Images(tuple(pairs), tuple(item for item in clean if item), folder, harvard)


def _with_floats(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert text to float where a float is expected: YAML 1.1 reads 1e-3 as text, and 1.0e-3 as a number."""
    floats = {item.name for item in parameters(TrainConfig) if item.type is float}
    found = dict(values)
    for name, value in values.items():
        if name in floats and isinstance(value, str):
            with contextlib.suppress(ValueError):
                found[name] = float(value)
    return found


def _mapping(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    if value is not None and not isinstance(value, dict):
        raise ConfigError(name, "a mapping", f"{quote(value)} ({type(value).__name__})")
    return dict(value or {})


def _list(content: Mapping[str, Any], name: str) -> list[Any]:
    value = content.get(name)
    if value is not None and not isinstance(value, list):
        raise ConfigError(f"data: {name}", "a list", f"{quote(value)} ({type(value).__name__})")
    return value or []


def _path(value: object, name: str) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ConfigError(name, "a path", quote(value))
    return Path(value)
