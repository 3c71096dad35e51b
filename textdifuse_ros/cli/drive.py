"""``textdifuse drive -o OUT``: render the synthetic night drive as a recording, with its truth beside it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from textdifuse_ros.config.base import add_arguments, from_arguments, to_mapping
from textdifuse_ros.errors import FileError
from textdifuse_ros.scenes.config import LABELS, DriveSceneConfig

if TYPE_CHECKING:
    import numpy as np

    from textdifuse_ros.bags.writer import BagWriter
    from textdifuse_ros.scenes.drive import Frame

NAME = "drive"
HELP = "Render a synthetic night drive as a rosbag2 recording, with true masks and boxes."

VISIBLE_TOPIC, INFRARED_TOPIC = "/visible/image", "/infrared/image"
_OFFSET_NS, _JITTER_NS = 4_000_000, 1_000_000
_LATENCY_NS = 2_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        required=True,
        help="Folder to make or to fill: OUT/bag (the recording), OUT/truth (labels and instances as PNG, boxes.json).",
    )
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="Storage of the recording.")
    parser.add_argument("--images", action="store_true", help="Write OUT/vis/*.png and OUT/ir/*.png as well.")
    parser.add_argument(
        "--clean", action="store_true", help="Write OUT/truth/clean/*.png as well: the scene well lit, without noise."
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace a recording that is already there.")
    add_arguments(parser, DriveSceneConfig)


def run(arguments: argparse.Namespace) -> int:
    """Render and write the drive.

    :returns: 0
    :raises TextDifuseError: a parameter is out of range, or the output cannot be written
    """
    config = from_arguments(DriveSceneConfig, arguments)

    import numpy as np
    from tqdm import tqdm

    from textdifuse_ros.bags.writer import BagWriter
    from textdifuse_ros.scenes.drive import NightDrive

    output: Path = arguments.output
    if output.exists() and not output.is_dir():
        raise FileError(f"the output {output}", "a folder", "a file")
    drive = NightDrive(config)
    random = np.random.default_rng([config.seed, 3])
    boxes = []
    with BagWriter(output / "bag", arguments.storage, overwrite=arguments.overwrite) as bag:
        for index, frame in enumerate(tqdm(drive, total=len(drive), desc="rendering", unit="frame", file=sys.stderr)):
            stamps = record_frame(bag, frame, random)
            _write_images(output, f"{index:06d}", frame, arguments.images, arguments.clean)
            found = [dataclasses.asdict(box) for box in frame.boxes]
            boxes.append({"frame": index, "visible_ns": stamps[0], "infrared_ns": stamps[1], "boxes": found})
    labels = {str(value): name for value, name in LABELS.items()}
    truth = {"labels": labels, "config": to_mapping(config), "frames": boxes}
    (output / "truth" / "boxes.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    print(f"rendered {len(drive)} frames into {output}")
    return 0


def record_frame(bag: BagWriter, frame: Frame, random: np.random.Generator) -> tuple[int, int]:
    """Write both images of a frame with stamps as two free-running cameras give them.

    The infrared camera fires 4 ms after the visible one; both waver by about 1 ms. Messages are recorded 2 ms after
    their stamps.

    :returns: the header stamps of the visible and of the infrared image [ns]
    """
    jitter = [round(float(value)) for value in random.normal(0.0, _JITTER_NS, 2).clip(-1.9e6, 1.9e6)]
    visible, infrared = frame.stamp_ns + jitter[0], frame.stamp_ns + _OFFSET_NS + jitter[1]
    bag.write_image(VISIBLE_TOPIC, visible + _LATENCY_NS, "visible_camera", frame.visible, visible)
    bag.write_image(INFRARED_TOPIC, infrared + _LATENCY_NS, "infrared_camera", frame.infrared, infrared)
    return visible, infrared


def _write_images(output: Path, stem: str, frame: Frame, images: bool, clean: bool) -> None:
    from textdifuse_ros.image.files import write_png

    write_png(output / "truth" / "labels" / f"{stem}.png", frame.labels)
    write_png(output / "truth" / "instances" / f"{stem}.png", frame.instances)
    if images:
        write_png(output / "vis" / f"{stem}.png", frame.visible)
        write_png(output / "ir" / f"{stem}.png", frame.infrared)
    if clean:
        write_png(output / "truth" / "clean" / f"{stem}.png", frame.visible_clean)
