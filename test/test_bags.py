"""Recordings: messages are read back as written, and a bad recording is refused in one clear line."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagMessage, BagReader, decode_image_message
from textdifuse_ros.bags.writer import STORAGES, BagWriter
from textdifuse_ros.errors import BagError, ImageError

START = 1_700_000_000_000_000_000
STEP = 100_000_000
STRING = b"\x00\x01\x00\x00\x03\x00\x00\x00hi\x00"  # CDR of a std_msgs/msg/String "hi"


def _images(index: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(index)
    color = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return color, random.integers(0, 256, (10, 14), dtype=np.uint8)


def _record(path: Path, storage: str = "mcap", frames: int = 5) -> Path:
    with BagWriter(path, storage) as bag:
        bag.add_topic("/note", "std_msgs/msg/String")
        for index in range(frames):
            visible, infrared = _images(index)
            now = START + index * STEP
            bag.write_image("/visible/image", now, "visible_camera", visible, now - 7)
            bag.write_image("/infrared/image", now + 3_000_000, "infrared_camera", infrared)
        bag.write_raw("/note", START + frames * STEP, STRING)
    return path


@pytest.mark.parametrize("storage", STORAGES)
class TestRoundTrip:
    def test_images_come_back_with_their_headers(self, tmp_path: Path, storage: str) -> None:
        with BagReader(_record(tmp_path / "bag", storage)) as bag:
            visible, infrared = list(bag.images("/visible/image")), list(bag.images("/infrared/image"))
        assert len(visible) == len(infrared) == 5
        for index, (color, grey) in enumerate(zip(visible, infrared, strict=True)):
            expected_color, expected_grey = _images(index)
            now = START + index * STEP
            assert (color.log_ns, color.stamp_ns, color.frame_id) == (now, now - 7, "visible_camera")
            assert (color.height, color.width, color.step, color.encoding) == (12, 16, 48, "rgb8")
            assert (grey.height, grey.width, grey.step, grey.encoding) == (10, 14, 14, "mono8")
            assert grey.stamp_ns == grey.log_ns == now + 3_000_000
            assert not color.is_bigendian
            np.testing.assert_array_equal(color.data.reshape(12, 16, 3), expected_color)
            np.testing.assert_array_equal(grey.data.reshape(10, 14), expected_grey)
            assert not color.data.flags.owndata, "the pixels must be a view of the message"

    def test_messages_are_read_in_order_of_time_with_their_raw_bytes(self, tmp_path: Path, storage: str) -> None:
        with BagWriter(tmp_path / "bag", storage) as bag:
            bag.add_topic("/note", "std_msgs/msg/String")
            for stamp in (30, 10, 20):
                bag.write_raw("/note", stamp, STRING)
        with BagReader(tmp_path / "bag") as bag:
            messages = list(bag.messages())
        assert [message.stamp_ns for message in messages] == [10, 20, 30]
        assert {bytes(message.data) for message in messages} == {STRING}

    def test_topics_counts_and_times_are_reported(self, tmp_path: Path, storage: str) -> None:
        with BagReader(_record(tmp_path / "bag", storage)) as bag:
            assert bag.topics() == {
                "/infrared/image": IMAGE_TYPE,
                "/note": "std_msgs/msg/String",
                "/visible/image": IMAGE_TYPE,
            }
            assert bag.counts() == {"/infrared/image": 5, "/note": 1, "/visible/image": 5}
            assert (bag.start_ns, bag.duration_ns) == (START, 5 * STEP)
            assert {message.topic for message in bag.messages(["/note"])} == {"/note"}
            assert len(list(bag.messages())) == 11

    def test_metadata_is_complete(self, tmp_path: Path, storage: str) -> None:
        path = _record(tmp_path / "bag", storage)
        metadata = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        assert metadata["storage_identifier"] == storage
        assert metadata["message_count"] == 11
        assert metadata["duration"]["nanoseconds"] == 5 * STEP
        assert [(path / name).is_file() for name in metadata["relative_file_paths"]] == [True]
        for entry in metadata["topics_with_message_count"]:
            assert entry["topic_metadata"]["serialization_format"] == "cdr"
            assert entry["topic_metadata"]["type_description_hash"].startswith("RIHS01_")

    def test_a_single_file_is_read_without_its_folder(self, tmp_path: Path, storage: str) -> None:
        (file,) = (item for item in _record(tmp_path / "bag", storage).iterdir() if item.suffix != ".yaml")
        with BagReader(file) as bag:
            assert bag.counts()["/visible/image"] == 5
            assert len(list(bag.images("/visible/image"))) == 5

    def test_a_cut_file_is_refused(self, tmp_path: Path, storage: str) -> None:
        path = _record(tmp_path / "bag", storage, frames=40)
        (file,) = (item for item in path.iterdir() if item.suffix != ".yaml")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(BagError, match="must be a complete rosbag2 recording") as caught, BagReader(path) as bag:
            list(bag.messages())
        assert "\n" not in str(caught.value)

    def test_an_empty_file_is_refused(self, tmp_path: Path, storage: str) -> None:
        path = _record(tmp_path / "bag", storage)
        (file,) = (item for item in path.iterdir() if item.suffix != ".yaml")
        file.write_bytes(b"")
        with pytest.raises(BagError, match="must be a complete rosbag2 recording"):
            BagReader(path)

    def test_a_recording_without_messages_is_refused(self, tmp_path: Path, storage: str) -> None:
        with BagWriter(tmp_path / "bag", storage) as bag:
            bag.add_topic("/note", "std_msgs/msg/String")
        with pytest.raises(BagError, match="must be a recording with messages, got an empty one"):
            BagReader(tmp_path / "bag")


def test_damaged_bytes_raise_only_a_bag_error(tmp_path: Path) -> None:
    """Whichever bytes are overwritten, reading succeeds or raises a BagError."""
    path = _record(tmp_path / "bag", frames=3)
    (file,) = path.glob("*.mcap")
    content = file.read_bytes()
    refused = 0
    for position in range(0, len(content), 97):
        file.write_bytes(content[:position] + b"\xff" * 16 + content[position + 16 :])
        try:
            with BagReader(path) as bag:
                list(bag.messages())
        except BagError:
            refused += 1
    assert refused > 0


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="got nothing there"):
        BagReader(tmp_path / "none")


def test_a_folder_without_metadata_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = _record(tmp_path / "bag")
    (path / "metadata.yaml").unlink()
    with pytest.raises(BagError, match=r"with a metadata\.yaml, got a folder without one; .*reindex"):
        BagReader(path)


def test_metadata_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    path = _record(tmp_path / "bag")
    (path / "metadata.yaml").write_text("[unclosed")
    with pytest.raises(BagError, match="a damaged one"):
        BagReader(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "drive.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(BagError, match=r"got a ROS 1 bag.*rosbags-convert"):
        BagReader(tmp_path / "drive.bag")


def test_an_unknown_topic_is_refused_with_a_list_of_the_known(tmp_path: Path) -> None:
    with (
        BagReader(_record(tmp_path / "bag")) as bag,
        pytest.raises(BagError, match="one of /infrared/image, /note, /visible/image, got '/vis'"),
    ):
        list(bag.messages(["/vis"]))


def test_a_topic_of_another_type_gives_no_images(tmp_path: Path) -> None:
    with (
        BagReader(_record(tmp_path / "bag")) as bag,
        pytest.raises(BagError, match="of type sensor_msgs/msg/Image, got std_msgs/msg/String"),
    ):
        list(bag.images("/note"))


def test_a_message_that_is_not_an_image_is_refused() -> None:
    with pytest.raises(BagError, match="the CDR bytes of a sensor_msgs/msg/Image"):
        decode_image_message(BagMessage("/visible/image", IMAGE_TYPE, 0, STRING))


ROCKET = {
    "acme_msgs/msg/Rocket.msg": "std_msgs/Header header\nStage[] stages\nacme_parts/Engine[2] engines\nuint8 IDLE=0\n",
    "acme_msgs/msg/Stage.msg": "float32 mass # [kg]\nstring<=8 name\n",
    "acme_parts/msg/Engine.msg": "float64 thrust\n",
}


def _installed(prefix: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = prefix / "share" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return prefix


@pytest.mark.parametrize("storage", STORAGES)
def test_a_type_of_an_installed_package_is_recorded_with_its_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    """A program without that package can decode it from the recording alone."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{_installed(tmp_path / 'ws', ROCKET)}")
    header = b"\0\1\0\0" + bytes(8) + b"\1\0\0\0\0\0\0\0"
    data = header + b"\1\0\0\0" + np.float32(7).tobytes() + b"\3\0\0\0ab\0\0" + np.array([1.5, 2.5]).tobytes()
    with BagWriter(tmp_path / "bag", storage) as bag:
        bag.add_topic("/rocket", "acme_msgs/msg/Rocket")
        bag.write_raw("/rocket", 5, data)
    monkeypatch.undo()
    with AnyReader([tmp_path / "bag"]) as reader:
        ((connection, _, raw),) = reader.messages()
        rocket = reader.deserialize(raw, connection.msgtype)
    assert (rocket.stages[0].mass, rocket.stages[0].name) == (7, "ab")
    assert [engine.thrust for engine in rocket.engines] == [1.5, 2.5]


