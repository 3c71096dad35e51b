"""``textdifuse evaluate``: invalid input and options are rejected with one line and status 2."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_rig import save_row, scene

from textdifuse_ros.image.files import read_infrared, write_png

pytest_plugins = ["evaluation_rig"]


class TestRejectedInput:
    def test_a_table_that_would_overwrite_an_image_or_another_table(self, refused, folders, tmp_path) -> None:
        image = folders[0] / "1.png"
        before = image.read_bytes()
        assert "--csv must be a separate file, got" in refused("--csv", image)
        assert "the file of --json" in refused("--json", tmp_path / "a", "--markdown", tmp_path / "b" / ".." / "a")
        assert image.read_bytes() == before

    def test_an_image_without_counterpart(self, refused, folders) -> None:
        (folders[1] / "1.png").unlink()
        assert f"{folders[1]} must be one with a counterpart for every image" in refused()
        (folders[0] / "1.png").rename(folders[0].parent / "1.png")
        (folders[0] / "0.png").unlink()
        assert "1 missing: 0" in refused()

    def test_a_pair_of_different_sizes(self, refused, folders) -> None:
        write_png(folders[1] / "1.png", scene(1, 61, 80)[1])
        line = refused()
        assert f"{folders[1]}/1.png must be as large as" in line and "80 x 60 pixels), got 80 x 61" in line

    def test_a_colored_infrared_image(self, refused, folders) -> None:
        assert "must be grey, got color" in refused(visible=folders[1], infrared=folders[0])

    def test_a_grey_infrared_image_in_three_channels_is_accepted(self, evaluate, folders) -> None:
        expected = evaluate()["rows"]
        for path in folders[1].iterdir():
            write_png(path, np.repeat(read_infrared(path)[..., None], 3, 2))
        assert evaluate()["rows"] == expected

    def test_an_image_too_small_for_the_metrics(self, refused, folders) -> None:
        visible, infrared = scene(1, 40, 80)
        write_png(folders[0] / "1.png", visible)
        write_png(folders[1] / "1.png", infrared)
        assert f"{folders[0]}/1.png must be at least 41 x 41 pixels, got 80 x 40" in refused()

    def test_empty_and_missing_folders(self, refused, tmp_path) -> None:
        (tmp_path / "empty").mkdir()
        assert "one with images" in refused(visible=tmp_path / "empty")
        assert "no such file or folder" in refused(infrared=tmp_path / "nowhere")

    def test_a_missing_or_wrongly_sized_result_is_named(self, refused, folders, tmp_path) -> None:
        method = save_row(tmp_path / "peer", "max", folders)
        write_png(method / "1.png", scene(1, 50, 80)[0])
        line = refused("--method", f"Peer={method}")
        assert f"{method}/1.png must be as large as" in line and "got 80 x 50" in line
        (method / "1.png").unlink()
        assert f"the result of Peer for 1 must be the file {method}/1.png" in refused("--method", f"Peer={method}")

    def test_an_output_folder_that_is_also_an_input_folder(self, refused, folders, tiny_checkpoint, tmp_path) -> None:
        part = tmp_path / "set" / "clean"
        part.mkdir(parents=True)
        clean = [folder.rename(part / name) for folder, name in zip(folders, ("visible", "infrared"), strict=True)]
        read = {"visible": clean[0], "infrared": clean[1]}
        before = {path: path.read_bytes() for path in part.rglob("*.png")}
        words = "must be a folder that no image is read from, got"
        assert f"--save-inputs {words} {part}/visible" in refused("--save-inputs", part.parent, **read)
        assert f"--report {words} {part}/visible" in refused("--report", clean[0], **read)
        (tmp_path / "link").mkdir()
        (tmp_path / "link" / "textdifuse").symlink_to(clean[0])
        model = ["--model", tiny_checkpoint, "--threads", 1, "--save-fused", tmp_path / "link"]
        assert f"--save-fused {words} {tmp_path}/link/textdifuse" in refused(*model, **read)
        peer = save_row(tmp_path / "kept" / "textdifuse", "max", clean)
        line = refused(*model[:-1], tmp_path / "kept", "--method", f"Before={peer}", **read)
        assert f"--save-fused {words} {peer}" in line
        line = refused(*model[:-1], tmp_path / "kept", "--panel", "text", "--masks", peer, **read)
        assert f"--save-fused {words} {peer}" in line
        assert before == {path: path.read_bytes() for path in part.rglob("*.png")}

    @pytest.mark.parametrize("option", ["--json", "--csv", "--markdown", "--report", "--save-inputs"])
    def test_an_unwritable_output_is_reported_before_anything_is_measured(
        self, refused, tmp_path, monkeypatch, option
    ) -> None:
        monkeypatch.setattr("textdifuse_ros.evaluate.run.run_pairs", lambda *_: pytest.fail("measured"))
        (tmp_path / "file").write_text("mine")
        assert f"the output {tmp_path}/file/a/b must be a f" in refused(option, tmp_path / "file" / "a" / "b")
        is_file = option in ("--json", "--csv", "--markdown")
        line = refused(option, tmp_path if is_file else tmp_path / "file")
        assert f"that can be written, got a {'folder' if is_file else 'file'}" in line
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_method_named_like_a_row_of_the_model(self, refused, tiny_text_checkpoint, tmp_path) -> None:
        (tmp_path / "masks").mkdir()
        write_png(tmp_path / "masks" / "0.png", np.eye(60, 80, dtype=np.uint8))
        model = ["--model", tiny_text_checkpoint, "--threads", 1]
        text = ["text", "--masks", tmp_path / "masks"]
        for panel, name in ((["video"], "textdifuse_each"), (text, "textdifuse_plain")):
            line = refused("--panel", *panel, *model, "--method", f"{name}=.")
            assert f"given once for each name, got {name} twice; --model has a row of that name" in line

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--save-fused", "kept"], "--save-fused must be given with --model, got no model"),
            (["--examples", "3"], "--examples must be given with --report, got without it"),
            (["--strength", "0"], "--strength must be given with --panel text"),
            (["--data", "."], "--data must be given with --set"),
            (["--panel", "text", "--strength", "0"], "--strength must be given with --model"),
            (["--steps", "2"], "--steps must be given with --model, got without it"),
            (["--no-cuda-graphs"], "--cuda-graphs must be given with --model"),
            (
                ["--panel", "night"],
                "--panel must be one of clean, degraded, video, text, detection, steps, got 'night'",
            ),
            (["--panel", "degraded", "--condition", "fog"], "--condition must be one of low_light"),
            (["--condition", "haze"], "--condition must be given with --panel degraded or steps"),
            (["--method", "Peer"], "--method must be NAME=FOLDER, got 'Peer'"),
            (["--method", "max=."], "one that no other row has, got 'max'"),
            (["--method", "textdifuse=."], "one that no other row has"),
            (["--method", "Peer=nowhere"], "the results of Peer must be in an existing folder"),
            (["--method", "Peer=.", "--method", "Peer=."], "given once for each name, got Peer twice"),
            (["--pre", "sharpen"], "--pre must be the name of a control"),
            (["--pre", "textdifuse"], "--pre textdifuse must be given with --model"),
            (["--panel", "video", "--pre", "max"], "--pre must be given with --panel clean or degraded"),
            (["--panel", "text"], "--panel text must be given with --boxes or --masks"),
            (["--masks", "."], "--boxes or --masks must be given with --panel text"),
            (["--set", "msrs_dev"], "either --set or --visible and --infrared, got both"),
            (["--jobs", "-1"], "--jobs must be an integer in [1, 1024], got -1"),
            (["--limit", "-1"], "--limit must be an integer of at least 0"),
        ],
    )
    def test_options_that_exclude_each_other(self, refused, flags, message) -> None:
        assert message in refused(*flags)

    def test_a_named_set_without_its_data(self, refused, monkeypatch, tmp_path) -> None:
        monkeypatch.delenv("TEXTDIFUSE_DATA", raising=False)
        assert "set --data or TEXTDIFUSE_DATA" in refused("--set", "msrs_dev", visible=None)
        assert "--set must be one of roadscene_test" in refused("--set", "x", "--data", tmp_path, visible=None)
        assert "no such file or folder" in refused("--set", "msrs_dev", "--data", tmp_path, visible=None)
