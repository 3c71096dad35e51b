"""Pairs of images that are not aligned yet, from two folders or from a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from textdifuse_ros.bags.cameras import find_cameras, header_stamp, topics_line
from textdifuse_ros.bags.definitions import common_types
from textdifuse_ros.bags.metadata import is_recording
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.errors import BagError, ConfigError
from textdifuse_ros.image.camera import read_camera
from textdifuse_ros.image.encodings import to_infrared, to_visible
from textdifuse_ros.image.files import find_pairs, read_infrared_levels, read_visible
from textdifuse_ros.image.gain import ThermalGain
from textdifuse_ros.image.intake import decode_message
from textdifuse_ros.image.registration import compute_rectification
from textdifuse_ros.image.swapped import swap_warning
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.image.validity import find_valid

Pair = tuple[np.ndarray, np.ndarray]
"""Visible uint8 [H, W, 3] RGB, infrared uint8 [h, w]."""


def read_pairs(
    source: Path,
    infrared: Path | None,
    limit: int,
    *,
    topics: tuple[str, str] = ("", ""),
    tolerance: float = 0.05,
    calibrations: tuple[Path | None, Path | None] = (None, None),
    report: Callable[[str], object] = lambda line: None,
) -> list[Pair]:
    """Read pairs, evenly spread over the source.

    :param source: a recording; or the visible images, if ``infrared`` is given
    :param infrared: the infrared images; None for a recording
    :param limit: maximum number of pairs; 0 reads all
    :param topics: visible and infrared topic of a recording; "" detects the topic
    :param tolerance: largest difference of the header stamps of a pair in a recording [s]
    :param calibrations: visible and infrared camera calibration, to undistort the images; None leaves them as they are
    :param report: called with a line about the topics of a recording, and about what is left out
    :raises TextDifuseError: the source is missing or not readable, or has no pair
    """
    if infrared is not None:
        pairs = _from_files(source, infrared, limit, report)
    else:
        pairs = _from_recording(source, limit, topics, round(1e9 * tolerance), report)
    for side, (path, name) in enumerate(zip(calibrations, ("visible", "infrared"), strict=True)):
        if path is not None:
            pairs = _rectify(pairs, side, path, f"the {name} camera")
    return pairs


def _evenly_spaced(count: int, limit: int) -> list[int]:
    number = count if not limit else min(limit, count)
    return [round(float(index)) for index in np.linspace(0, count - 1, number)]


def _from_files(visible: Path, infrared: Path, limit: int, report: Callable[[str], object]) -> list[Pair]:
    listing = find_pairs(visible, infrared)
    if line := swap_warning(visible, infrared, listing):
        report(f"warning: {line}")
    chosen = [listing.pairs[index] for index in _evenly_spaced(len(listing), limit)]
    return [(to_uint8(read_visible(pair.visible)), read_infrared_levels(pair.infrared)[0]) for pair in chosen]


def _from_recording(
    path: Path, limit: int, topics: tuple[str, str], tolerance_ns: int, report: Callable[[str], object]
) -> list[Pair]:
    if path.is_dir() and not is_recording(path):
        remedy = "give two folders, or a rosbag2 recording"
        raise ConfigError("the infrared images", "given together with a folder of visible ones", "nothing", remedy)
    store = common_types()
    with BagReader(path) as bag:
        names = find_cameras(bag, *topics, remedy="name it by --{camera}-topic")
        report(topics_line(names))
        stamps: dict[str, list[int]] = {name: [] for name in names}
        for message in bag.messages(names):
            stamps[message.topic].append(header_stamp(message))
        for remark in bag.remarks():
            report(remark)
        matches = _match_nearest(stamps[names[0]], stamps[names[1]], tolerance_ns)
        if not matches:
            remedy = "textdifuse sync-doctor shows how far they are apart"
            raise BagError(f"the images of {path}", f"within {tolerance_ns / 1e9:g} s of one another", "none", remedy)
        chosen = [matches[index] for index in _evenly_spaced(len(matches), limit)]
        required = {name: {pair[side] for pair in chosen} for side, name in enumerate(names)}
        found: dict[str, dict[int, np.ndarray]] = {name: {} for name in names}
        counts = dict.fromkeys(names, 0)
        gain = ThermalGain(SensorConfig(gain_time_constant=0.0))
        for message in bag.messages(names):
            index = counts[message.topic]
            counts[message.topic] += 1
            if index in required[message.topic]:
                decoded: Any = decode_message(store.deserialize_cdr(message.data, message.type))
                if message.topic == names[0]:
                    found[message.topic][index] = to_uint8(to_visible(decoded))
                else:
                    grey = decoded if decoded.ndim == 2 else to_infrared(decoded)
                    found[message.topic][index] = gain.apply(grey, 0, valid=find_valid(grey))
        return [(found[names[0]][one], found[names[1]][other]) for one, other in chosen]


def _match_nearest(visible: Iterable[int], infrared: Iterable[int], tolerance_ns: int) -> list[tuple[int, int]]:
    """Return the indices of each visible stamp and of the nearest infrared one, if within the tolerance."""
    one, other = (np.array(list(stamps), np.int64) for stamps in (visible, infrared))
    if not len(one) or not len(other):
        return []
    order = np.argsort(other, kind="stable")
    right = np.clip(np.searchsorted(other[order], one), 1, max(len(other) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(other) - 1)
    nearer = np.where(np.abs(other[order][right] - one) < np.abs(other[order][left] - one), right, left)
    near = np.abs(other[order][nearer] - one) <= tolerance_ns
    return [(int(index), int(order[nearer[index]])) for index in np.flatnonzero(near)]


def _rectify(pairs: list[Pair], side: int, path: Path, what: str) -> list[Pair]:
    camera = read_camera(path, what)
    mapping = compute_rectification(camera)
    rectified = []
    for pair in pairs:
        images = list(pair)
        camera.check_size(images[side], what)
        if mapping is not None:
            images[side] = mapping.apply(images[side])
        rectified.append((images[0], images[1]))
    return rectified
