"""Recordings as other programs write, edit, compress and rename them: read whole, or refused for the true reason."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from bag_makers import PERIOD, START, record, scene
from mcap_maker import OPTIONAL, Channel, Message, write_mcap
from recording_contents import (
    CHANNELS,
    INFRARED,
    PAIRS,
    VISIBLE,
    camera_messages,
    edit_metadata,
    expected,
    read_all,
    remarks_of,
)
from rosbags.highlevel import AnyReader

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.cli.main import main
from textdifuse_ros.errors import BagError
from textdifuse_ros.nodes.sources import BagSource

if sys.version_info >= (3, 14):
    pass
else:
    pass


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


class TestMetadata:
    @pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
    @pytest.mark.parametrize("topics", [(VISIBLE,), (VISIBLE, INFRARED, "/note")], ids=["one topic", "all topics"])
    @pytest.mark.parametrize("edit", QOS)
    def test_qos_never_decides_which_messages_are_read(
        self, tmp_path: Path, storage: str, topics: tuple[str, ...], edit: str
    ) -> None:
        path = record(tmp_path / "in", PAIRS, storage=storage)
        before = read_all(path)

        def change(information: dict[str, Any]) -> None:
            for about in _topics(information):
                if about["name"] in topics:
                    about["offered_qos_profiles"] = [{**OFFER}]
                    QOS[edit](about["offered_qos_profiles"][0])

        edit_metadata(path, change)
        assert read_all(path) == before and not remarks_of(path)

    def test_the_edited_qos_is_what_is_played(self, tmp_path: Path) -> None:
        def change(information: dict[str, Any]) -> None:
            for about in _topics(information):
                about["offered_qos_profiles"] = [{**OFFER, "durability": "transient_local", "depth": 3}]

        with BagReader(edit_metadata(record(tmp_path / "in", 1), change)) as bag:
            assert bag.latched() == {VISIBLE: 3, INFRARED: 3, "/note": 3}

    @pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
    @pytest.mark.parametrize("count", [0, 3, 99])
    def test_counts_that_differ_from_the_messages_are_said_with_the_topic(
        self, tmp_path: Path, storage: str, count: int
    ) -> None:
        def change(information: dict[str, Any]) -> None:
            information["topics_with_message_count"][1]["message_count"] = count

        path = edit_metadata(record(tmp_path / "in", PAIRS, storage=storage), change)
        assert len(read_all(path)) == 2 * PAIRS + 1
        assert remarks_of(path) == [f"metadata.yaml counts {count} messages of {VISIBLE}, {PAIRS} were read"]

    def test_every_reader_says_that_counts_differ(
        self, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def change(information: dict[str, Any]) -> None:
            for entry in information["topics_with_message_count"]:
                entry["message_count"] += 3

        path = edit_metadata(record(tmp_path / "in", PAIRS), change)
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
            write_mcap(path / name, CHANNELS, camera_messages()[part])
        (path / "in.mcap").unlink()
        edit_metadata(path, lambda information: information.update(relative_file_paths=["in_0.mcap", "in_1.mcap"]))
        assert read_all(path) == expected()
        edit_metadata(path, lambda information: information.update(relative_file_paths=["in_0.mcap"]))
        assert "in_1.mcap is not named in metadata.yaml, and was not read" in remarks_of(path)
        assert f"metadata.yaml counts {PAIRS} messages of {VISIBLE}, 2 were read" in remarks_of(path)

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
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, camera_messages(), without=without)
        assert read_all(path) == expected() and not remarks_of(path)
        with BagReader(path) as bag:
            assert bag.counts() == {VISIBLE: PAIRS, INFRARED: PAIRS}
            assert (bag.start_ns, bag.duration_ns) == (START, (PAIRS - 1) * PERIOD + 1)
            assert [item.topic for item in bag.messages([INFRARED])] == [INFRARED] * PAIRS

    @pytest.mark.parametrize("summary", [True, False])
    @pytest.mark.parametrize("chunked", [True, False])
    def test_messages_come_in_the_order_of_time_however_they_lie(
        self, tmp_path: Path, summary: bool, chunked: bool
    ) -> None:
        mixed = [camera_messages()[index] for index in (5, 0, 7, 2, 4, 1, 6, 3)]
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, mixed, summary=summary, chunked=chunked)
        assert read_all(path) == expected()

    @pytest.mark.parametrize("compression", ["lz4", "zstd"])
    def test_compressed_chunks_are_read_and_an_unknown_compression_is_named(
        self, tmp_path: Path, compression: str
    ) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, camera_messages(), compression=compression)
        assert read_all(path) == expected()
        path.write_bytes(path.read_bytes().replace(compression.encode(), b"lzma"[: len(compression)]))
        with pytest.raises(BagError, match="compressed by lz4 or zstd, got 'lzm"):
            read_all(path)

    @pytest.mark.parametrize("size", [10, 2**20])
    def test_a_compressed_chunk_larger_than_it_claims_is_refused(self, tmp_path: Path, size: int) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, camera_messages(), compression="zstd", claimed_size=size)
        with pytest.raises(BagError, match=r"more|in place of"):
            read_all(path)

    @pytest.mark.parametrize("profile", ["", "ros1", "px4", "x" * 300])
    def test_the_profile_does_not_matter(self, tmp_path: Path, profile: str) -> None:
        assert read_all(write_mcap(tmp_path / "drive.mcap", CHANNELS, camera_messages(), profile=profile)) == expected()

    @pytest.mark.parametrize("encoding", ["ros2idl", "omgidl", "", "unknown", "jsonschema"])
    def test_the_encoding_of_the_schema_does_not_matter(self, tmp_path: Path, encoding: str) -> None:
        channels = [Channel(one.topic, IMAGE_TYPE, schema_encoding=encoding) for one in CHANNELS]
        assert read_all(write_mcap(tmp_path / "drive.mcap", channels, camera_messages())) == expected()

    @pytest.mark.parametrize("name", ["sensor_msgs::msg::Image", "sensor_msgs/Image"])
    def test_types_in_the_writing_of_dds_and_ros_1_are_known(self, tmp_path: Path, name: str) -> None:
        channels = [Channel(one.topic, name) for one in CHANNELS]
        assert read_all(write_mcap(tmp_path / "drive.mcap", channels, camera_messages())) == expected()

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
        messages = [*camera_messages(), Message(3, START, b"{}")]
        path = write_mcap(tmp_path / "drive.mcap", [*CHANNELS, foreign], messages, without=without)
        assert read_all(path) == expected()
        assert remarks_of(path) == [f"left out, not CDR messages of ROS 2: /gps ({reason})"]
        with BagReader(path) as bag, pytest.raises(BagError, match=f"/gps .* CDR messages of ROS 2, got {reason}"):
            next(bag.messages(["/gps"]))
        with pytest.raises(BagError, match=f"got {reason}"):
            BagSource(path, others="/gps")

    def test_of_a_topic_in_two_encodings_the_readable_messages_are_read(self, tmp_path: Path) -> None:
        messages = [*camera_messages(), Message(3, START, b"{}")]
        path = write_mcap(tmp_path / "drive.mcap", [*CHANNELS, Channel(VISIBLE, "Image", "json")], messages)
        assert read_all(path) == expected()
        assert remarks_of(path) == [f"left out, not CDR messages of ROS 2: {VISIBLE} (json)"]
        BagSource(path, others=VISIBLE).close()

    def test_copying_all_topics_names_those_that_are_left_out(
        self, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        messages = [*camera_messages(), Message(3, START, b"{}")]
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
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, camera_messages(), missing_schemas=True)
        with pytest.raises(BagError, match="no type: schema 1 is not in the file"):
            BagReader(path)

    def test_wrong_statistics_are_said_and_every_message_is_read(self, tmp_path: Path) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, camera_messages(), miscount=2)
        assert read_all(path) == expected()
        assert f"the index of the file counts {PAIRS + 2} messages of {VISIBLE}, {PAIRS} were read" in remarks_of(path)

    @pytest.mark.parametrize("size", [2**40, 2**63])
    def test_a_chunk_that_claims_a_size_beyond_all_bounds_is_refused(self, tmp_path: Path, size: int) -> None:
        path = write_mcap(tmp_path / "drive.mcap", CHANNELS, camera_messages(), claimed_size=size, without=OPTIONAL[:1])
        with pytest.raises(BagError, match=f"at most 1073741824 bytes, got {size}"):
            BagReader(path)

    def test_a_flipped_bit_in_a_recording_of_ours_is_found_by_its_checksum(self, tmp_path: Path) -> None:
        (file,) = record(tmp_path / "in", PAIRS).glob("*.mcap")
        content = bytearray(file.read_bytes())
        content[content.index(scene(0)[0].tobytes()) + 5000] ^= 1
        file.write_bytes(content)
        with pytest.raises(BagError, match="another checksum"):
            read_all(file)


def test_a_type_that_only_the_recording_defines_is_copied(tmp_path: Path, tiny_checkpoint: Path) -> None:
    text = "Part part\n" + "=" * 80 + "\nMSG: acme_msgs/Part\nuint8 number\n"
    channels = [*CHANNELS, Channel("/part", "acme_msgs/msg/Whole", text=text)]
    path = write_mcap(tmp_path / "in.mcap", channels, [*camera_messages(), Message(3, START, b"\0\1\0\0\7")])
    given = ["--copy-topics", "--model", str(tiny_checkpoint), "--steps", "1", "--device", "cpu"]
    assert main(["bag", str(path), str(tmp_path / "out"), *given]) == 0
    with AnyReader([tmp_path / "out"]) as reader:
        ((connection, _, raw),) = reader.messages([one for one in reader.connections if one.topic == "/part"])
        whole: Any = reader.deserialize(raw, connection.msgtype)
    assert whole.part.number == 7
