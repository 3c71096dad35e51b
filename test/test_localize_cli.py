"""``textdifuse locate`` on files and folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from textdifuse_ros.cli.main import main
from textdifuse_ros.image.files import read_infrared, read_png_metadata, read_visible, write_png

REGIONS = "person 4 4 10 16; car 12 6 22 14"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    for number in range(2):
        rng = np.random.default_rng(number)
        write_png(tmp_path / "vis" / f"{number}.png", rng.integers(0, 100, (20, 24, 3), dtype=np.uint8))
        write_png(tmp_path / "ir" / f"{number}.png", rng.integers(0, 65536, (20, 24), dtype=np.uint16))
    return tmp_path / "vis", tmp_path / "ir", tmp_path / "out"


@pytest.fixture
def locate(capfd):
    """Run the verb, by default with the fixed localizer; returns status, stdout and the program's lines on stderr."""

    def run(visible, infrared, output, text, *flags):
        capfd.readouterr()
        arguments = ["locate", visible, infrared, "-o", output, "--text", text]
        status = main([str(item) for item in (*arguments, *(flags or ("--localizer", "fixed", "--regions", REGIONS)))])
        captured = capfd.readouterr()
        return status, captured.out, [line for line in captured.err.splitlines() if line.startswith("textdifuse:")]

    return run


def test_folders_give_labels_overlays_and_one_document(folders, locate) -> None:
    visible, infrared, output = folders
    status, printed, errors = locate(visible, infrared, output, "car:0.5, trees, dog")
    assert (status, errors) == (0, [])
    assert "found 2 car, 0 trees, 0 dog in 2 of 2 pairs" in printed
    assert sorted(path.name for path in output.iterdir()) == [
        "0_labels.png", "0_overlay.png", "1_labels.png", "1_overlay.png", "instances.json",
    ]  # fmt: skip
    expected = np.zeros((20, 24), np.uint8)
    expected[6:14, 12:22] = 1
    assert np.array_equal(read_infrared(output / "0_labels.png"), expected)
    drawn = read_visible(output / "0_overlay.png")
    assert (drawn[6:14, 12:22] != read_visible(visible / "0.png")[6:14, 12:22]).any()
    metadata = json.loads(read_png_metadata(output / "0_labels.png")["textdifuse"])
    assert (metadata["localizer"], metadata["text"]) == ("fixed", "car:0.5, trees, dog")
    document = json.loads((output / "instances.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["0.png", "1.png"]
    assert [category["name"] for category in document["categories"]] == ["car", "trees", "dog"]
    (first, second) = document["annotations"]
    assert first["bbox"] == [12, 6, 10, 8]
    assert (first["image_id"], second["image_id"]) == (1, 2)


def test_no_objects_are_not_an_error(folders, locate) -> None:
    visible, infrared, output = folders
    status, _, errors = locate(visible / "0.png", infrared / "0.png", output, "dog")
    assert (status, errors) == (0, [])
    assert not read_infrared(output / "0_labels.png").any()
    assert json.loads((output / "instances.json").read_text())["annotations"] == []


def test_a_failed_pair_and_a_missing_counterpart_are_reported_and_do_not_stop_the_others(folders, locate) -> None:
    visible, infrared, output = folders
    write_png(infrared / "1.png", np.zeros((30, 30), np.uint8))
    write_png(visible / "2.png", np.zeros((20, 24, 3), np.uint8))
    status, printed, errors = locate(visible, infrared, output, "car")
    assert status == 1
    assert "found 1 car in 1 of 2 pairs" in printed
    assert "1: the infrared image must be as large as the visible one" in errors[0]
    assert "1 visible without an infrared image: 2" in errors[1]
    assert len(json.loads((output / "instances.json").read_text())["images"]) == 1


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("", (), "--text must be at least one phrase"),
        ("car:9", (), "the strength in 'car:9' of --text must be a number in [-1, 2]"),
        ("car", ("--localizer", "fixed"), "regions must be given"),
        ("car", ("--localizer", "detect_segment"), "detector must be a folder with pretrained weights"),
        ("car", ("--localizer", "yolo"), "localizer must be one of builtin"),
        ("car", ("--regions", REGIONS), "--regions must be given with --localizer fixed"),
    ],
)
def test_invalid_arguments_give_one_line_and_write_nothing(folders, locate, text, flags, message) -> None:
    visible, infrared, output = folders
    status, printed, errors = locate(visible, infrared, output, text, *flags)
    assert (status, printed, len(errors)) == (2, "", 1)
    assert message in errors[0]
    assert not output.exists()


def test_an_input_is_not_overwritten(folders, locate) -> None:
    visible, infrared, _ = folders
    status, _, errors = locate(visible, infrared, visible, "car")
    assert status == 2
    assert "another folder than the input" in errors[0]


def test_a_given_label_image_is_not_overwritten(folders, locate) -> None:
    visible, infrared, output = folders
    regions = output / "0_labels.png"
    write_png(regions, np.full((20, 24), 2, np.uint8))
    before = regions.read_bytes()
    flags = ("--localizer", "fixed", "--regions", regions)
    status, _, errors = locate(visible / "0.png", infrared / "0.png", output, "person, car", *flags)
    assert status == 2
    assert "a folder where no input image is overwritten" in errors[0]
    assert regions.read_bytes() == before
