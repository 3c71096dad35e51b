"""The output folder of demo and endurance: a run removes only results of earlier runs, and only when it starts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.cli import demo, endurance
from textdifuse_ros.cli.main import main
from textdifuse_ros.demo.launch import launch
from textdifuse_ros.demo.output import MARKER, claim_output
from textdifuse_ros.demo.plans import RunPlan
from textdifuse_ros.errors import FileError, InputError

needs_ros = pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="rclpy is not installed")
RESULTS = ("logs", "input_bag", "summary.json")


def fill(output: Path, names: tuple[str, ...] = RESULTS) -> None:
    for name in names:
        if "." in name:
            (output / name).write_text("mine")
        else:
            (output / name).mkdir()
            (output / name / f"{name}.json").write_text("mine")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_results_of_an_earlier_run_are_removed_and_other_files_kept(tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    claim_output(output, RESULTS)
    fill(output)
    (output / "mine.txt").write_text("mine")
    claim_output(output, RESULTS)
    assert sorted(path.name for path in output.iterdir()) == [MARKER, "mine.txt"]


def test_files_that_no_run_wrote_are_not_removed(tmp_path: Path) -> None:
    fill(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(FileError, match=r"one with logs, input_bag, summary\.json, which no run .*; give another"):
        claim_output(tmp_path, RESULTS)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("place", ["logs/photos", "input_bag/photos", "logs/ros/photos", "logs/mine.txt"])
def test_what_others_have_put_into_a_folder_of_results_is_refused_and_stays(tmp_path: Path, place: str) -> None:
    claim_output(tmp_path, RESULTS)
    fill(tmp_path)
    path = tmp_path / place if "." in place else tmp_path / place / "keep.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(FileError, match=f"one with .*{place}, which no run has written; give another"):
        claim_output(tmp_path, RESULTS)
    assert contents(tmp_path) == before


def test_the_mark_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out" / MARKER).symlink_to(tmp_path / "mine.txt")
    with pytest.raises(FileError, match="no symbolic link"):
        claim_output(tmp_path / "out", RESULTS)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_each_verb_owns_only_its_own_results(tmp_path: Path) -> None:
    claim_output(tmp_path, ("endurance.json", "input_bag", "logs"))
    fill(tmp_path)
    with pytest.raises(FileError, match=r"one with summary\.json, which"):
        claim_output(tmp_path, RESULTS)
    (tmp_path / "summary.json").unlink()
    claim_output(tmp_path, RESULTS)
    assert set((tmp_path / MARKER).read_text().split()) == {*RESULTS, "endurance.json"}


def test_only_the_link_is_removed_not_its_target(tmp_path: Path) -> None:
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    claim_output(output, RESULTS)
    (output / "logs").symlink_to(elsewhere)
    (output / "input_bag").symlink_to(tmp_path / "absent")
    claim_output(output, RESULTS)
    assert contents(elsewhere) == {"mine.txt": "mine"}
    assert [path.name for path in output.iterdir()] == [MARKER]


@pytest.mark.parametrize("given", ["out/input_bag", "out/../out/logs/drive", "link", "here/vis"])
def test_an_input_within_the_results_to_remove_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    output = Path("out")
    claim_output(output, RESULTS)
    fill(output)
    Path("link").symlink_to("out/input_bag")
    Path("here").mkdir()
    Path("here/vis").symlink_to(tmp_path / "out" / "logs")
    before = contents(tmp_path)
    with pytest.raises(FileError, match=r"outside of out/.*, which the run replaces"):
        claim_output(output, RESULTS, [tmp_path / "other", Path(given)])
    assert contents(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileError, match="must be a folder, got a file"):
        claim_output(tmp_path / "out", RESULTS)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_failed_run_names_its_logs_only_if_there_are_any(tmp_path: Path) -> None:
    plan = RunPlan(output=str(tmp_path), node={}, player={})
    with pytest.raises(InputError, match="got status 1; it ended before it wrote logs"):
        launch("no_such_run", plan)
    (tmp_path / "logs").mkdir()
    with pytest.raises(InputError, match=r"its logs are in .*/logs"):
        launch("no_such_run", plan)


def one_camera(path: Path) -> Path:
    with BagWriter(path) as bag:
        for index in range(3):
            bag.write_image("/only", index * 10**8, "v", np.zeros((8, 8), np.uint8))
    return path


@needs_ros
@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("demo", ["--size", "8"], "size must be WIDTHxHEIGHT"),
        ("demo", ["--size", "9000x480"], "width must be"),
        ("demo", ["--data", "absent"], "absent"),
        ("demo", ["--data", "unlike"], "one with an image of the same name"),
        ("demo", ["--data", "damaged"], "the pairs must be readable"),
        ("demo", ["--data", "other_sizes"], "no pair that can be fused"),
        ("demo", ["--device", "cuda:99"], "device"),
        ("endurance", ["--size", "8"], "size must be WIDTHxHEIGHT"),
        ("endurance", ["--size", "9000x480"], "width must be"),
        ("endurance", ["--text", "unicorn"], "--text must be classes that the localizer knows"),
        ("endurance", ["--source", "unlike"], "one with an image of the same name"),
        ("endurance", ["--source", "one_camera"], "one topic of images"),
        ("endurance", ["--device", "cuda:99"], "device"),
    ],
)
def test_a_refused_run_removes_nothing(
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, stems in (("unlike", "ab"), ("damaged", "aa"), ("other_sizes", "aa")):
        for side, stem in zip(("vis", "ir"), stems, strict=True):
            path = Path(folder, side, f"{stem}.png")
            path.parent.mkdir(parents=True)
            width = 99 if (folder, side) == ("other_sizes", "ir") else 8
            cv2.imwrite(str(path), np.zeros((8, width), np.uint8))
            if folder == "damaged":
                path.write_bytes(path.read_bytes()[:40])
    one_camera(Path("one_camera"))
    results = {"demo": demo, "endurance": endurance}[verb].RESULTS
    claim_output(Path("out"), results)
    fill(Path("out"), results)
    before = contents(Path("out"))
    assert main([verb, "-o", "out", "--model", str(tiny_checkpoint), *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert contents(Path("out")) == before
