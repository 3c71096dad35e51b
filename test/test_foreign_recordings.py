"""Recordings as other programs write, edit, compress and rename them: read whole, or refused for the true reason."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from bag_makers import PERIOD, START, STORE, image, record, scene
from mcap_maker import OPTIONAL, Channel, Message, write_mcap
from rosbags.highlevel import AnyReader
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

VISIBLE, INFRARED = "/cam/color/image_raw", "/cam/thermal/image_raw"
CHANNELS = (Channel(VISIBLE, IMAGE_TYPE), Channel(INFRARED, IMAGE_TYPE))
PAIRS = 4


def _messages(pairs: int = PAIRS) -> list[Message]:
    found = []
    for index in range(pairs):
        stamp = START + index * PERIOD
        for side, encoding in enumerate(("rgb8", "mono16")):
            found.append(Message(side + 1, stamp + side, image(scene(index)[side], stamp + side, "cam", encoding)))
    return found


def _read(path: Path) -> list[tuple[str, str, int, bytes]]:
    with BagReader(path) as bag:
        return [(item.topic, item.type, item.stamp_ns, bytes(item.data)) for item in bag.messages()]


def _expected() -> list[tuple[str, str, int, bytes]]:
    topics = {1: VISIBLE, 2: INFRARED}
    return [(topics[item.channel], IMAGE_TYPE, item.stamp_ns, item.data) for item in _messages()]


def _remarks(path: Path) -> list[str]:
    with BagReader(path) as bag:
        list(bag.messages())
        return bag.remarks()


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the content of a recording's metadata.yaml."""
    file = folder / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    change(content["rosbag2_bagfile_information"])
    file.write_text(yaml.safe_dump(content))
    return folder


def _topics(information: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry["topic_metadata"] for entry in information["topics_with_message_count"]]


QOS = {
    "durations": lambda offer: offer.update({key: {"sec": 0, "nsec": 0} for key in ("deadline", "lifespan")}),
    "durability": lambda offer: offer.update(durability="transient_local"),
    "depth": lambda offer: offer.update(depth=99),
    "reliability": lambda offer: offer.update(reliability="best_effort"),
    "another form": lambda offer: offer.update(history=[{"strange": 1}]),
    "nothing left": lambda offer: offer.clear(),
}
OFFER = {
    "history": "keep_last", "depth": 10, "reliability": "reliable", "durability": "volatile",
    "deadline": {"sec": 9, "nsec": 9}, "lifespan": {"sec": 9, "nsec": 9}, "liveliness": "automatic",
    "liveliness_lease_duration": {"sec": 9, "nsec": 9}, "avoid_ros_namespace_conventions": False,
}  # fmt: skip


def _compressed_by_rosbags(path: Path, storage: str, mode: CompressionMode) -> Path:
    """Record the messages of ``_messages`` with a compression of rosbag2."""
    writer = Writer(path, version=9, storage_plugin=STORAGES[storage])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topics = {n: writer.add_connection(one.topic, IMAGE_TYPE, typestore=STORE) for n, one in enumerate(CHANNELS, 1)}
        for message in _messages():
            writer.write(topics[message.channel], message.stamp_ns, message.data)
    return path


