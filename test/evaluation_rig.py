"""Two folders of generated pairs, and fixtures that run ``textdifuse evaluate`` on them; a pytest plugin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from textdifuse_ros.cli.main import main
from textdifuse_ros.evaluate.controls import CONTROLS
from textdifuse_ros.image.files import read_infrared, read_visible, write_png

CLEAN_KEYS = [
    "EN",
    "AG",
    "SD",
    "SCD",
    "VIF",
    "VIF_visible",
    "VIF_infrared",
    "VIF_min",
    "Qabf",
    "SSIM",
    "SSIM_day",
    "MI",
    "FMI",
    "Qncie",
    "Qcv",
    "dE00",
]


def scene(number: int, height: int = 60, width: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Create a structured visible and infrared image, different for every number."""
    y, x = np.mgrid[:height, :width]
    ground = 70 + 50 * np.sin(x / 11 + number) * np.cos(y / 9) + 30 * ((x // 20 + y // 15 + number) % 2)
    visible = np.stack((ground, 0.9 * ground, 0.7 * ground + 15), 2)
    person = np.abs(x - 20 - 4 * number) + np.abs(y - 30) < 9
    infrared = 60 + 40 * np.cos(y / 13 + number) + 110 * person
    rough = np.random.default_rng(number).normal(0, 2, (height, width))
    visible, infrared = visible + rough[..., None], infrared + rough
    return np.clip(visible, 0, 255).astype(np.uint8), np.clip(infrared, 0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    for number in range(3):
        visible, infrared = scene(number)
        write_png(tmp_path / "vis" / f"{number}.png", visible)
        write_png(tmp_path / "ir" / f"{number}.png", infrared)
    return tmp_path / "vis", tmp_path / "ir"


@pytest.fixture
def evaluate(folders, tmp_path, capfd):
    """Run the verb on the folders in this process; returns its JSON."""

    def run(*flags, visible=folders[0], infrared=folders[1], jobs=1) -> dict:
        file = tmp_path / "out.json"
        line = ["evaluate", "--visible", visible, "--infrared", infrared, "--jobs", jobs, "--json", file, *flags]
        status = main([str(argument) for argument in line])
        assert status == 0, capfd.readouterr().err
        return json.loads(file.read_text())

    return run


@pytest.fixture
def refused(folders, capfd):
    """Run the verb on invalid input; returns its one line on stderr (below the progress bar)."""

    def run(*flags, visible=folders[0], infrared=folders[1]) -> str:
        inputs = ["--visible", visible, "--infrared", infrared] if visible else []
        jobs = [] if "--jobs" in flags else ["--jobs", 1]
        assert main([str(part) for part in ("evaluate", *inputs, *jobs, *flags)]) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        lines = [line for line in captured.err.splitlines() if line.startswith("textdifuse: ")]
        assert len(lines) == 1
        return lines[0]

    return run


def save_row(folder: Path, control: str, folders: tuple[Path, Path]) -> Path:
    """Save the images of a control as the results of a method."""
    for path in folders[0].iterdir():
        fused = CONTROLS[control](read_visible(path), read_infrared(folders[1] / path.name))
        write_png(folder / path.name, fused)
    return folder
