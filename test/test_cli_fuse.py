"""The command line, and ``textdifuse fuse`` with the real Fuser on a tiny, randomly initialized checkpoint."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from textdifuse_ros import __version__
from textdifuse_ros.cli.main import VERBS, main
from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.image.files import read_png_metadata, read_visible, write_png
from textdifuse_ros.image.intake import SensorIntake


def command(*arguments, **options):
    """The command line as a process of its own."""
    line = [sys.executable, "-m", "textdifuse_ros.cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.fixture
def folders(tmp_path):
    """Folders ``vis`` and ``ir`` with three pairs of 24 x 20 pixels, and a folder to write to that is not there yet."""
    for number in range(3):
        rng = np.random.default_rng(number)
        write_png(tmp_path / "vis" / f"{number}.png", rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))
        write_png(tmp_path / "ir" / f"{number}.png", rng.integers(0, 256, (20, 24), dtype=np.uint8))
    return tmp_path / "vis", tmp_path / "ir", tmp_path / "out"


@pytest.fixture
def fuse(tiny_checkpoint, capfd):
    """Run ``fuse`` in this process with the tiny checkpoint; the status and the lines on stdout and stderr."""

    def run(visible, infrared, output, *flags):
        arguments = ["fuse", visible, infrared, "-o", output, "--model", tiny_checkpoint, "--threads", 1, *flags]
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return status, captured.out.splitlines(), [n for n in captured.err.splitlines() if n.startswith("textdifuse:")]

    return run


def refused(capsys, *arguments):
    """Run what must be refused with status 2; its only line on stderr."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as left:
        status = left.code
    captured = capsys.readouterr()
    assert (status, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert captured.err.startswith("textdifuse: ")
    return captured.err


def test_two_folders_are_fused_pair_by_pair(folders, fuse):
    visible, infrared, output = folders
    status, out, err = fuse(visible, infrared, output)
    assert (status, out, err) == (0, [f"fused 3 of 3 pairs into {output}"], [])
    assert sorted(path.name for path in output.iterdir()) == ["0.png", "1.png", "2.png"]
    for path in output.iterdir():
        fused = read_visible(path)
        assert fused.shape == (20, 24, 3) and fused.dtype == np.uint8
    assert not np.array_equal(read_visible(output / "0.png"), read_visible(output / "1.png"))


def test_two_files_of_different_names_are_one_pair(folders, fuse):
    visible, infrared, output = folders
    assert fuse(visible / "0.png", infrared / "2.png", output)[0] == 0
    assert [path.name for path in output.iterdir()] == ["0.png"]


def test_an_output_folder_with_other_files_is_kept_and_its_images_overwritten(folders, fuse):
    visible, infrared, output = folders
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    (output / "0.png").write_bytes(b"old")
    assert fuse(visible, infrared, output)[0] == 0
    assert (output / "notes.txt").read_text() == "mine"
    assert read_visible(output / "0.png").shape == (20, 24, 3)


def test_the_image_says_what_made_it(folders, fuse):
    visible, infrared, output = folders
    fuse(visible / "0.png", infrared / "0.png", output, "--steps", 2, "--seed", 7, "--sampler", "ancestral")
    metadata = read_png_metadata(output / "0.png")
    assert metadata["Software"] == f"textdifuse_ros {__version__}"
    made_by = json.loads(metadata["textdifuse"])
    assert made_by["steps"] == 2 and made_by["seed"] == 7 and made_by["sampler"] == "ancestral"
    assert made_by["version"] == __version__ and made_by["visible"] == made_by["infrared"] == "0.png"
    assert {"model", "weights", "device", "precision"} <= made_by.keys()


def test_four_steps_are_the_default_and_steps_and_seed_take_effect(folders, fuse):
    visible, infrared, output = folders
    images = {}
    for name, flags in {"a": (), "b": ("--steps", 4), "c": ("--steps", 1), "d": ("--seed", 3)}.items():
        assert fuse(visible / "0.png", infrared / "0.png", output / name, "--precision", "float32", *flags)[0] == 0
        images[name] = (output / name / "0.png").read_bytes()
    assert images["a"] == images["b"], "the same bytes"
    assert not np.array_equal(*(read_visible(output / name / "0.png") for name in "ac"))
    assert not np.array_equal(*(read_visible(output / name / "0.png") for name in "ad"))


def test_sixteen_bits_jpeg_tiff_and_bmp_are_fused(tmp_path, fuse):
    rng = np.random.default_rng(0)
    color, grey = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8), rng.integers(0, 256, (20, 24), dtype=np.uint8)
    (tmp_path / "vis").mkdir()
    (tmp_path / "ir").mkdir()
    names = ["jpeg.jpg", "tiff.tiff", "bmp.bmp", "grey.png", "wide.png", "wide_tiff.tif"]
    for name in names:
        factor = np.uint16(257) if name.startswith("wide") else np.uint8(1)
        assert cv2.imwrite(str(tmp_path / "vis" / name), (grey if name.startswith("grey") else color) * factor)
        assert cv2.imwrite(str(tmp_path / "ir" / name), grey * factor)
    status, _, err = fuse(tmp_path / "vis", tmp_path / "ir", tmp_path / "out", "--steps", 1)
    assert (status, err) == (0, [])
    assert len(list((tmp_path / "out").iterdir())) == len(names)