class TestMetadata:
    @pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
    @pytest.mark.parametrize("topics", [(VISIBLE,), (VISIBLE, INFRARED, "/note")], ids=["one topic", "all topics"])
    @pytest.mark.parametrize("edit", QOS)
    def test_qos_never_decides_which_messages_are_read(
        self, tmp_path: Path, storage: str, topics: tuple[str, ...], edit: str
    ) -> None:
        path = record(tmp_path / "in", PAIRS, storage=storage)
        before = _read(path)

        def change(information: dict[str, Any]) -> None:
            for about in _topics(information):
                if about["name"] in topics:
                    about["offered_qos_profiles"] = [{**OFFER}]
                    QOS[edit](about["offered_qos_profiles"][0])

        _edit(path, change)
        assert _read(path) == before and not _remarks(path)

    def test_the_edited_qos_is_what_is_played(self, tmp_path: Path) -> None:
        def change(information: dict[str, Any]) -> None:
            for about in _topics(information):
                about["offered_qos_profiles"] = [{**OFFER, "durability": "transient_local", "depth": 3}]

        with BagReader(_edit(record(tmp_path / "in", 1), change)) as bag:
            assert bag.latched() == {VISIBLE: 3, INFRARED: 3, "/note": 3}

    @pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
    @pytest.mark.parametrize("count", [0, 3, 99])
    def test_counts_that_differ_from_the_messages_are_said_with_the_topic(
        self, tmp_path: Path, storage: str, count: int
    ) -> None:
        def change(information: dict[str, Any]) -> None:
            information["topics_with_message_count"][1]["message_count"] = count

        path = _edit(record(tmp_path / "in", PAIRS, storage=storage), change)
        assert len(_read(path)) == 2 * PAIRS + 1
        assert _remarks(path) == [f"metadata.yaml counts {count} messages of {VISIBLE}, {PAIRS} were read"]

    def test_every_reader_says_that_counts_differ(
        self, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def change(information: dict[str, Any]) -> None:
            for entry in information["topics_with_message_count"]:
                entry["message_count"] += 3

        path = _edit(record(tmp_path / "in", PAIRS), change)
        said = f"metadata.yaml counts {PAIRS + 3} messages of {VISIBLE}, {PAIRS} were read"
        assert main(["sync-doctor", str(path)]) == 0
        assert said in capsys.readouterr().out
        given = ["--model", str(tiny_checkpoint), "--steps", "1", "--device", "cpu"]
        for _ in range(2):  # also of an output that is there already
            assert main(["bag", str(path), str(tmp_path / "out"), *given]) == 0
            assert said in capsys.readouterr().err
        main(["calibrate", str(path), "-o", str(tmp_path / "h.yaml")])
        assert said in capsys.readouterr().err
        source = BagSource(path)
        assert len(list(source.lap(0))) == 2 * PAIRS and said in source.remarks()
        source.close()

    def test_of_a_split_recording_every_file_counts(self, tmp_path: Path) -> None:
        path = record(tmp_path / "in", PAIRS)
        for name, part in (("in_0.mcap", slice(0, 4)), ("in_1.mcap", slice(4, None))):
            write_mcap(path / name, CHANNELS, _messages()[part])
        (path / "in.mcap").unlink()
        _edit(path, lambda information: information.update(relative_file_paths=["in_0.mcap", "in_1.mcap"]))
        assert _read(path) == _expected()
        _edit(path, lambda information: information.update(relative_file_paths=["in_0.mcap"]))
        assert "in_1.mcap is not named in metadata.yaml, and was not read" in _remarks(path)
        assert f"metadata.yaml counts {PAIRS} messages of {VISIBLE}, 2 were read" in _remarks(path)

    @pytest.mark.parametrize(
        "text",
        ["[unclosed", "1: 2", "rosbag2_bagfile_information: 3", "rosbag2_bagfile_information: {relative_file_paths: 3}",
         "rosbag2_bagfile_information: {relative_file_paths: [{}]}", "a: &a [x]\nb: [*a, *a]", "[" * 3000],
    )  # fmt: skip
    def test_metadata_of_another_form_is_refused(self, tmp_path: Path, text: str) -> None:
        path = record(tmp_path / "in", 1)
        (path / "metadata.yaml").write_text(text)
        with pytest.raises(BagError, match=r"metadata\.yaml") as caught:
            BagReader(path)
        assert len(str(caught.value)) < 1000


class TestMcap:
    @pytest.mark.parametrize(
        "without",
        [*((one,) for one in OPTIONAL), *itertools.combinations(OPTIONAL, 2), OPTIONAL, OPTIONAL[:4]],
        ids=", ".join,
    )
    def test_no_optional_record_is_needed(self, tmp_path: Path, without: tuple[str, ...]) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, _messages(), without=without)
        assert _read(path) == _expected() and not _remarks(path)
        with BagReader(path) as bag:
            assert bag.counts() == {VISIBLE: PAIRS, INFRARED: PAIRS}
            assert (bag.start_ns, bag.duration_ns) == (START, (PAIRS - 1) * PERIOD + 1)
            assert [item.topic for item in bag.messages([INFRARED])] == [INFRARED] * PAIRS

    @pytest.mark.parametrize("summary", [True, False])
    @pytest.mark.parametrize("chunked", [True, False])
    def test_messages_come_in_the_order_of_time_however_they_lie(
        self, tmp_path: Path, summary: bool, chunked: bool
    ) -> None:
        mixed = [_messages()[index] for index in (5, 0, 7, 2, 4, 1, 6, 3)]
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, mixed, summary=summary, chunked=chunked)
        assert _read(path) == _expected()

    @pytest.mark.parametrize("compression", ["lz4", "zstd"])
    def test_compressed_chunks_are_read_and_an_unknown_compression_is_named(
        self, tmp_path: Path, compression: str
    ) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, _messages(), compression=compression)
        assert _read(path) == _expected()
        path.write_bytes(path.read_bytes().replace(compression.encode(), b"lzma"[: len(compression)]))
        with pytest.raises(BagError, match="compressed by lz4 or zstd, got 'lzm"):
            _read(path)

    @pytest.mark.parametrize("size", [10, 2**20])
    def test_a_compressed_chunk_larger_than_it_claims_is_refused(self, tmp_path: Path, size: int) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, _messages(), compression="zstd", claimed_size=size)
        with pytest.raises(BagError, match=r"more|in place of"):
            _read(path)

    @pytest.mark.parametrize("profile", ["", "ros1", "px4", "x" * 300])
    def test_the_profile_does_not_matter(self, tmp_path: Path, profile: str) -> None:
        assert _read(write_mcap(tmp_path / "drive.mcap", CHANNELS, _messages(), profile=profile)) == _expected()

    @pytest.mark.parametrize("encoding", ["ros2idl", "omgidl", "", "unknown", "jsonschema"])
    def test_the_encoding_of_the_schema_does_not_matter(self, tmp_path: Path, encoding: str) -> None:
        channels = [Channel(one.topic, IMAGE_TYPE, schema_encoding=encoding) for one in CHANNELS]
        assert _read(write_mcap(tmp_path / "drive.mcap", channels, _messages())) == _expected()

    @pytest.mark.parametrize("name", ["sensor_msgs::msg::Image", "sensor_msgs/Image"])
    def test_types_in_the_writing_of_dds_and_ros_1_are_known(self, tmp_path: Path, name: str) -> None:
        channels = [Channel(one.topic, name) for one in CHANNELS]
        assert _read(write_mcap(tmp_path / "drive.mcap", channels, _messages())) == _expected()

    @pytest.mark.parametrize(
        ("foreign", "reason"),
        [
            (Channel("/gps", "Fix", "json", "jsonschema"), "json"),
            (Channel("/gps", "foxglove.Fix", "protobuf", "protobuf"), "protobuf"),
            (Channel("/gps", "sensor_msgs/Image", "ros1", "ros1msg"), "ros1"),
            (Channel("/gps", None, "json"), "json"),
            (Channel("/gps", "Fix", "", ""), "no encoding"),
            (Channel("/gps", None), "no type: its schema is 0"),
        ],
    )
    @pytest.mark.parametrize("without", [(), OPTIONAL[:4]], ids=["whole summary", "no summary"])
    def test_topics_that_are_not_ros_2_are_passed_over_by_name(
        self, tmp_path: Path, foreign: Channel, reason: str, without: tuple[str, ...]
    ) -> None:
        messages = [*_messages(), Message(3, START, b"{}")]
        path = write_mcap(tmp_path / "drive.mcap", [*CHANNELS, foreign], messages, without=without)
        assert _read(path) == _expected()
        assert _remarks(path) == [f"left out, not CDR messages of ROS 2: /gps ({reason})"]
        with BagReader(path) as bag, pytest.raises(BagError, match=f"/gps .* CDR messages of ROS 2, got {reason}"):
            next(bag.messages(["/gps"]))
        with pytest.raises(BagError, match=f"got {reason}"):
            BagSource(path, others="/gps")

    def test_of_a_topic_in_two_encodings_the_readable_messages_are_read(self, tmp_path: Path) -> None:
        messages = [*_messages(), Message(3, START, b"{}")]
        path = write_mcap(tmp_path / "drive.mcap", [*CHANNELS, Channel(VISIBLE, "Image", "json")], messages)
        assert _read(path) == _expected()
        assert _remarks(path) == [f"left out, not CDR messages of ROS 2: {VISIBLE} (json)"]
        BagSource(path, others=VISIBLE).close()

    def test_copying_all_topics_names_those_that_are_left_out(
        self, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        messages = [*_messages(), Message(3, START, b"{}")]
        path = write_mcap(tmp_path / "in.mcap", [*CHANNELS, Channel("/gps", "Fix", "json", "jsonschema")], messages)
        given = ["--copy-topics", "--model", str(tiny_checkpoint), "--steps", "1", "--device", "cpu"]
        assert main(["bag", str(path), str(tmp_path / "out"), *given]) == 0
        assert "left out, not CDR messages of ROS 2: /gps (json)" in capsys.readouterr().err
        with BagReader(tmp_path / "out") as bag:
            assert bag.counts()[VISIBLE] == PAIRS

    def test_a_recording_of_other_messages_alone_is_refused_with_their_encoding(self, tmp_path: Path) -> None:
        channel = Channel("/gps", "Fix", "json", "jsonschema")
        path = write_mcap(tmp_path / "drive.mcap", [channel], [Message(1, START, b"{}")])
        with pytest.raises(BagError, match=r"must be a recording of ROS 2 messages \(CDR\), got .*/gps \(json\)"):
            BagReader(path)

    def test_a_schema_that_is_nowhere_is_called_so(self, tmp_path: Path) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, _messages(), missing_schemas=True)
        with pytest.raises(BagError, match="no type: schema 1 is not in the file"):
            BagReader(path)

    def test_wrong_statistics_are_said_and_every_message_is_read(self, tmp_path: Path) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, _messages(), miscount=2)
        assert _read(path) == _expected()
        assert f"the index of the file counts {PAIRS + 2} messages of {VISIBLE}, {PAIRS} were read" in _remarks(path)

    @pytest.mark.parametrize("size", [2**40, 2**63])
    def test_a_chunk_that_claims_a_size_beyond_all_bounds_is_refused(self, tmp_path: Path, size: int) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, _messages(), claimed_size=size, without=OPTIONAL[:1])
        with pytest.raises(BagError, match=f"at most 1073741824 bytes, got {size}"):
            BagReader(path)

    def test_a_flipped_bit_in_a_recording_of_ours_is_found_by_its_checksum(self, tmp_path: Path) -> None:
        (file,) = record(tmp_path / "in", PAIRS).glob("*.mcap")
        content = bytearray(file.read_bytes())
        content[content.index(scene(0)[0].tobytes()) + 5000] ^= 1
        file.write_bytes(content)
        with pytest.raises(BagError, match="another checksum"):
            _read(file)


