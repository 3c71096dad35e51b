"""The verbs that describe and time a model."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from textdifuse_ros.checkpoint import average_checkpoints, load_checkpoint
from textdifuse_ros.cli.info import example_strengths
from textdifuse_ros.cli.main import main
from textdifuse_ros.fusion.device import keep_memory, resolve_precision


def test_info_shows_size_cost_and_provenance(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--model", str(tiny_checkpoint), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"]["total"] == report["parameters"]["luma"] + report["parameters"]["chroma"] > 10_000
    assert report["size"] == [640, 480]
    assert set(report["gflops"]) == {"1", "2", "4"}
    for cost in report["gflops"].values():
        assert cost["total"] == pytest.approx(cost["luma"] + cost["chroma"], abs=0.02)
    assert report["gflops"]["1"]["total"] < report["gflops"]["4"]["total"]
    assert report["config"]["luma_widths"] == [16, 16, 16]
    assert len(report["sha256"]) == 64
    assert main(["info", "--model", str(tiny_checkpoint)]) == 0
    table = capsys.readouterr().out
    assert report["sha256"] in table and f"{report['gflops']['4']['total']:.1f}" in table


def test_info_shows_the_parts_of_an_average(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    average_checkpoints([tiny_checkpoint] * 2, [1, 3], tmp_path / "mean.safetensors")
    assert main(["info", "--model", str(tmp_path / "mean.safetensors")]) == 0
    digest = load_checkpoint(tiny_checkpoint).sha256[:12]
    assert f"  average: 1 of {digest}, 3 of {digest}" in capsys.readouterr().out


def test_info_shows_the_cost_of_a_text_if_the_model_supports_one(
    tiny_checkpoint: Path, tiny_text_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(path: Path) -> dict[str, float]:
        assert main(["info", "--model", str(path), "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out)["text_gflops"])

    assert report(tiny_checkpoint) == {}
    added = report(tiny_text_checkpoint)
    assert main(["info", "--model", str(tiny_checkpoint)]) == 0
    assert ", text " not in capsys.readouterr().out
    assert main(["info", "--model", str(tiny_text_checkpoint)]) == 0
    assert ", text 0.0" in capsys.readouterr().out, "parameters of the modulation"
    assert 0 < added["1"] < added["2"] < added["4"]
    assert added["4"] - added["2"] == pytest.approx(2 * (added["2"] - added["1"]), abs=0.04)  # rounded


@pytest.mark.parametrize("size", ["640", "7x9", "²0x20", "640x480x3", "9" * 5000 + "x8"])
def test_info_rejects_an_invalid_size(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    assert main(["info", "--model", str(tiny_checkpoint), "--size", size]) == 2
    assert "WIDTHxHEIGHT" in capsys.readouterr().err


@pytest.mark.parametrize("text", [False, True])
def test_benchmark_times_steps_a_yardstick_and_a_text_if_the_model_supports_one(
    tiny_checkpoint: Path, tiny_text_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bool
) -> None:
    model = tiny_text_checkpoint if text else tiny_checkpoint
    words = ["benchmark", "--model", model, "--device", "cpu", "--size", "128x96", "--rounds", 1, "--objects", 2]
    assert main([str(word) for word in [*words, "--json", tmp_path / "times.json"]]) == 0
    report = json.loads((tmp_path / "times.json").read_text(encoding="utf-8"))
    assert set(report["seconds"]) == {
        *("1 step", "2 steps", "4 steps", "video state", "yardstick"),
        *(("1 with text", "4 with text") if text else ()),
    }
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert report["ratio"]["yardstick"] == 1
    assert report["objects"] == 2
    parts = report["parts of one step"]
    assert parts["total"] == pytest.approx(sum(parts.values()) - parts["total"], abs=5e-4)
    assert report["allocator"] == keep_memory()
    assert "yardstick" in capsys.readouterr().out


def test_benchmark_skips_the_video_state_for_small_images(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", "--model", tiny_checkpoint, "--device", "cpu", "--size", "128x63", "--rounds", 1]
    assert main([str(word) for word in [*words, "--json", tmp_path / "times.json"]]) == 0
    assert "video state" not in json.loads((tmp_path / "times.json").read_text(encoding="utf-8"))["seconds"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rounds", "0"], "--rounds must be an integer of at least 1, got 0"),
        (["--objects", "-3"], "--objects must be an integer in [1, 100], got -3"),
        (["--json", "."], "the output . must be a file that can be written, got a folder"),
    ],
)
def test_benchmark_rejects_invalid_options_before_timing(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["benchmark", "--model", str(tiny_checkpoint), "--device", "cpu", *flags]) == 2
    assert message in capsys.readouterr().err


def test_automatic_precision_is_the_native_one_of_the_processor() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    native = any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
    expected = torch.bfloat16 if native else torch.float32
    assert resolve_precision("auto", torch.device("cpu")) == expected
    assert resolve_precision("float32", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize("objects", [1, 4, 30])
def test_the_example_objects_cover_a_tenth_of_the_image(objects: int) -> None:
    strengths = example_strengths(480, 640, objects)
    assert (strengths > 0).mean() == pytest.approx(0.1, rel=0.05)
    assert cv2.connectedComponents((strengths > 0).astype(np.uint8))[0] - 1 == objects
