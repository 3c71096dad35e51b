"""Parameter files: resolved as ROS resolves them, and YAML that is no configuration refused in one bounded line."""

from __future__ import annotations

from pathlib import Path

import pytest

from textdifuse_ros.config.base import FuserConfig, to_mapping
from textdifuse_ros.config.files import load_config
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.config.yaml_text import MAX_BYTES, parse_yaml
from textdifuse_ros.errors import ConfigError, FileError, TextDifuseError
from textdifuse_ros.image.camera import read_camera
from textdifuse_ros.train.run_file import load_run_file

LONGEST_LINE = 1200


def section(name: str, **values: object) -> str:
    return f"{name}:\n  ros__parameters: {{{', '.join(f'{key}: {value}' for key, value in values.items())}}}\n"


def load(folder: Path, *texts: str, node: str = "/fusion_node", warnings: list[str] | None = None) -> FuserConfig:
    paths = []
    for number, text in enumerate(texts):
        paths.append(folder / f"{number}.yaml")
        paths[-1].write_text(text, encoding="utf-8")
    return load_config(FuserConfig, *paths, node=node, warn=(warnings if warnings is not None else []).append)


@pytest.mark.parametrize(
    ("texts", "steps"),
    [
        # Read by rclpy 7.1.6 with the same results.
        ((section("/**", steps=1), section("/**", steps=2)), 2),
        ((section("fusion_node", steps=1), section("/**", steps=2)), 2),
        ((section("/**", steps=1) + section("fusion_node", steps=5), section("/**", steps=2)), 5),
        ((section("fusion_node", steps=5) + section("/**", steps=1), section("fusion_node", steps=2)), 1),
        ((section("fusion_node", steps=3) + section("/*", steps=1),), 1),
        ((section("/fusion_node", steps=3) + section("fusion_node", steps=1),), 1),
        (("steps: 7\n", section("/**", steps=2)), 2),
        ((section("/**", steps=2), "steps: 7\n"), 7),
    ],
)
def test_files_and_sections_add_up_in_the_order_of_ros(texts: tuple[str, ...], steps: int, tmp_path: Path) -> None:
    assert load(tmp_path, *texts).steps == steps


def test_values_of_all_files_count(tmp_path: Path) -> None:
    assert load(tmp_path, section("/**", steps=1, seed=5), section("/**", steps=2)) == FuserConfig(steps=2, seed=5)


@pytest.mark.parametrize(
    "name",
    ["/front/fusion_node", "front/fusion_node", "/*/fusion_node", "/**/fusion_node", "/front/*", "/front/**", "/*/*",
     "/**/front/**", "/**", "'/**/fusion_node'"],
)  # fmt: skip
def test_a_section_is_found_by_namespace_and_wildcards(name: str, tmp_path: Path) -> None:
    other = section("/front/other_node", unknown=1) + section("/rear/other_node", unknown=1)
    assert load(tmp_path, section(name, steps=9) + other, node="/front/fusion_node").steps == 9


@pytest.mark.parametrize("outer", ["/front", "front", "/**", "/*"])
def test_a_section_may_be_nested_in_its_namespace(outer: str, tmp_path: Path) -> None:
    text = f"{outer}:\n  fusion_node:\n    ros__parameters: {{steps: 9}}\n  other:\n    ros__parameters: {{x: 1}}\n"
    assert load(tmp_path, text, node="/front/fusion_node").steps == 9


@pytest.mark.parametrize("name", ["fusion_node", "/fusion_node", "/*", "/rear/fusion_node", "/front/other"])
def test_a_section_for_other_nodes_does_not_count(name: str, tmp_path: Path) -> None:
    text = section("/**", seed=1) + section(name, steps=9)
    assert load(tmp_path, text, node="/front/fusion_node") == FuserConfig(seed=1)


def test_the_same_node_in_another_namespace_is_warned_about(tmp_path: Path) -> None:
    warnings: list[str] = []
    load(tmp_path, section("/**", seed=1) + section("/rear/fusion_node", steps=9), warnings=warnings)
    assert warnings == ["parameters for /rear/fusion_node do not count for /fusion_node"]


def test_files_for_other_nodes_only_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"for /fusion_node, got sections for /camera, /front/fusion_node; name it"):
        load(tmp_path, section("/front/fusion_node", steps=1) + section("camera", fps=3))


def test_what_every_node_declares_is_passed_over(tmp_path: Path) -> None:
    """The form of ``ros2 param dump``."""
    text = """
/fusion_node:
  ros__parameters:
    qos_overrides:
      /parameter_events:
        publisher:
          depth: 1000
          durability: volatile
    start_type_description_service: true
    steps: 2
    use_sim_time: false
"""
    assert load(tmp_path, text).steps == 2