def test_a_constant_pair_is_fused(tmp_path, fuse):
    write_png(tmp_path / "v.png", np.zeros((20, 24, 3), np.uint8))
    write_png(tmp_path / "i.png", np.full((20, 24), 7000, np.uint16))
    assert fuse(tmp_path / "v.png", tmp_path / "i.png", tmp_path / "out", "--steps", 1)[0] == 0


def test_infrared_pixels_without_a_value_are_reported_and_do_not_change_the_rest(folders, fuse):
    visible, infrared, output = folders
    y, x = np.mgrid[:20, :24]
    counts = (28600 + 40 * x + 30 * y).astype(np.uint16)
    write_png(infrared / "0.png", counts)
    assert fuse(visible, infrared, output / "whole", "--steps", 1)[2] == []
    counts[:, :5] = 0
    write_png(infrared / "0.png", counts)
    status, _, said = fuse(visible, infrared, output / "part", "--steps", 1)
    assert status == 0
    assert said == [
        "textdifuse: warning: 1 of 3 infrared images, most in 0: 25 % of the pixels have no value (as at a rectified "
        "border) and are filled from the visible image"
    ]
    made_by = [json.loads(read_png_metadata(output / "part" / f"{n}.png")["textdifuse"]) for n in range(2)]
    assert made_by[0]["infrared_no_value"] == 0.25 and "infrared_no_value" not in made_by[1]
    part, whole = (read_visible(output / name / "0.png").astype(int) for name in ("part", "whole"))
    assert np.abs(part - whole)[:, 14:].mean() < 6


def test_bad_pairs_are_reported_at_the_end_and_the_others_fused(folders, fuse):
    visible, infrared, output = folders
    data = (visible / "0.png").read_bytes()
    (visible / "0.png").write_bytes(data[: len(data) // 2])
    write_png(infrared / "1.png", np.zeros((30, 24), np.uint8))
    status, out, err = fuse(visible, infrared, output)
    assert status == 1 and out == [f"fused 1 of 3 pairs into {output}"]
    assert len(err) == 2
    assert err[0].startswith("textdifuse: 0: ") and str(visible / "0.png") in err[0] and "truncated" in err[0]
    assert err[1].startswith("textdifuse: 1: the infrared image must be as large as the visible one")
    assert [path.name for path in output.iterdir()] == ["2.png"]


def test_an_image_that_cannot_be_written_is_reported(folders, fuse):
    visible, infrared, output = folders
    (output / "1.png").mkdir(parents=True)
    status, out, err = fuse(visible, infrared, output)
    assert status == 1 and len(err) == 1 and err[0].startswith("textdifuse: 1: ") and "2 of 3" in out[0]
    assert sorted(path.name for path in output.iterdir()) == ["0.png", "1.png", "2.png"], "no partial files"


def test_images_without_a_counterpart_are_reported_and_the_others_fused(folders, fuse):
    visible, infrared, output = folders
    (infrared / "0.png").unlink()
    (visible / "2.png").unlink()
    status, _, err = fuse(visible, infrared, output)
    assert status == 1
    assert err == [
        "textdifuse: unmatched: 1 visible without an infrared image: 0",
        "textdifuse: unmatched: 1 infrared without a visible image: 2",
    ]
    assert [path.name for path in output.iterdir()] == ["1.png"]


def test_the_progress_bar_goes_to_stderr_and_counts_the_pairs(folders, tiny_checkpoint):
    done = command("fuse", *folders[:2], "-o", folders[2], "--model", tiny_checkpoint, "--steps", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"fused 3 of 3 pairs into {folders[2]}\n" and "3/3" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], r"steps must be an integer in [1, 100], got 0"),
        (["--steps", "four"], "argument --steps: invalid int value: 'four'"),
        (["--sampler", "euler"], "sampler must be one of ancestral, ddim, dpm_solver, posterior_mean, got 'euler'"),
        (["--precision", "int8"], "precision must be one of"),
        (["--seed", "-1"], "seed must be"),
        (["--step", "3"], "unrecognized arguments: --step 3"),
    ],
)
def test_a_bad_flag_is_refused_in_one_line_before_any_work(folders, capsys, flags, message):
    visible, infrared, output = folders
    assert message in refused(capsys, "fuse", visible, infrared, "-o", output, *flags)
    assert not output.exists()