def _compress(file: Path, suffix: str = ".zstd") -> Path:
    packed = file.with_name(file.name + suffix)
    packed.write_bytes(zstd.compress(file.read_bytes()))
    file.unlink()
    return packed


@pytest.mark.parametrize(
    ("storage", "mode"),
    [("mcap", CompressionMode.STORAGE), *itertools.product(STORAGES, (CompressionMode.MESSAGE, CompressionMode.FILE))],
)
def test_every_compression_of_rosbag2_is_read(tmp_path: Path, storage: str, mode: CompressionMode) -> None:
    path = _compressed_by_rosbags(tmp_path / "in", storage, mode)
    assert _read(path) == _expected() and not _remarks(path)
    (file,) = (item for item in path.iterdir() if item.name != "metadata.yaml")
    assert _read(file) == _expected(), "also without its metadata"


def test_a_type_that_only_the_recording_defines_is_copied(tmp_path: Path, tiny_checkpoint: Path) -> None:
    text = "Part part\n" + "=" * 80 + "\nMSG: acme_msgs/Part\nuint8 number\n"
    channels = [*CHANNELS, Channel("/part", "acme_msgs/msg/Whole", text=text)]
    path = write_mcap(tmp_path / "in.mcap", channels, [*_messages(), Message(3, START, b"\0\1\0\0\7")])
    given = ["--copy-topics", "--model", str(tiny_checkpoint), "--steps", "1", "--device", "cpu"]
    assert main(["bag", str(path), str(tmp_path / "out"), *given]) == 0
    with AnyReader([tmp_path / "out"]) as reader:
        ((connection, _, raw),) = reader.messages([one for one in reader.connections if one.topic == "/part"])
        whole: Any = reader.deserialize(raw, connection.msgtype)
    assert whole.part.number == 7


