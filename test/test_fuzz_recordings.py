"""Whatever the bytes of a recording are: its messages, or a BagError of one line, within bounded memory.

Bounded in CI; longer by ``pytest test/test_fuzz_recordings.py --hypothesis-profile fuzz``.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from bag_makers import record
from hypothesis import given
from hypothesis import strategies as st
from mcap_maker import OPTIONAL, Channel, Message, write_mcap

from textdifuse_ros.bags.cameras import find_cameras
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.errors import BagError

NAMES = {"mcap": "in.mcap", "sqlite3": "in.db3"}


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-recordings-"))


@functools.cache
def _original(storage: str) -> dict[str, bytes]:
    """The files of a small recording."""
    path = record(_folder() / f"original_{storage}" / "in", 2, storage=storage)
    return {item.name: item.read_bytes() for item in path.iterdir()}


def _written(files: dict[str, bytes]) -> Path:
    path = _folder() / "in"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def _read_or_refuse(path: Path) -> int | None:
    """Return the number of messages; None if the recording is refused."""
    try:
        with BagReader(path) as bag:
            count = sum(1 for _ in bag.messages())
            bag.latched()
            assert bag.counts().keys() == bag.topics().keys() and bag.duration_ns >= 0
            assert all("\n" not in remark for remark in bag.remarks())
            try:
                find_cameras(bag)
            except BagError as error:
                assert "\n" not in str(error)
            return count
    except BagError as error:
        assert "\n" not in str(error) and len(str(error)) < 5000
        return None


@st.composite
def _damage(draw: st.DrawFn, content: bytes) -> bytes:
    """Overwrite, cut out, repeat or cut off parts."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        size = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(["overwrite", "remove", "insert", "cut"]))
        if kind == "overwrite":
            patch = draw(st.binary(min_size=size, max_size=size))
            content = content[:place] + patch + content[place + size :]
        elif kind == "remove":
            content = content[:place] + content[place + size :]
        elif kind == "insert":
            content = content[:place] + draw(st.binary(min_size=1, max_size=size)) + content[place:]
        else:
            content = content[:place]
    return content


@given(st.data(), st.sampled_from(sorted(NAMES)), st.booleans())
def test_a_damaged_storage_file_is_read_or_refused(data: st.DataObject, storage: str, alone: bool) -> None:
    files = dict(_original(storage))
    files[NAMES[storage]] = data.draw(_damage(files[NAMES[storage]]))
    path = _written(files)
    _read_or_refuse(path / NAMES[storage] if alone else path)


@given(st.data())
def test_damaged_metadata_is_read_or_refused(data: st.DataObject) -> None:
    files = dict(_original("mcap"))
    files["metadata.yaml"] = data.draw(_damage(files["metadata.yaml"]))
    _read_or_refuse(_written(files))


@given(st.binary(max_size=200), st.sampled_from(["in.mcap", "in.db3", "in.mcap.zstd", "in"]), st.sampled_from(
    [b"", b"\x89MCAP0\r\n", b"SQLite format 3\0", b"\x28\xb5\x2f\xfd", b"#ROSBAG V2.0\n"]
))  # fmt: skip
def test_any_bytes_are_read_or_refused(content: bytes, name: str, start: bytes) -> None:
    _read_or_refuse(_written({name: start + content}) / name)


_TEXT = st.text(max_size=20)


@given(
    st.lists(
        st.builds(
            Channel,
            topic=_TEXT,
            schema=st.none() | _TEXT | st.just("sensor_msgs/msg/Image"),
            encoding=st.sampled_from(["cdr", "json", ""]) | _TEXT,
            schema_encoding=_TEXT,
            text=_TEXT,
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**63 - 1), st.binary(max_size=40)), min_size=1, max_size=9),
    st.sets(st.sampled_from(OPTIONAL)),
    _TEXT,
    st.booleans(),
    st.booleans(),
)
def test_no_message_of_a_valid_file_is_lost_without_a_remark(
    channels: list[Channel],
    drawn: list[tuple[int, int, bytes]],
    without: set[str],
    profile: str,
    chunked: bool,
    summary: bool,
) -> None:
    messages = [Message(number % len(channels) + 1, stamp, data) for number, stamp, data in drawn]
    path = _written({})
    write_mcap(path / "in.mcap", channels, messages, without=without, profile=profile, chunked=chunked, summary=summary)
    count = _read_or_refuse(path / "in.mcap")
    readable = [number for number, one in enumerate(channels, 1) if one.encoding == "cdr" and one.schema]
    if count is None:
        assert not readable
        return
    assert count == sum(message.channel in readable for message in messages)
    with BagReader(path / "in.mcap") as bag:
        assert bool(bag.remarks()) == (len(readable) < len(channels))
