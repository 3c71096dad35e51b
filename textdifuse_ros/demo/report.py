"""The results of the demo: counters, a contact sheet, a video and a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from textdifuse_ros.bags.definitions import common_types
from textdifuse_ros.bags.reader import BagImage, BagReader
from textdifuse_ros.errors import InputError
from textdifuse_ros.image.encodings import decode_image, to_infrared, to_visible
from textdifuse_ros.image.files import find_pairs, read_infrared, read_visible, write_png
from textdifuse_ros.image.labels import draw_text, letter_height, plain_text, text_width, wrap_text
from textdifuse_ros.image.sheets import contact_sheet, to_display
from textdifuse_ros.image.video import write_video

FUSED_TOPIC, OVERLAY_TOPIC = "/fusion_node/fused", "/fusion_node/overlay"
OBJECTS_TOPIC = "/fusion_node/objects"
COLUMNS = ("visible", "infrared", "fused", "overlay")
SHEET_ROWS = 4
CELL_WIDTH = 480  # width of one image in the video [pixel]
_INK = (235, 235, 235)


class Input(Protocol):
    """The input images of the node, looked up by the stamp of a fused image."""

    def pair(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the visible and the infrared image: uint8 or uint16 [H, W, 3] RGB and [H, W].

        :param stamp_ns: stamp of the fused image [ns], not below that of the last call
        """
        ...


