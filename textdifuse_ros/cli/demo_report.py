"""What the demo leaves: the counters, a contact sheet, a video, a table."""

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
from textdifuse_ros.image.sheets import contact_sheet, to_display
from textdifuse_ros.image.video import write_video

FUSED_TOPIC, OVERLAY_TOPIC = "/fusion_node/fused", "/fusion_node/overlay"
OBJECTS_TOPIC = "/fusion_node/objects"
COLUMNS = ("visible", "infrared", "fused", "overlay")
SHEET_ROWS = 6
CELL = (480, 360)  # width and height of one of the video's images [pixels]


class Input(Protocol):
    """The images that went into the node, found again by the stamp of what came out."""

    def pair(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Visible and infrared: uint8 or uint16 [H, W, 3] RGB and [H, W]; stamps must not go back."""
        ...


class RecordedInput:
    """Images of a recording, read along with the stamps that are asked for."""

    def __init__(self, bag: Path, visible: str, infrared: str) -> None:
        self._reader = BagReader(bag)
        self._visible = self._reader.images(visible)
        self._infrared = _Nearest(BagReader(bag).images(infrared))

    def pair(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Input`.

        :raises InputError: no visible image has this stamp
        """
        visible = next((image for image in self._visible if image.stamp_ns == stamp_ns), None)
        if visible is None:
            remedy = "another node seems to publish in the run's ROS domain; run again, which takes another"
            raise InputError("the stamp of a fused image", "that of an image that was played", stamp_ns, remedy)
        return to_visible(pixels(visible)), to_infrared(pixels(self._infrared.at(stamp_ns)))


class _Nearest:
    """The image nearest to a stamp; stamps must not go back."""

    def __init__(self, images: Iterator[BagImage]) -> None:
        self._images = images
        self._here = next(images)
        self._next: BagImage | None = next(images, None)

    def at(self, stamp_ns: int) -> BagImage:
        while self._next is not None and abs(self._next.stamp_ns - stamp_ns) <= abs(self._here.stamp_ns - stamp_ns):
            self._here, self._next = self._next, next(self._images, None)
        return self._here


class FolderInput:
    """Pairs of a folder with ``vis/`` and ``ir/``, as the player stamps them.

    :param start_ns: stamp of the first pair
    :param rate_hz: pairs a second
    """

    def __init__(self, folder: Path, start_ns: int, rate_hz: float) -> None:
        self._pairs = find_pairs(folder / "vis", folder / "ir").pairs
        self._start_ns = start_ns
        self._period_ns = round(1e9 / rate_hz)

    def pair(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Input`."""
        found = self._pairs[round((stamp_ns - self._start_ns) / self._period_ns) % len(self._pairs)]
        return read_visible(found.visible), read_infrared(found.infrared)


def pixels(image: BagImage) -> np.ndarray:
    """The image of a recorded message: [H, W] or [H, W, 3] RGB, uint8 or uint16."""
    return decode_image(image.data, image.height, image.width, image.step, image.encoding, image.is_bigendian)


def make_images(source: Input, output: Path) -> int:
    """Write ``contact_sheet.png`` and ``drive.mp4`` from ``fused_bag`` and its inputs; with overlays, if there are any.

    :returns: number of fused images in ``fused_bag``
    :raises BagError: a fused image cannot be read
    :raises InputError: a fused image is not of this source
    """
    with BagReader(output / "fused_bag") as bag, BagReader(output / "fused_bag") as second:
        topic = FUSED_TOPIC
        count = bag.counts().get(topic, 0)
        if not count:
            return 0
        overlays = _Nearest(second.images(OVERLAY_TOPIC)) if bag.counts().get(OVERLAY_TOPIC) else None
        texts = {stamp: text for stamp, text, _ in _report(output)} if overlays is not None else {}
        chosen = set(np.linspace(0, count - 1, min(SHEET_ROWS, count)).round().astype(int).tolist())
        rows: list[list[np.ndarray | None]] = []
        labels: list[str] = []
        stamps = [image.stamp_ns for image in bag.images(topic)]

        def frames() -> Iterator[np.ndarray]:
            for index, image in enumerate(bag.images(topic)):
                row: list[np.ndarray | None] = [*source.pair(image.stamp_ns), pixels(image)]
                if overlays is not None:
                    overlay = overlays.at(image.stamp_ns)
                    row.append(pixels(overlay) if overlay.stamp_ns == image.stamp_ns else None)
                if index in chosen:
                    rows.append(row)
                    text = f" '{texts[image.stamp_ns]}'" if image.stamp_ns in texts else ""
                    labels.append(f"{(image.stamp_ns - stamps[0]) / 1e9:.1f} s{text}")
                yield np.concatenate([_cell(image) for image in row], axis=1)

        seconds = (stamps[-1] - stamps[0]) / 1e9
        write_video(output / "drive.mp4", frames(), min(max((count - 1) / seconds, 1.0), 60.0) if seconds > 0 else 1.0)
    write_png(output / "contact_sheet.png", contact_sheet(rows, COLUMNS[: len(rows[0])], labels=labels))
    return count


def read_texts(output: Path) -> list[dict[str, Any]]:
    """Which fused images carried which text, as ``fused_bag`` tells; one entry for each run of one text.

    :returns: ``text``, ``frames``, ``waiting`` (of them before its first result), ``with_objects``,
        ``first_stamp_ns``, ``last_stamp_ns``
    """
    runs: list[dict[str, Any]] = []
    for stamp, text, report in _report(output):
        if not runs or runs[-1]["text"] != text:
            runs.append({"text": text, "frames": 0, "waiting": 0, "with_objects": 0, "first_stamp_ns": stamp})
        run = runs[-1]
        run["frames"] += 1
        run["waiting"] += report["masks"]["state"] == "waiting"
        run["with_objects"] += bool(report["objects"])
        run["last_stamp_ns"] = stamp
    return runs


def _report(output: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Stamp [ns], text, and what the node told of the objects, of each image."""
    store = common_types()
    with BagReader(output / "fused_bag") as bag:
        if not bag.counts().get(OBJECTS_TOPIC):
            return
        for message in bag.messages([OBJECTS_TOPIC]):
            string: Any = store.deserialize_cdr(message.data, "std_msgs/msg/String")
            report = json.loads(string.data)
            stamp = report["header"]["stamp"]
            yield stamp["sec"] * 10**9 + stamp["nanosec"], report["text"], report


def _cell(image: np.ndarray | None) -> np.ndarray:
    """The whole image within a cell of the video, black around it: uint8 [H, W, 3]."""
    if image is None:
        return np.zeros((CELL[1], CELL[0], 3), np.uint8)
    image = to_display(image)
    scale = min(CELL[0] / image.shape[1], CELL[1] / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cell = np.zeros((CELL[1], CELL[0], 3), np.uint8)
    top, left = (CELL[1] - size[1]) // 2, (CELL[0] - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell


@dataclass(frozen=True)
class RunCounters:
    """Where every pair went.

    :ivar pairs_in: published by the player
    :ivar fused: by the node
    :ivar dropped: pairs by reason; ``transport`` never reached the node, ``superseded`` gave way to a newer one
    :ivar waiting: neither, at the end
    :ivar recorded: images in ``fused_bag``
    :ivar node: all that the node told
    :ivar texts: which of the recorded images carried which text, as :func:`read_texts` gives it
    :ivar asked: the texts that were set, in their order
    """

    pairs_in: int
    fused: int
    dropped: dict[str, int]
    waiting: int
    recorded: int
    node: Mapping[str, Any]
    texts: Sequence[Mapping[str, Any]] = ()
    asked: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        report: Mapping[str, Any],
        recorded: int,
        texts: Sequence[Mapping[str, Any]] = (),
        asked: Sequence[str] = (),
    ) -> RunCounters:
        """From what the processes told, what was found in ``fused_bag``, and the texts that were set."""
        node = report["node"]
        pairs = report["player"]["pairs"]
        dropped = {"transport": pairs - node["received"], "superseded": 0, **node["dropped"]}
        return cls(pairs, node["fused"], dropped, node["waiting"], recorded, node, texts, asked)

    def faults(self) -> list[str]:
        """What is wrong with them, a line each; none when all is well."""
        faults = []
        if self.pairs_in != self.fused + sum(self.dropped.values()) or self.waiting or min(self.dropped.values()) < 0:
            faults.append(
                f"the pairs must add up: {self.pairs_in} in, {self.fused} fused, {self.waiting} waiting, "
                f"dropped {self.dropped}"
            )
        if not self.fused:
            faults.append("at least one pair must be fused, got none; the logs tell why")
        if self.recorded != self.fused:
            faults.append(f"fused_bag must hold every fused image ({self.fused}), got {self.recorded}")
        carried = [run["text"] for run in self.texts]
        if self.asked and (carried != list(self.asked) or sum(run["frames"] for run in self.texts) != self.fused):
            report = ", ".join(f"{run['frames']} with {run['text']!r}" for run in self.texts) or "none"
            due = ", then ".join(map(repr, self.asked))
            faults.append(f"each of the {self.fused} fused images must tell its text, {due}, got {report}")
        return faults

    def summary(self) -> dict[str, Any]:
        """The part of ``summary.json`` that comes from the run."""
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
    """The result for people."""
    lost = ", ".join(f"{reason} {count}" for reason, count in summary["dropped"].items() if count)
    latency = summary["latency_ms"]
    lines = [
        ("pairs in", f"{summary['pairs_in']} at {summary['rate_hz']:.2f} Hz, {summary['source']}"),
        ("fused", f"{summary['fused']}, {summary['steps']} steps on {summary['device']}, model {summary['model']}"),
        ("dropped", f"{sum(summary['dropped'].values())}" + (f" ({lost})" if lost else "")),
        *(("text", _told_of(run)) for run in summary["texts"]),
        ("latency", f"{latency['median']} ms median, {latency['p99']} ms p99"),
        ("time", f"{summary['seconds']['total']:.0f} s"),
        ("left in", f"{output}: contact_sheet.png, drive.mp4, fused_bag/, summary.json"),
    ]
    return "\n".join(f"{name:>8}  {text}" for name, text in lines)


def _told_of(run: Mapping[str, Any]) -> str:
    return f"'{run['text']}' in {run['frames']} images, {run['with_objects']} of them with objects"