def test_bad_paths_are_refused_in_one_line_before_any_work(folders, capsys, tmp_path):
    visible, infrared, output = folders
    file = visible / "0.png"
    for paths, message in {
        (visible / "gone.png", infrared, output): "got no such file or folder",
        (file, infrared, output): "must be a file, like the visible path",
        (visible, infrared / "0.png", output): "must be a folder, like the visible path",
        (visible, infrared, file): "must be a folder, got a file",
        (visible, infrared, visible): "must be another folder than the input",
        (visible, infrared, infrared): "must be another folder than the input",
        (file, infrared / "0.png", visible): "where no input image is overwritten",
    }.items():
        before = file.read_bytes()
        assert message in refused(capsys, "fuse", paths[0], paths[1], "-o", paths[2])
        assert file.read_bytes() == before
    (tmp_path / "empty").mkdir()
    assert "one with images" in refused(capsys, "fuse", visible, tmp_path / "empty", "-o", output)
    assert not output.exists()


def test_a_link_to_the_input_folder_is_no_way_around(folders, capsys, tmp_path):
    (tmp_path / "link").symlink_to(folders[0])
    assert "another folder" in refused(capsys, "fuse", *folders[:2], "-o", tmp_path / "link")


def test_missing_and_foreign_weights_are_refused_before_any_work(folders, capsys, tmp_path):
    visible, infrared, output = folders
    line = refused(capsys, "fuse", visible, infrared, "-o", output, "--model", tmp_path / "no.safetensors")
    assert "no such file" in line
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"x" * 100)
    assert "foreign.safetensors" in refused(capsys, "fuse", visible, infrared, "-o", output, "--model", foreign)
    assert not output.exists()


def test_the_output_cannot_be_made(folders, capsys, tiny_checkpoint):
    visible, infrared, _ = folders
    blocked = visible / "0.png" / "out"
    line = refused(capsys, "fuse", visible, infrared, "-o", blocked, "--model", tiny_checkpoint)
    assert "a folder that can be created" in line


def test_a_missing_argument_or_verb_is_refused_in_one_line(capsys):
    assert "required: -o/--output" in refused(capsys, "fuse", "a", "b")
    assert "required: VERB" in refused(capsys)
    assert "invalid choice: 'fsue'" in refused(capsys, "fsue")


