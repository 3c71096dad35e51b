"""What ``textdifuse bag`` leaves on the disk: work that is done when it is stopped, and what is not its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bag_makers import START, files, image, record, scene

from textdifuse_ros.bags.cameras import CALIBRATION_TYPE
from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.segments import Pieces, read_notes
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.cli.main import main
from textdifuse_ros.errors import BagError

KEPT = "precious"


@pytest.fixture
def options(tiny_checkpoint: Path) -> list[str]:
    return ["--model", str(tiny_checkpoint), "--device", "cpu", "--precision", "float32"]


def _fuse(*arguments: Any, steps: int = 1) -> int:
    return main(["bag", *map(str, arguments), "--steps", str(steps)])


def _keep(folder: Path) -> Path:
    """Put a file of somebody else into a folder of somebody else within ``folder``."""
    path = folder / "photos" / "keep.txt"
    path.parent.mkdir(parents=True)
    path.write_text(KEPT)
    return path


def _piece(output: Path, job: dict[str, Any]) -> None:
    """Leave a complete piece of a job at an output."""
    with Pieces(output, job) as pieces, pieces.next_piece() as (writer, note):
        writer.add_topic("/note", "std_msgs/msg/String")
        note["pairs"] = 1


def _record_with_calibrations(path: Path, data: bytes) -> None:
    """Record a pair, and a message of given bytes as ``camera_info`` of each camera."""
    with BagWriter(path) as bag:
        for side, (name, encoding) in enumerate((("color", "rgb8"), ("thermal", "mono16"))):
            for topic, kind in ((f"/cam/{name}/image_raw", IMAGE_TYPE), (f"/cam/{name}/camera_info", CALIBRATION_TYPE)):
                bag.add_topic(topic, kind)
            bag.write_raw(
                f"/cam/{name}/image_raw", START + side, image(scene(0)[side], START + 3_000_000 * side, "cam", encoding)
            )
            bag.write_raw(f"/cam/{name}/camera_info", START, data)


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["--rectify", "--visible-calibration", "kalibr.yaml", "--infrared-calibration", "kalibr.yaml"], "kalibr"),
            (["--rectify", "--visible-calibration", "none.yaml", "--infrared-calibration", "none.yaml"], "none"),
            (["--rectify"], "the first message of /cam/color/camera_info must be a readable CameraInfo"),
            (["--text", "person"], "model"),
            (["--tolerance", "0.001"], "sync-doctor"),
            (["--visible", "/nothing"], "/nothing"),
        ],
    )
    def test_nothing_is_left_by_a_job_that_was_refused(
        self,
        tmp_path: Path,
        options: list[str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        given: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("kalibr.yaml").write_text("cam0:\n  camera_model: pinhole\n  intrinsics: [1, 1, 1, 1]\n")
        _record_with_calibrations(tmp_path / "in", b"\0\1\0\0")
        assert _fuse("in", "new/deep/out", *options, *given) == 2
        assert message in capsys.readouterr().err
        assert sorted(item.name for item in tmp_path.iterdir()) == ["in", "kalibr.yaml"]
        assert _fuse("in", "new/deep/out", *options) == 0

    def test_leftovers_without_a_whole_piece_are_no_work(self, tmp_path: Path) -> None:
        for job in ({"what": "one"}, {"what": "two"}):
            child = os.fork()
            if not child:
                Pieces(tmp_path / "out", job).__enter__()
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(child, 0)
            assert (tmp_path / "out.partial" / "job.json").is_file()
        with Pieces(tmp_path / "out", {"what": "three"}) as pieces:
            assert pieces.count == 0
        assert not list(tmp_path.iterdir())


class TestOfOthers:
    @pytest.mark.parametrize("given", [[], ["--restart"]], ids=["plain", "restart"])
    def test_a_folder_at_the_place_of_the_work_stays(
        self, tmp_path: Path, options: list[str], given: list[str]
    ) -> None:
        kept = _keep(tmp_path / "out.partial")
        record(tmp_path / "in", 2)
        for _ in range(2):
            assert _fuse(tmp_path / "in", tmp_path / "out", *options, *given) == 0
            assert kept.read_text() == KEPT
        assert [item.name for item in (tmp_path / "out.partial").iterdir()] == ["photos"]

    @pytest.mark.parametrize("restart", [False, True])
    def test_a_link_at_the_place_of_the_work_is_refused(self, tmp_path: Path, restart: bool) -> None:
        kept = _keep(tmp_path / "home")
        (tmp_path / "out.partial").symlink_to(tmp_path / "home")
        with pytest.raises(BagError, match="got a symbolic link; move it away, or choose another output"):
            Pieces(tmp_path / "out", {}, restart=restart).__enter__()
        assert kept.read_text() == KEPT and [item.name for item in (tmp_path / "home").iterdir()] == ["photos"]

    @pytest.mark.parametrize("name", ["job.json", "job.new", "lock", "writing", "000000"])
    @pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to a folder"])
    @pytest.mark.parametrize("restart", [False, True])
    def test_what_has_a_name_of_ours_is_refused_and_stays(
        self, tmp_path: Path, name: str, kind: str, restart: bool
    ) -> None:
        home, place = tmp_path / "home", tmp_path / "out.partial" / name
        kept = _keep(home)
        place.parent.mkdir()
        if kind == "file":
            place.write_text(KEPT)
        elif kind == "folder":
            _keep(place)
        else:
            place.symlink_to(kept if kind == "link to a file" else home)
        with pytest.raises(BagError, match=f"got one that holds {name}, which it has not written"):
            Pieces(tmp_path / "out", {}, restart=restart).__enter__()
        assert kept.read_text() == KEPT and os.path.lexists(place)
        if kind == "file":
            assert place.read_text() == KEPT

    @pytest.mark.parametrize("place", [".", "000000", "writing", "writing/000000", "writing/out"])
    @pytest.mark.parametrize("link", [False, True])
    def test_a_folder_within_a_true_leftover_stays(self, tmp_path: Path, place: str, link: bool) -> None:
        _piece(tmp_path / "out", {"what": "another"})
        folder = tmp_path / "out.partial" / place
        folder.mkdir(parents=True, exist_ok=True)
        kept = _keep(tmp_path / "home" if link else folder)
        if link:
            (folder / "photos").symlink_to(kept.parent)
        try:
            with Pieces(tmp_path / "out", {"what": "mine"}, restart=True) as pieces:
                with pieces.next_piece() as (writer, _):
                    writer.add_topic("/note", "std_msgs/msg/String")
                with pieces.final() as writer:
                    writer.add_topic("/note", "std_msgs/msg/String")
        except BagError as error:  # it is in the way
            assert re.search("move it away|remove it first", str(error))
        assert (folder / "photos" / "keep.txt").read_text() == KEPT

    @pytest.mark.parametrize(
        "make",
        [lambda path: (path / "photos").mkdir(), lambda path: (path / "x.mcap").mkdir(),
         lambda path: (path / "x.db3").symlink_to("/dev/null")],
        ids=["a folder", "a folder named like a recording", "a link"],
    )  # fmt: skip
    def test_overwriting_a_recording_refuses_what_else_is_in_it(
        self, tmp_path: Path, make: Callable[[Path], object]
    ) -> None:
        path = record(tmp_path / "bag", 1)
        make(path)
        before = sorted(item.name for item in path.iterdir())
        with pytest.raises(BagError, match="got one that holds"):
            BagWriter(path, overwrite=True)
        assert sorted(item.name for item in path.iterdir()) == before

    @pytest.mark.parametrize("target", ["bag", "nowhere"])
    def test_a_recording_is_never_written_through_a_link(self, tmp_path: Path, target: str) -> None:
        before = files(record(tmp_path / "bag", 1))
        (tmp_path / "link").symlink_to(tmp_path / target)
        for overwrite in (False, True):
            with pytest.raises(BagError):
                BagWriter(tmp_path / "link", overwrite=overwrite)
        assert files(tmp_path / "bag") == before and not (tmp_path / "nowhere").exists()


class TestStopped:
    PAIRS, STOP = 43, 10

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_keeps_the_pairs_that_are_done(
        self, tmp_path: Path, options: list[str], number: signal.Signals
    ) -> None:
        source = record(tmp_path / "in", self.PAIRS)
        command = ["bag", source, tmp_path / "out", *options, "--steps", "2"]
        process = subprocess.Popen(
            [sys.executable, "-m", "textdifuse_ros.cli.main", *map(str, command)], stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        told, done = b"", 0
        while done < self.STOP and (block := os.read(process.stderr.fileno(), 4096)):
            told += block
            done = max((int(found) for found in re.findall(rb"(\d+)/%d " % self.PAIRS, told)), default=0)
        process.send_signal(number)
        rest = process.communicate()[1].decode()
        assert process.returncode == (130 if number == signal.SIGINT else 143), rest
        assert "Traceback" not in rest
        notes = [read_notes(piece)["piece"] for piece in (tmp_path / "out.partial").glob("0*")]
        assert sum(json.loads(note)["pairs"] for note in notes) >= done >= self.STOP
        if number == signal.SIGINT:  # what is kept is the same
            return
        assert _fuse(source, tmp_path / "out", *options, steps=2) == 0
        assert _fuse(source, tmp_path / "whole" / "out", *options, steps=2) == 0
        assert files(tmp_path / "out") == files(tmp_path / "whole" / "out")
        assert not (tmp_path / "out.partial").exists()