def test_definitions_beside_the_installed_python_packages_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wheels of ROS packages install them to PREFIX/share, beside PREFIX/lib/python3.N/site-packages."""
    prefix = _installed(tmp_path / "venv", ROCKET)
    monkeypatch.syspath_prepend(prefix / "lib" / "python3.12" / "site-packages")
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/rocket", "acme_msgs/msg/Rocket")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("acme_msgs/msg/Absent", r"acme_msgs/msg/Absent must be defined by a \.msg file"),
        ("acme_msgs/msg/Half", "acme_msgs/msg/Absent, used by acme_msgs/msg/Half,"),
        ("acme_msgs/msg/Broken", r"the definition Broken\.msg of acme_msgs/msg/Broken must be readable"),
        ("acme_msgs/srv/Launch_Event", "must be defined by"),
        ("Rocket", "must be defined by"),
    ],
)
def test_a_type_without_a_definition_is_refused_and_others_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    files = {"acme_msgs/msg/Half.msg": "Absent a\n", "acme_msgs/msg/Broken.msg": "int32 = = ]\n"}
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(_installed(tmp_path, files)))
    with BagWriter(tmp_path / "bag") as bag:
        with pytest.raises(BagError, match=message):
            bag.add_topic("/x", kind)
        bag.add_topic("/note", "std_msgs/msg/String")
        bag.write_raw("/note", 1, STRING)
    with BagReader(tmp_path / "bag") as reader:
        assert reader.counts() == {"/note": 1}


def test_a_closed_bag_is_refused(tmp_path: Path) -> None:
    with BagReader(_record(tmp_path / "bag")) as bag:
        pass
    with pytest.raises(BagError, match="a closed bag"):
        list(bag.messages())
    with BagWriter(tmp_path / "other") as writer:
        writer.add_topic("/note", "std_msgs/msg/String")
    with pytest.raises(BagError, match="a closed bag"):
        writer.write_raw("/note", 0, STRING)


def test_an_existing_folder_is_only_replaced_on_request(tmp_path: Path) -> None:
    path = _record(tmp_path / "bag")
    with pytest.raises(BagError, match="must be a new folder"):
        BagWriter(path)
    with BagWriter(path, "sqlite3", overwrite=True) as bag:
        bag.write_image("/other", START, "camera", np.zeros((8, 8), np.uint8))
    with BagReader(path) as reader:
        assert list(reader.topics()) == ["/other"]


def test_overwriting_never_removes_a_folder_that_is_not_a_recording(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(BagError, match=r"one that holds letter\.txt"):
        BagWriter(tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_messages_written_before_an_exception_are_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), BagWriter(tmp_path / "bag") as bag:
        bag.write_image("/a", START, "camera", np.zeros((8, 8), np.uint8))
        raise KeyboardInterrupt
    with BagReader(tmp_path / "bag") as reader:
        assert reader.counts() == {"/a": 1}


def _killed_after_flushing(path: Path, storage: str, size: int = 0) -> None:
    """Write ten messages, flush, write more and kill the process."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        return
    with suppress(BaseException):
        bag = BagWriter(path, storage)
        bag.add_topic("/note", "std_msgs/msg/String")
        for index in range(10):
            bag.write_raw("/note", START + index, STRING)
        bag.flush()
        for index in range(10, 20):
            bag.write_raw("/note", START + index, STRING + bytes(size))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("size", [0, 2**20], ids=["in memory", "spilt into the file"])