@pytest.mark.parametrize(
    "text",
    [
        section("/**", stepz=2),
        section("fusion_node", stepz=2) + section("camera", fps=3),
        "/fusion_node:\n  ros__parameters:\n    use_sim_time: true\n    stepz: 2\n",
        "stepz: 2\n",
    ],
)
def test_a_misspelt_parameter_of_the_node_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got 'stepz'; did you mean steps"):
        load(tmp_path, text)


def test_the_defaults_written_as_a_parameter_file_are_read(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "dump.yaml"
    content = {"/fusion_node": {"ros__parameters": to_mapping(FusionNodeConfig())}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert load_config(FusionNodeConfig, path, node="/fusion_node") == FusionNodeConfig()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1.5e2", 150.0), ("y", True), ("Off", False), ("12:30", "12:30"), ("2026-01-31", "2026-01-31"),
     ("010", 8), ("0x1f", 31), ("1_000", 1000), (".5", 0.5), ("+3", 3), ("'1'", "1"), (".inf", float("inf"))],
)  # fmt: skip
def test_values_are_read_as_ros_reads_them(text: str, value: object) -> None:
    assert parse_yaml(f"a: {text}", "x.yaml") == {"a": value}


def test_keys_are_text() -> None:
    assert parse_yaml("{1: a, y: b, null: c, 1.5: d}", "x.yaml") == {"1": "a", "y": "b", "null": "c", "1.5": "d"}


def test_merged_mappings_and_aliases_are_read() -> None:
    text = "base: &b {x: 1, y: [2]}\none: {<<: *b, x: 3}\ntwo: {<<: [*b], z: *b}\nagain: *b"
    base = {"x": 1, "y": [2]}
    expected = {"base": base, "one": {"x": 3, "y": [2]}, "two": {**base, "z": base}, "again": base}
    assert parse_yaml(text, "x.yaml") == expected


def multiplied(first: str, again: str, levels: int = 12) -> str:
    """Aliases of aliases: ten times as many values by each level."""
    lines = [f"a0: &a0 {first}"]
    for level in range(1, levels):
        inner = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} {again.format(inner)}")
    return "\n".join(lines)


HOSTILE = {
    "number as key": "1: 2",
    "number as inner key": "steps: {1: 2}",
    "null as key": "null: 1",
    "empty key": ": 1",
    "list as key": "? [a, b]\n: 1",
    "mapping as key": "{a: 1}: 2",
    "truth value as key": "on: 1",
    "date as key": "2026-02-30: 1",
    "impossible date": "model: 2026-02-30",
    "impossible time": "model: 2026-01-01 25:00:00",
    "thousands of digits": f"seed: {'9' * 5000}",
    "hundreds of digits": f"seed: {'9' * 400}",
    "thousands of digits as key": f"{'9' * 5000}: 1",
    "hexadecimal number": f"seed: 0x{'f' * 90_000}",
    "sexagesimal number": f"seed: {'1:' * 90_000}1",
    "deep list": f"model: {'[' * 20_000}",
    "closed deep list": f"model: {'[' * 2000}{']' * 2000}",
    "deep mapping": f"model: {'{a: ' * 2000}",
    "deep blocks": "\n".join(" " * level + "a:" for level in range(500)),
    "deep dashes": "- " * 50_000,
    "lists by aliases": multiplied("[x, x]", "[{}]"),
    "mappings by aliases": multiplied("{x: 1}", "{{p: [{}]}}"),
    "merges by aliases": multiplied("{x: 1}", "{{<<: [{}]}}"),
    "alias in itself": "model: &a [*a]",
    "unknown alias": f"model: *{'a' * 5000}",
    "unknown tag": f"model: !{'a' * 5000} 1",
    "no truth value": "model: !!bool maybe",
    "no number": "steps: !!int x",
    "no date": "model: !!timestamp x",
    "no base64": "model: !!binary '='",
    "python object": "model: !!python/object/apply:os.getcwd []",
    "long text": f"steps: {'x' * 200_000}",
    "long list": f"steps: [{', '.join(['1'] * 50_000)}]",
    "long name": f"{'x' * 900}: 1",
    "two documents": "steps: 1\n---\nsteps: 2",
    "a list": "[1, 2]",
    "a text": "x" * 100_000,
    "control character": "model: \x00",
    "too large": f"model: {'x' * MAX_BYTES}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "read",
    [
        lambda path: load_config(FuserConfig, path),
        load_run_file,
        lambda path: read_camera(path, "the visible camera"),
    ],
    ids=["parameters", "run file", "calibration"],
)
def test_yaml_that_is_no_configuration_is_refused_in_one_bounded_line(read, text: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TextDifuseError) as caught:
        read(path)
    assert len(str(caught.value)) < LONGEST_LINE and "\n" not in str(caught.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(b"model: \xff\xfe")
    with pytest.raises(FileError, match="text in UTF-8"):
        load_config(FuserConfig, path)


def test_the_place_of_an_error_is_told() -> None:
    with pytest.raises(FileError, match="duplicate key b in line 3, column 1"):
        parse_yaml("a: 1\nb: 2\nb: 3\n", "x.yaml")
