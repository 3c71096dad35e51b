"""Whatever a parameter file holds: a configuration, or one typed error of one line, within bounded memory.

Bounded in CI; longer by ``pytest test/test_fuzz_parameters.py --hypothesis-profile fuzz``.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from textdifuse_ros.config.base import parameters, to_mapping
from textdifuse_ros.config.files import load_config
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.config.ros_files import node_parameters
from textdifuse_ros.config.yaml_text import parse_yaml
from textdifuse_ros.errors import TextDifuseError
from textdifuse_ros.image.camera import read_camera
from textdifuse_ros.train.run_file import load_run_file

MAX_MEMORY = 64 << 20  # bytes; of files of a few kilobytes
LONGEST_LINE = 4000

PIECES = st.sampled_from(
    ["a", "steps", "model", "/**", "fusion_node", "ros__parameters", ": ", ":", "\n", "\n  ", "\n- ", "- ", "? ", "[",
    "]",
     "{", "}", ", ", "&x ", "*x", "<<: ", "<<", "!!", "!!int ", "!!binary ", "!!timestamp ", "!!set ", "!!omap ",
     "!!pairs ",
     "!!opencv-matrix", "!", "|", ">", "'",
     '"', "\\x", "#", "%YAML:1.0", "---", "...", "~", "null", "1", "0x", "1e9", ".nan",
     "2026-02-30", "2026-01-31 25:00", "1:2:3", "9" * 400, "data", "camera_matrix", "d", "k", "r", "p", "\t", "\ufeff"]
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(["/**", "/*", "/", "", "*", "**", "fusion_node", "/fusion_node", "/a/fusion_node",
    "ros__parameters",
                     "steps", "a"]),
    st.text(max_size=5),
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates(), st.binary(max_size=5)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


def bounded(read: Callable[[], Any]) -> Any:
    """What a reader returns, or None after a typed error of one bounded line."""
    tracemalloc.start()
    try:
        return read()
    except TextDifuseError as error:
        assert len(str(error)) <= LONGEST_LINE and "\n" not in str(error), error
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MAX_MEMORY


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.yaml"


@given(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(lambda parts: "".join(parts).encode())))
def test_any_bytes_are_read_or_refused_as_every_kind_of_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    bounded(lambda: load_config(FusionNodeConfig, path, node="/fusion_node"))
    bounded(lambda: load_run_file(path))
    bounded(lambda: read_camera(path, "the visible camera"))


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_values_are_read_or_refused(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    bounded(lambda: load_config(FusionNodeConfig, path, node="/fusion_node"))
    bounded(lambda: load_run_file(path))
    bounded(lambda: read_camera(path, "the visible camera"))


@given(st.sampled_from([item.name for item in parameters(FusionNodeConfig)]), VALUES)
def test_any_value_of_a_known_parameter_is_taken_or_refused_by_name(path: Path, name: str, value: Any) -> None:
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": {name: value}}}), encoding="utf-8")
    config = bounded(lambda: load_config(FusionNodeConfig, path, node="/fusion_node"))
    if config is not None:
        path.write_text(yaml.safe_dump(to_mapping(config)), encoding="utf-8")
        assert load_config(FusionNodeConfig, path) == config


@given(st.one_of(st.text(max_size=8), st.lists(PIECES, max_size=4).map("".join)))
def test_quoted_text_is_read_as_it_is(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump({"value": value}, default_style='"'), "x.yaml") == {"value": value}


@given(st.lists(st.sampled_from(["**", "*", "a", "b"]), max_size=8), st.lists(st.sampled_from("ab"), max_size=8))
def test_wildcards_match_as_in_the_pattern_of_rclcpp(pattern: list[str], node: list[str]) -> None:
    import re

    name = "".join(f"/{part}" for part in pattern)
    regex = re.sub(r"/\*", r"(/\\w+)", name)  # "/**" becomes "(/\w+)*", as in rclcpp's parameter_map.cpp
    expected = bool(re.fullmatch(regex, "".join(f"/{part}" for part in node)))
    contents = {"x.yaml": {name: {"ros__parameters": {"steps": 1}}, "/other": {"ros__parameters": {}}}}
    found: list[Any] = []
    bounded(lambda: found.append(node_parameters(contents, "/" + "/".join(node))))
    assert (found == [{"steps": 1}]) == expected