def test_a_killed_database_keeps_exactly_the_flushed_messages(tmp_path: Path, size: int) -> None:
    _killed_after_flushing(tmp_path / "bag", "sqlite3", size)
    with BagReader(tmp_path / "bag" / "bag.db3") as bag:
        assert [message.stamp_ns - START for message in bag.messages()] == list(range(10))
    with pytest.raises(BagError, match=r"name the file inside, .*bag\.db3"):
        BagReader(tmp_path / "bag")


def test_a_recorder_killed_during_a_flush_keeps_the_flush_before(tmp_path: Path) -> None:
    """The state after the database is written and before its journal is removed, from which SQLite rolls back."""
    bag = BagWriter(tmp_path / "bag", "sqlite3")
    bag.add_topic("/note", "std_msgs/msg/String")
    for index in range(20):
        bag.write_raw("/note", START + index, STRING)
        if index == 9:
            bag.flush()
    os.link(tmp_path / "bag" / "bag.db3-journal", tmp_path / "killed.db3-journal")
    bag.flush()
    shutil.copy(tmp_path / "bag" / "bag.db3", tmp_path / "killed.db3")
    bag.close()
    with BagReader(tmp_path / "killed.db3") as found:
        assert found.counts() == {"/note": 10}
    with BagReader(tmp_path / "bag") as found:
        assert found.counts() == {"/note": 20}


