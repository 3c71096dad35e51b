"""Files of recordings that were compressed, renamed, moved, or are of ROS 1."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from bag_makers import STORE, record
from recording_contents import (
    CHANNELS,
    PAIRS,
    camera_messages,
    edit_metadata,
    expected,
    read_all,
    remarks_of,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Writer

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.writer import STORAGES
from textdifuse_ros.cli.main import main
from textdifuse_ros.errors import BagError
from textdifuse_ros.nodes.sources import BagSource

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def _compress(file: Path, suffix: str = ".zstd") -> Path:
    packed = file.with_name(file.name + suffix)
    packed.write_bytes(zstd.compress(file.read_bytes()))
    file.unlink()
    return packed


def _compressed_by_rosbags(path: Path, storage: str, mode: CompressionMode) -> Path:
    """Record the messages of ``camera_messages`` with a compression of rosbag2."""
    writer = Writer(path, version=9, storage_plugin=STORAGES[storage])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topics = {n: writer.add_connection(one.topic, IMAGE_TYPE, typestore=STORE) for n, one in enumerate(CHANNELS, 1)}
        for message in camera_messages():
            writer.write(topics[message.channel], message.stamp_ns, message.data)
    return path


@pytest.mark.parametrize(
    ("storage", "mode"),
    [("mcap", CompressionMode.STORAGE), *itertools.product(STORAGES, (CompressionMode.MESSAGE, CompressionMode.FILE))],
)
def test_every_compression_of_rosbag2_is_read(tmp_path: Path, storage: str, mode: CompressionMode) -> None:
    path = _compressed_by_rosbags(tmp_path / "in", storage, mode)
    assert read_all(path) == expected() and not remarks_of(path)
    (file,) = (item for item in path.iterdir() if item.name != "metadata.yaml")
    assert read_all(file) == expected(), "also without its metadata"


@pytest.mark.parametrize(("storage", "ending"), [("mcap", ".mcap"), ("sqlite3", ".db3")])
class TestCompressed:
    @pytest.mark.parametrize("suffix", [".zstd", ".zst"])
    def test_a_file_compressed_as_a_whole_is_read(self, tmp_path: Path, storage: str, ending: str, suffix: str) -> None:
        path = record(tmp_path / "in", PAIRS, storage=storage)
        before = read_all(path)
        packed = _compress(path / f"in{ending}", suffix)
        assert read_all(packed) == before
        assert read_all(path) == before, "metadata.yaml names the file without the suffix"
        packed.rename(tmp_path / f"other{ending}")
        assert read_all(tmp_path / f"other{ending}") == before, "the first bytes tell, not the name"

    @pytest.mark.parametrize("suffix", [".zstd", ".zst"])
    def test_a_file_decompressed_by_hand_is_read_beside_the_old_metadata(
        self, tmp_path: Path, storage: str, ending: str, suffix: str
    ) -> None:
        def change(information: dict[str, Any]) -> None:
            information.update(
                relative_file_paths=[f"in{ending}{suffix}"], compression_mode="FILE", compression_format="zstd"
            )

        path = record(tmp_path / "in", PAIRS, storage=storage)
        before = read_all(path)
        assert read_all(edit_metadata(path, change)) == before

    def test_a_renamed_file_is_named_in_the_refusal(self, tmp_path: Path, storage: str, ending: str) -> None:
        path = record(tmp_path / "in", PAIRS, storage=storage)
        (path / f"in{ending}").rename(path / f"new{ending}")
        with pytest.raises(BagError, match=rf"got new{ending} in place of 'in{ending}'; name that file, .*new{ending}"):
            BagReader(path)
        assert len(read_all(path / f"new{ending}")) == 2 * PAIRS + 1

    def test_a_file_moved_away_is_missed_by_name(self, tmp_path: Path, storage: str, ending: str) -> None:
        path = record(tmp_path / "in", PAIRS, storage=storage)
        (path / f"in{ending}").unlink()
        with pytest.raises(BagError, match=rf"got no 'in{ending}'; bring it back"):
            BagReader(path)

    def test_a_compressed_file_cut_short_is_called_damaged(self, tmp_path: Path, storage: str, ending: str) -> None:
        packed = _compress(record(tmp_path / "in", PAIRS, storage=storage) / f"in{ending}")
        packed.write_bytes(packed.read_bytes()[:-100])
        with pytest.raises(BagError, match="a damaged one"):
            read_all(packed)


ROS1 = b"#ROSBAG V2.0\n" + b"\x45\0\0\0" + b"\x10\0\0\0conn_count=\2\0\0\0index_pos="


class TestRos1:
    @pytest.fixture(params=["drive.bag", "drive.mcap", "drive", "folder/drive.bag"])
    def bag(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        path = tmp_path / request.param
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(ROS1 + b"\x99" + bytes(7))
        return path if path.parent == tmp_path else path.parent

    @pytest.mark.parametrize(
        "verb",
        [["bag", "IN", "OUT"], ["sync-doctor", "IN"], ["calibrate", "IN", "-o", "OUT"]],
        ids=["bag", "sync-doctor", "calibrate"],
    )
    def test_every_verb_names_the_converter(
        self, bag: Path, verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        places = {"IN": str(bag), "OUT": str(tmp_path / "out")}
        assert main([places.get(word, word) for word in verb]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "got a ROS 1 bag; convert it by `rosbags-convert --src" in error
        assert not (tmp_path / "out").exists()

    def test_the_player_names_the_converter(self, bag: Path) -> None:
        with pytest.raises(BagError, match="got a ROS 1 bag; convert it by `rosbags-convert"):
            BagSource(bag)

    @pytest.mark.parametrize("name", ["drive.bag.active", "drive.bag"])
    def test_one_that_was_not_closed_is_to_be_indexed_first(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(ROS1 + bytes(8))
        with pytest.raises(BagError, match=r"that was not closed; index it by `rosbag reindex`.*rosbags-convert"):
            BagReader(tmp_path / name)

    def test_what_is_no_recording_at_all_is_not_called_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(BagError, match=re.escape("got a file 'notes.txt'")):
            BagReader(tmp_path / "notes.txt")
