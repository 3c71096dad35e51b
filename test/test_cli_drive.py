"""``textdifuse drive``: its deprecated flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from textdifuse_ros.cli.main import main

SMALL = ["--frames", "2", "--width", "96", "--height", "64"]


def written(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.glob("*/*.png"))}


def test_the_old_name_of_the_images_flag_still_works_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drive", "-o", str(tmp_path / "new"), "--images", *SMALL]) == 0
    assert "deprecated" not in capsys.readouterr().err
    assert main(["drive", "-o", str(tmp_path / "old"), "--pictures", *SMALL]) == 0
    assert "--pictures is deprecated; use --images" in capsys.readouterr().err
    assert any(name.startswith("vis/") for name in written(tmp_path / "old"))
    assert written(tmp_path / "old") == written(tmp_path / "new")