def test_a_killed_mcap_file_keeps_the_flushed_messages_and_the_error_names_the_recovery(tmp_path: Path) -> None:
    _killed_after_flushing(tmp_path / "bag", "mcap")
    for path in (tmp_path / "bag", tmp_path / "bag" / "bag.mcap"):
        with pytest.raises(BagError, match=r"`mcap recover .*bag\.mcap -o .*bag_whole\.mcap`"):
            BagReader(path)
    content = (tmp_path / "bag" / "bag.mcap").read_bytes()
    assert content.count(STRING) == 10


@pytest.mark.parametrize("storage", STORAGES)
def test_a_full_disk_is_a_bag_error_and_flushed_messages_are_kept(tmp_path: Path, storage: str) -> None:
    """With a limit on the size of files, which the system reports like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    bag = BagWriter(tmp_path / "bag", storage)
    bag.add_topic("/note", "std_msgs/msg/String")
    bag.write_raw("/note", START, STRING)
    bag.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, before[1]))
    try:
        with pytest.raises(BagError, match=r"a recording that can be written, got .*; check its disk"):
            for index in range(20):
                bag.write_raw("/note", START + 1 + index, STRING + bytes(2**20))
                bag.flush()
        with pytest.raises(BagError, match="check its disk"):
            bag.write_raw("/note", START, STRING)
        bag.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if storage == "sqlite3":
        with BagReader(tmp_path / "bag" / "bag.db3") as again:
            assert next(again.messages()).data == STRING


def test_wrong_arguments_of_the_writer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="one of mcap, sqlite3, got 'zip'"):
        BagWriter(tmp_path / "zip", "zip")
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/note", "std_msgs/msg/String")
        bag.add_topic("/note", "std_msgs/msg/String")
        with pytest.raises(BagError, match="of type std_msgs/msg/String"):
            bag.write_image("/note", 0, "camera", np.zeros((8, 8), np.uint8))
        with pytest.raises(BagError, match="the message type acme_msgs/msg/Rocket must be defined"):
            bag.add_topic("/x", "acme_msgs/msg/Rocket")
        with pytest.raises(BagError, match="one that was added before, got '/y'"):
            bag.write_raw("/y", 0, STRING)
        with pytest.raises(BagError, match="at least 0"):
            bag.write_raw("/note", -1, STRING)
        with pytest.raises(ImageError, match=r"uint8 \[H, W\]"):
            bag.write_image("/a", 0, "camera", np.zeros((8, 8), np.uint16))


def test_the_database_of_an_active_recorder_is_read_as_it_is(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag", "sqlite3") as writer:
        for number in range(40):
            writer.write_image("/vis", number * 10**8, "c", np.zeros((480, 640, 3), np.uint8))
            if number == 19:
                writer.flush()
        with BagReader(next((tmp_path / "bag").glob("*.db3"))) as bag:
            assert bag.counts()["/vis"] >= 20
    with BagReader(tmp_path / "bag") as bag:
        assert bag.counts() == {"/vis": 40}