@pytest.mark.parametrize(("storage", "ending"), [("mcap", ".mcap"), ("sqlite3", ".db3")])
class TestCompressed:
    @pytest.mark.parametrize("suffix", [".zstd", ".zst"])
    def test_a_file_compressed_as_a_whole_is_read(self, tmp_path: Path, storage: str, ending: str, suffix: str) -> None:
        path = record(tmp_path / "in", PAIRS, storage=storage)
        before = _read(path)
        packed = _compress(path / f"in{ending}", suffix)
        assert _read(packed) == before
        assert _read(path) == before, "metadata.yaml names the file without the suffix"
        packed.rename(tmp_path / f"other{ending}")
        assert _read(tmp_path / f"other{ending}") == before, "the first bytes tell, not the name"

    @pytest.mark.parametrize("suffix", [".zstd", ".zst"])
    def test_a_file_decompressed_by_hand_is_read_beside_the_old_metadata(
        self, tmp_path: Path, storage: str, ending: str, suffix: str
    ) -> None:
        def change(information: dict[str, Any]) -> None:
            information.update(
                relative_file_paths=[f"in{ending}{suffix}"], compression_mode="FILE", compression_format="zstd"
            )

        path = record(tmp_path / "in", PAIRS, storage=storage)
        before = _read(path)
        assert _read(_edit(path, change)) == before

    def test_a_renamed_file_is_named_in_the_refusal(self, tmp_path: Path, storage: str, ending: str) -> None:
        path = record(tmp_path / "in", PAIRS, storage=storage)
        (path / f"in{ending}").rename(path / f"new{ending}")
        with pytest.raises(BagError, match=rf"got new{ending} in place of 'in{ending}'; name that file, .*new{ending}"):
            BagReader(path)
        assert len(_read(path / f"new{ending}")) == 2 * PAIRS + 1

    def test_a_file_moved_away_is_missed_by_name(self, tmp_path: Path, storage: str, ending: str) -> None:
        path = record(tmp_path / "in", PAIRS, storage=storage)
        (path / f"in{ending}").unlink()
        with pytest.raises(BagError, match=rf"got no 'in{ending}'; bring it back"):
            BagReader(path)

    def test_a_compressed_file_cut_short_is_called_damaged(self, tmp_path: Path, storage: str, ending: str) -> None:
        packed = _compress(record(tmp_path / "in", PAIRS, storage=storage) / f"in{ending}")
        packed.write_bytes(packed.read_bytes()[:-100])
        with pytest.raises(BagError, match="a damaged one"):
            _read(packed)


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