class RecordedInput:
    """Images of a recording.

    :param bag: the recording
    :param visible: topic of the visible images
    :param infrared: topic of the infrared images
    """

    def __init__(self, bag: Path, visible: str, infrared: str) -> None:
        self._reader = BagReader(bag)
        self._visible = self._reader.images(visible)
        self._infrared = _NearestImage(BagReader(bag).images(infrared))

    def pair(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the visible image of ``stamp_ns`` and the nearest infrared one; see :class:`Input`.

        :raises InputError: no visible image has this stamp
        """
        visible = next((image for image in self._visible if image.stamp_ns == stamp_ns), None)
        if visible is None:
            remedy = "another node seems to publish in the run's ROS domain; run again, which takes another"
            raise InputError("the stamp of a fused image", "that of an image that was played", stamp_ns, remedy)
        return to_visible(pixels(visible)), to_infrared(pixels(self._infrared.find(stamp_ns)))


class _NearestImage:
    """Finds the image nearest to a stamp; stamps must not decrease."""

    def __init__(self, images: Iterator[BagImage]) -> None:
        self._images = images
        self._current = next(images)
        self._next: BagImage | None = next(images, None)

    def find(self, stamp_ns: int) -> BagImage:
        while self._next is not None and abs(self._next.stamp_ns - stamp_ns) <= abs(self._current.stamp_ns - stamp_ns):
            self._current, self._next = self._next, next(self._images, None)
        return self._current


class FolderInput:
    """Pairs of a folder, as the player stamps them.

    :param folder: folder with ``vis/`` and ``ir/``
    :param start_ns: stamp of the first pair [ns]
    :param rate_hz: rate of the pairs [Hz]
    """

    def __init__(self, folder: Path, start_ns: int, rate_hz: float) -> None:
        self._pairs = find_pairs(folder / "vis", folder / "ir").pairs
        self._start_ns = start_ns
        self._period_ns = round(1e9 / rate_hz)

    def pair(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pair played at ``stamp_ns``; see :class:`Input`."""
        found = self._pairs[round((stamp_ns - self._start_ns) / self._period_ns) % len(self._pairs)]
        return read_visible(found.visible), read_infrared(found.infrared)


def pixels(image: BagImage) -> np.ndarray:
    """Decode a recorded ``image``: uint8 or uint16 [H, W] or [H, W, 3] RGB."""
    return decode_image(image.data, image.height, image.width, image.step, image.encoding, image.is_bigendian)


def make_images(source: Input, output: Path) -> int:
    """Write ``contact_sheet.png`` and ``drive.mp4`` from the recorded fused images, their inputs and overlays, if any.

    :param source: the input images
    :param output: folder with ``fused_bag``, which gets both files
    :returns: number of fused images in ``fused_bag``
    :raises BagError: a fused image cannot be read
    :raises InputError: a fused image does not belong to this source
    """
    with BagReader(output / "fused_bag") as bag, BagReader(output / "fused_bag") as second:
        count = bag.counts().get(FUSED_TOPIC, 0)
        if not count:
            return 0
        overlays = _NearestImage(second.images(OVERLAY_TOPIC)) if bag.counts().get(OVERLAY_TOPIC) else None
        texts = {stamp: text for stamp, text, _ in _read_objects(output)} if overlays is not None else {}
        chosen = set(np.linspace(0, count - 1, min(SHEET_ROWS, count)).round().astype(int).tolist())
        rows: list[list[np.ndarray | None]] = []
        labels: list[str] = []
        stamps = [image.stamp_ns for image in bag.images(FUSED_TOPIC)]

        def frames() -> Iterator[np.ndarray]:
            for index, image in enumerate(bag.images(FUSED_TOPIC)):
                row: list[np.ndarray | None] = [*source.pair(image.stamp_ns), pixels(image)]
                if overlays is not None:
                    overlay = overlays.find(image.stamp_ns)
                    row.append(pixels(overlay) if overlay.stamp_ns == image.stamp_ns else None)
                text = f" '{texts[image.stamp_ns]}'" if image.stamp_ns in texts else ""
                label = f"{(image.stamp_ns - stamps[0]) / 1e9:.1f} s{text}"
                if index in chosen:
                    rows.append(row)
                    labels.append(label)
                yield _video_frame(row, label)

        seconds = (stamps[-1] - stamps[0]) / 1e9
        write_video(output / "drive.mp4", frames(), min(max((count - 1) / seconds, 1.0), 60.0) if seconds > 0 else 1.0)
    write_png(output / "contact_sheet.png", contact_sheet(rows, COLUMNS[: len(rows[0])], labels=labels))
    return count


def read_texts(output: Path) -> list[dict[str, Any]]:
    """Summarize the texts of the recorded images, one entry per sequence of images with the same text.

    :param output: folder with ``fused_bag``
    :returns: ``text``, ``frames``, ``waiting`` (frames before its first result), ``with_objects``, ``first_stamp_ns``
        and ``last_stamp_ns`` [ns]
    """
    entries: list[dict[str, Any]] = []
    for stamp, text, objects in _read_objects(output):
        if not entries or entries[-1]["text"] != text:
            entries.append({"text": text, "frames": 0, "waiting": 0, "with_objects": 0, "first_stamp_ns": stamp})
        entry = entries[-1]
        entry["frames"] += 1
        entry["waiting"] += objects["masks"]["state"] == "waiting"
        entry["with_objects"] += bool(objects["objects"])
        entry["last_stamp_ns"] = stamp
    return entries


def _read_objects(output: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield stamp [ns], text and ``~/objects`` message of each image."""
    store = common_types()
    with BagReader(output / "fused_bag") as bag:
        if not bag.counts().get(OBJECTS_TOPIC):
            return
        for message in bag.messages([OBJECTS_TOPIC]):
            string: Any = store.deserialize_cdr(message.data, "std_msgs/msg/String")
            objects = json.loads(string.data)
            stamp = objects["header"]["stamp"]
            yield stamp["sec"] * 10**9 + stamp["nanosec"], objects["text"], objects


def _video_frame(row: list[np.ndarray | None], label: str) -> np.ndarray:
    """Lay out one frame of the video: names and label in a band above the images. All frames of a run have one size."""
    assert row[0] is not None
    height = round(CELL_WIDTH * row[0].shape[0] / row[0].shape[1])
    letters = letter_height(1.2 * height)
    band = np.zeros((2 * letters, CELL_WIDTH * len(row), 3), np.uint8)
    for index, name in enumerate(COLUMNS[: len(row)]):
        draw_text(band, name, index * CELL_WIDTH + letters // 2, round(1.5 * letters), letters, _INK)
    room = CELL_WIDTH - text_width(COLUMNS[0], letters) - 2 * letters
    text = wrap_text(plain_text(label), letters, room)[0]
    draw_text(band, text, CELL_WIDTH - text_width(text, letters) - letters // 2, round(1.5 * letters), letters, _INK)
    images = [_cell(image, height) for image in row]
    return np.concatenate((band, np.concatenate(images, axis=1)))


def _cell(image: np.ndarray | None, height: int) -> np.ndarray:
    """Fit an image into a black cell of the video: uint8 [height, W, 3]."""
    cell = np.zeros((height, CELL_WIDTH, 3), np.uint8)
    if image is None:
        return cell
    image = to_display(image)
    scale = min(CELL_WIDTH / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (height - size[1]) // 2, (CELL_WIDTH - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell


@dataclass(frozen=True)
class RunCounters:
    """Accounts for every pair.

    :ivar pairs_in: pairs published by the player
    :ivar fused: pairs fused by the node
    :ivar dropped: dropped pairs by reason; ``transport`` did not reach the node, ``superseded`` were replaced by newer
        pairs
    :ivar waiting: pairs neither fused nor dropped at the end
    :ivar recorded: images in ``fused_bag``
    :ivar node: statistics of the node
    :ivar texts: texts of the recorded images, see :func:`read_texts`
    :ivar requested: texts that were set, in order
    """

    pairs_in: int
    fused: int
    dropped: dict[str, int]
    waiting: int
    recorded: int
    node: Mapping[str, Any]
    texts: Sequence[Mapping[str, Any]] = ()
    requested: Sequence[str] = ()

    @classmethod
    def from_report(
        cls,
        report: Mapping[str, Any],
        recorded: int,
        texts: Sequence[Mapping[str, Any]] = (),
        requested: Sequence[str] = (),
    ) -> RunCounters:
        """Create the counters of a run.

        :param report: reports of the programs, from :func:`.launch`
        :param recorded: number of images in ``fused_bag``
        :param texts: texts of the recorded images, see :func:`read_texts`
        :param requested: texts that were set, in order
        """
        node = report["node"]
        pairs = report["player"]["pairs"]
        dropped = {"transport": pairs - node["received"], "superseded": 0, **node["dropped"]}
        return cls(pairs, node["fused"], dropped, node["waiting"], recorded, node, texts, requested)

    def faults(self) -> list[str]:
        """Return what is inconsistent, one line each; empty if nothing is."""
        faults = []
        if self.pairs_in != self.fused + sum(self.dropped.values()) or self.waiting or min(self.dropped.values()) < 0:
            faults.append(
                f"the pairs must add up: {self.pairs_in} in, {self.fused} fused, {self.waiting} waiting, "
                f"dropped {self.dropped}"
            )
        if not self.fused:
            faults.append("at least one pair must be fused, got none; see the logs")
        if self.recorded != self.fused:
            faults.append(f"fused_bag must hold every fused image ({self.fused}), got {self.recorded}")
        found = [entry["text"] for entry in self.texts]
        frames = sum(entry["frames"] for entry in self.texts)
        if self.requested and (found != list(self.requested) or frames != self.fused):
            actual = ", ".join(f"{entry['frames']} with {entry['text']!r}" for entry in self.texts) or "none"
            expected = ", then ".join(map(repr, self.requested))
            faults.append(f"each of the {self.fused} fused images must report its text, {expected}, got {actual}")
        return faults

    def summary(self) -> dict[str, Any]:
        """Return the part of ``summary.json`` that describes the run."""
        latency = self.node["latency_ms"]
        return {
            "pairs_in": self.pairs_in,
            "fused": self.fused,
            "dropped": self.dropped,
            "texts": list(self.texts),
            "latency_ms": {"median": latency["median"], "p99": latency["p99"]},
            **{name: self.node[name] for name in ("device", "steps", "sampler", "seed", "model", "weights")},
        }


def table(summary: Mapping[str, Any], output: Path) -> str:
    """Format ``summary`` (``summary.json``) of the run in ``output`` for the terminal."""
    lost = ", ".join(f"{reason} {count}" for reason, count in summary["dropped"].items() if count)
    latency = summary["latency_ms"]
    lines = [
        ("pairs in", f"{summary['pairs_in']} at {summary['rate_hz']:.2f} Hz, {summary['source']}"),
        ("fused", f"{summary['fused']}, {summary['steps']} steps on {summary['device']}, model {summary['model']}"),
        ("dropped", f"{sum(summary['dropped'].values())}" + (f" ({lost})" if lost else "")),
        *(("text", _describe_text(entry)) for entry in summary["texts"]),
        ("latency", f"{latency['median']} ms median, {latency['p99']} ms p99"),
        ("time", f"{summary['seconds']['total']:.0f} s"),
        ("output", f"{output}: contact_sheet.png, drive.mp4, fused_bag/, summary.json"),
    ]
    return "\n".join(f"{name:>8}  {text}" for name, text in lines)


def _describe_text(entry: Mapping[str, Any]) -> str:
    return f"'{entry['text']}' in {entry['frames']} images, {entry['with_objects']} of them with objects"