def test_help_and_version_answer_without_loading_pytorch():
    code = (
        "import sys\nfrom textdifuse_ros.cli.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as left: assert not left.code\n"
        "heavy = {'torch', 'cv2', 'rclpy'} & sys.modules.keys()\nassert not heavy, heavy"
    )
    for arguments in (["--help"], ["--version"], ["fuse", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert {"--help": "fuse", "--version": f"textdifuse {__version__}\n", "fuse": "--sampler"}[arguments[0]] in (
            done.stdout
        )


def test_every_listed_verb_has_help():
    for module in VERBS:
        done = command(importlib.import_module(f"textdifuse_ros.cli.{module}").NAME, "--help")
        assert done.returncode == 0 and done.stdout.startswith("usage: textdifuse")


def test_a_reader_that_goes_away_ends_the_command_quietly(folders, tiny_checkpoint):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        line = [sys.executable, "-m", "textdifuse_ros.cli.main", "fuse", *folders[:2], "-o", folders[2]]
        flags = ["--model", tiny_checkpoint, "--steps", "1"]
        done = subprocess.run([*map(str, line + flags)], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert done.returncode == 141 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert len(list(folders[2].iterdir())) == 3


def test_an_interrupt_ends_the_command_with_130_and_no_partial_file(folders, tiny_checkpoint):
    """The signal comes once the first image is written; many copies of the pairs keep the command busy."""
    visible, infrared, output = folders
    for number in range(3, 3000):
        for folder in (visible, infrared):
            os.link(folder / "0.png", folder / f"{number}.png")
    line = [sys.executable, "-m", "textdifuse_ros.cli.main", "fuse", *folders[:2], "-o", output, "--model"]
    process = subprocess.Popen(
        [*map(str, line), str(tiny_checkpoint)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as this test may be, ignores the signal and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        limit = time.monotonic() + 60
        while not (output.is_dir() and list(output.glob("*.png"))) and time.monotonic() < limit:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err and err.endswith("textdifuse: interrupted\n")
    assert not list(output.glob(".*")) and 0 < len(list(output.glob("*.png"))) < 3000


class TestParameterFile:
    """What the node is configured with holds for files as well: gain, registration, model; flags override it."""

    def parameters(self, tmp_path, checkpoint, **values):
        content = {
            "/fusion_node": {"ros__parameters": {"model": str(checkpoint), "steps": 1, "device": "cpu", **values}}
        }
        (tmp_path / "node.yaml").write_text(json.dumps(content))
        return tmp_path / "node.yaml"

    def test_infrared_counts_are_registered_as_by_the_node(self, tmp_path, tiny_checkpoint, capsys):
        rng = np.random.default_rng(0)
        visible = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        counts = rng.integers(7000, 9000, (20, 24), dtype=np.uint16)
        write_png(tmp_path / "vis.png", visible)
        write_png(tmp_path / "ir.png", counts)
        homography = [2.0, 0.0, 0.5, 0.0, 2.0, 0.5, 0.0, 0.0, 1.0]
        values = {"registration": "homography", "infrared_homography": homography, "gain": "minmax"}
        file = self.parameters(tmp_path, tiny_checkpoint, **values)
        files = [tmp_path / "vis.png", tmp_path / "ir.png", "-o", tmp_path / "a", "--params-file", file]
        status = main(["fuse", *map(str, files), "--threads", "1"])
        assert status == 0, capsys.readouterr().err

        config = SensorConfig(registration="homography", infrared_homography=tuple(homography), gain="minmax")
        stamp = SimpleNamespace(sec=0, nanosec=0)
        messages = [
            SimpleNamespace(
                header=SimpleNamespace(stamp=stamp), height=len(image), width=image.shape[1], encoding=encoding,
                is_bigendian=0, step=image.strides[0], data=image.tobytes(),
            )
            for image, encoding in ((visible, "rgb8"), (counts, "mono16"))
        ]  # fmt: skip
        aligned = SensorIntake(config).align(*messages)
        write_png(tmp_path / "ir8.png", aligned.infrared)
        arguments = [tmp_path / "vis.png", tmp_path / "ir8.png", "-o", tmp_path / "b", "--model", tiny_checkpoint]
        assert main(["fuse", *map(str, arguments), "--steps", "1", "--device", "cpu", "--threads", "1"]) == 0
        assert np.array_equal(read_visible(tmp_path / "a" / "vis.png"), read_visible(tmp_path / "b" / "vis.png"))

    def test_flags_override_the_file(self, folders, tmp_path, tiny_checkpoint):
        file = self.parameters(tmp_path, tiny_checkpoint)
        arguments = ["fuse", *map(str, (*folders[:2], "-o", folders[2], "--params-file", file)), "--steps", "2"]
        assert main(arguments) == 0
        assert json.loads(read_png_metadata(folders[2] / "0.png")["textdifuse"])["steps"] == 2

    def test_a_registration_that_needs_camera_info_is_refused(self, folders, tmp_path, tiny_checkpoint, capsys):
        file = self.parameters(tmp_path, tiny_checkpoint, registration="extrinsics")
        line = refused(capsys, "fuse", *folders[:2], "-o", folders[2], "--params-file", file)
        assert "visible_calibration" in line and "image files have no camera_info" in line
        assert not folders[2].exists()

    def test_a_node_without_a_file_is_refused(self, folders, capsys):
        line = refused(capsys, "fuse", *folders[:2], "-o", folders[2], "--name", "front")
        assert "--name must be given with --params-file" in line
