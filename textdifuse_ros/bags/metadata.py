"""What the metadata.yaml of a recording says, and the files that it means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml
from rosbags.interfaces import Qos

from textdifuse_ros.bags.storage import CDR, qos_of
from textdifuse_ros.errors import BagError, quote

METADATA = "metadata.yaml"
PACKED = (".zstd", ".zst")
STORED = (".mcap", ".db3")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class ListedTopic:
    """A topic of metadata.yaml.

    :ivar type: message type
    :ivar encoding: of its messages
    :ivar digest: hash of the type; may be empty
    :ivar qos: offered by its publishers; what ``ros2 bag play`` offers
    :ivar count: number of messages
    """

    type: str
    encoding: str
    digest: str
    qos: list[Qos]
    count: int


@dataclass(frozen=True)
class Metadata:
    """The content of a metadata.yaml.

    :ivar files: names of the storage files, in the order of time
    :ivar topics: its topics by name
    """

    files: list[str]
    topics: dict[str, ListedTopic]


def read_information(folder: Path) -> dict[str, Any]:
    """Return the content of the folder's metadata.yaml.

    :param folder: a rosbag2 folder
    :raises OSError: the file cannot be read
    :raises ValueError: it is not the metadata of a recording
    """
    try:
        content = yaml.load((folder / METADATA).read_text(encoding="utf-8"), _LOADER)
        return dict(content["rosbag2_bagfile_information"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{METADATA}: {type(error).__name__} {quote(text)}") from error


def parse_metadata(information: dict[str, Any]) -> Metadata:
    """Return files and topics of the metadata.

    :param information: the content of metadata.yaml
    :raises ValueError: a part is missing or of another kind
    """
    topics: dict[str, ListedTopic] = {}
    try:
        files = [_text(name) for name in list(information["relative_file_paths"])]
        for entry in information.get("topics_with_message_count") or []:
            about, count = entry["topic_metadata"], int(entry["message_count"])
            name = _text(about["name"])
            count += topics[name].count if name in topics else 0
            topics[name] = ListedTopic(
                _text(about["type"]),
                _text(about.get("serialization_format", CDR)),
                _text(about.get("type_description_hash") or ""),
                qos_of(about.get("offered_qos_profiles")),
                count,
            )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{METADATA}: {type(error).__name__} {quote(str(error))}") from error
    return Metadata(files, topics)


def _text(value: object) -> str:
    """Return a value that is a text; another one is never written out, since YAML aliases can multiply it."""
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} in place of a text")
    return value


def is_recording(path: Path) -> bool:
    """Return whether a folder looks like a recording, whatever its state; a ROS 1 bag counts.

    :param path: the folder
    """
    kinds = (*STORED, *PACKED, ".bag", ".active")
    return path.is_dir() and any(item.name == METADATA or item.suffix in kinds for item in path.iterdir())


def storage_files(folder: Path) -> list[Path]:
    """Return the storage files of a rosbag2 folder, which metadata.yaml need not name.

    :param folder: the folder
    """
    return sorted(item for item in folder.iterdir() if item.suffix in STORED or _unpacked(item.name) != item.name)


def find_files(folder: Path, names: list[str]) -> tuple[list[Path], list[str]]:
    """Find the storage files that metadata.yaml names; compressed or decompressed by hand they are the same.

    :param folder: the folder
    :param names: as metadata.yaml has them
    :returns: the files, and a remark on each file that is not named
    :raises BagError: a file is missing
    """
    found, missing = [], []
    for name in names:
        plain = _unpacked(PurePath(name).name)
        tried = dict.fromkeys([PurePath(name).name, *(plain + suffix for suffix in ("", *PACKED))])
        file = next((folder / other for other in tried if other and (folder / other).is_file()), None)
        if file is None:
            missing.append(name)
        else:
            found.append(file)
    known = {_unpacked(path.name) for path in found}
    others = [path for path in storage_files(folder) if _unpacked(path.name) not in known]
    if missing or not names:
        raise _incomplete(folder, missing, others)
    return found, [f"{path.name} is not named in {METADATA}, and was not read" for path in others]


def _incomplete(folder: Path, missing: list[str], others: list[Path]) -> BagError:
    named = quote(missing[0]) if missing else "no file"
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    what = f"the files that {folder / METADATA} names"
    if others:
        remedy = f"name that file, {others[0]}, or recreate {METADATA} by `ros2 bag reindex {folder}`"
        return BagError(what, "in its folder", f"{others[0].name} in place of {named}{more}", remedy)
    remedy = f"bring it back, or recreate {METADATA} by `ros2 bag reindex {folder}`"
    return BagError(what, "in its folder", f"no {named}{more}", remedy)


def _unpacked(name: str) -> str:
    """Return the name of a storage file without the suffix of a compression as a whole."""
    for suffix in PACKED:
        if name.endswith(tuple(stored + suffix for stored in STORED)):
            return name.removesuffix(suffix)
    return name
