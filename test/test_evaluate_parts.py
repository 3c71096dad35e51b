"""Parts of ``textdifuse evaluate``: named sets, pre-processing, writing of tables, parallel jobs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation_rig import scene

from textdifuse_ros.cli.main import main
from textdifuse_ros.cli.outputs import try_outputs
from textdifuse_ros.errors import FileError, ImageError
from textdifuse_ros.evaluate.pool import map_jobs
from textdifuse_ros.evaluate.preprocess import balance_white, denoise, enhance_low_light, noise_level
from textdifuse_ros.evaluate.sets import NAMED_SETS, folder_set, named_set
from textdifuse_ros.evaluate.tables import write_text
from textdifuse_ros.image.files import read_visible, write_png


class TestSets:
    def test_a_named_set_may_contain_only_some_names_of_a_folder(self, tmp_path) -> None:
        for stem in ("1N", "2D", "3N"):
            for part in ("vis", "ir"):
                write_png(tmp_path / "msrs_dev" / part / f"{stem}.png", np.zeros((8, 8), np.uint8))
        assert [pair.stem for pair in named_set("msrs_dev_night", tmp_path).pairs] == ["1N", "3N"]
        assert len(named_set("msrs_dev", tmp_path).pairs) == 3
        with pytest.raises(FileError, match="must be"):
            named_set("llvip_dev", tmp_path)

    def test_two_files_are_a_set_of_one_pair(self, tmp_path) -> None:
        for name in ("0.png", "2.png"):
            write_png(tmp_path / name, np.zeros((8, 8), np.uint8))
        assert folder_set(tmp_path / "0.png", tmp_path / "2.png").name == "0"

    @pytest.mark.parametrize("name", NAMED_SETS)
    def test_every_named_set_is_complete(self, name, data_folder) -> None:
        sizes = {"roadscene_test": 50, "msrs_dev": 16, "msrs_dev_night": 8, "llvip_dev": 10}
        assert len(named_set(name, data_folder).pairs) == sizes.get(name, 24)

    @pytest.mark.slow
    def test_the_controls_reach_their_known_figures_on_roadscene(self, data_folder, tmp_path) -> None:
        file = tmp_path / "out.json"
        assert main(["evaluate", "--set", "roadscene_test", "--data", str(data_folder), "--json", str(file)]) == 0
        rows = json.loads(file.read_text())["rows"]
        known = {
            "max": {"EN": 7.03, "AG": 4.11, "SD": 43.97, "SCD": 1.402, "VIF": 0.850},
            "mean": {"EN": 6.45, "AG": 2.89, "SD": 28.52, "SCD": 1.416, "VIF": 0.569},
            "sum": {"EN": 7.51, "AG": 5.47, "SD": 54.9, "SCD": 1.969, "VIF": 0.673},
        }
        for row, figures in known.items():
            for name, value in figures.items():
                assert rows[row][name]["mean"] == pytest.approx(value, rel=0.01), (row, name)


class TestPreprocessing:
    def test_noise_is_estimated_and_removed(self) -> None:
        clean = scene(0, 120, 160)[0]
        rough = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
        grey = cv2.cvtColor(rough, cv2.COLOR_RGB2GRAY)
        assert noise_level(grey) == pytest.approx(20 * np.sqrt(0.299**2 + 0.587**2 + 0.114**2), rel=0.15)
        apart = [np.abs(image.astype(float) - clean).mean() for image in (rough, denoise(rough))]
        assert apart[1] < 0.6 * apart[0]

    def test_a_clean_image_is_not_denoised(self) -> None:
        smooth = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None], 60, 0)
        assert denoise(smooth) is smooth

    def test_a_color_cast_is_removed(self) -> None:
        visible = np.full((8, 8, 3), (150, 100, 50), np.uint8)
        assert np.ptp(balance_white(visible)) == 0

    def test_a_dark_image_is_brightened_and_a_bright_one_unchanged(self) -> None:
        dark = scene(0)[0] // 6
        assert enhance_low_light(dark).mean() > 3 * dark.mean()
        bright = np.clip(scene(0)[0].astype(int) + 80, 0, 255).astype(np.uint8)
        assert enhance_low_light(bright) is bright
        assert not enhance_low_light(np.zeros((8, 8, 3), np.uint8)).any()


class TestTables:
    def test_links_and_pipes_are_written_to_and_not_replaced(self, tmp_path) -> None:
        """For example /dev/stdout, in whose folder root may create any file."""
        pipe, link = tmp_path / "pipe", tmp_path / "link"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        (tmp_path / "target").write_text("old")
        link.symlink_to(tmp_path / "target")
        dangling = tmp_path / "dangling"
        dangling.symlink_to(tmp_path / "later")
        try_outputs((pipe, link, dangling))
        write_text(dangling, "figures")
        assert dangling.is_symlink() and (tmp_path / "later").read_text() == "figures"
        for path in (pipe, link):
            write_text(path, "figures")
        assert os.read(reader, 100) == b"figures" and pipe.is_fifo()
        assert link.is_symlink() and (tmp_path / "target").read_text() == "figures"
        os.close(reader)


class TestMapJobs:
    def test_every_job_is_done_once_in_several_processes(self) -> None:
        done = []
        results = list(map_jobs(abs, iter(range(-7, 0)), 2, lambda: done.append(1)))
        assert sorted(results) == [1, 2, 3, 4, 5, 6, 7] and len(done) == 7

    def test_the_first_failure_drops_the_remaining_jobs(self, tmp_path) -> None:
        done: list[int] = []
        paths = [tmp_path / "first.png"] + [tmp_path / "nowhere.png"] * 100
        with pytest.raises(FileError):
            list(map_jobs(fail_slowly, paths, 2, lambda: done.append(1)))
        assert len(done) < 50

    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_exception_of_a_job_is_raised_with_its_message(self, workers, tmp_path) -> None:
        with pytest.raises(FileError, match=r"nowhere.png must be a readable image file"):
            list(map_jobs(read_visible, [tmp_path / "nowhere.png"], workers))

    def test_the_projects_exceptions_pass_between_processes(self) -> None:
        with pytest.raises(ImageError, match="must be"):
            list(map_jobs(raise_image_error, [0], 2))


def fail_slowly(path: Path) -> np.ndarray:
    """Fail at once for ``first.png``; all others together would take 25 s on two processes."""
    if path.name != "first.png":
        time.sleep(0.5)
    return read_visible(path)


def raise_image_error(_: int) -> None:
    raise ImageError("an image", "one", "nothing")
