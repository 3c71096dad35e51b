"""``textdifuse evaluate-localizer``: rejected options and valid JSON. Real figures would take minutes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from textdifuse_ros.cli.main import main
from textdifuse_ros.evaluate import localization
from textdifuse_ros.evaluate.localization import Sample


def fail_if_measured(*_: object) -> None:
    pytest.fail("measured")


def test_an_undefined_figure_is_null(monkeypatch, tmp_path, capsys) -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    sample = Sample(black, black[..., 0], [], np.zeros((8, 8), np.uint8))
    monkeypatch.setattr(localization, "camvid_overlaps", lambda *_: {"mean": float("nan")})
    monkeypatch.setattr(localization, "roadscene_samples", lambda *_: iter([Sample(black, black[..., 0], [])]))
    monkeypatch.setattr(localization, "drive_samples", lambda *_: iter([(sample, sample)]))
    monkeypatch.setattr(localization, "find_objects", lambda _, samples, sensors_on: [() for _ in samples])
    line = ["evaluate-localizer", "--data", tmp_path, "--json", tmp_path / "out.json"]
    assert main([str(word) for word in line]) == 0
    report = json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)
    assert report["camvid"] == {"mean": None}
    assert report["objects"]["drive by night, both"]["car"]["recall"] is None
    assert report["pixels"]["drive by day, both"]["car"] is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--threshold", "1.5"], "--threshold must be a number in [0, 1], got 1.5"),
        (["--threshold", "nan"], "--threshold must be a number in [0, 1], got nan"),
        (["--json", "."], "the output . must be a file that can be written, got a folder"),
    ],
)
def test_invalid_options_are_rejected_before_measuring(monkeypatch, tmp_path, capsys, flags, message) -> None:
    monkeypatch.setattr(localization, "camvid_overlaps", fail_if_measured)
    assert main(["evaluate-localizer", "--data", str(tmp_path), *flags]) == 2
    assert message in capsys.readouterr().err
