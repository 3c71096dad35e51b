"""``textdifuse drive -o OUT``: render the synthetic night drive as a recording, with its ground truth."""

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
    from textdifuse_ros.scenes.drive import Frame

NAME = "drive"
HELP = "Render a synthetic night drive as a rosbag2 recording, with ground-truth masks and boxes."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        required=True,
        help="Output folder: OUT/bag (the recording), OUT/truth (labels and instances as PNG, boxes.json).",
    )
    parser.add_argument(
        "--storage", choices=("mcap", "sqlite3"), default="mcap", help="Storage format of the recording."
    )
    parser.add_argument("--images", action="store_true", help="Also write OUT/vis/*.png and OUT/ir/*.png.")
    parser.add_argument("--pictures", action="store_true", help=argparse.SUPPRESS)  # deprecated name of --images
    parser.add_argument(
        "--clean", action="store_true", help="Also write OUT/truth/clean/*.png: the scene well lit, without noise."
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace an existing recording.")
    add_arguments(parser, DriveSceneConfig)


def run(arguments: argparse.Namespace) -> int:
    """Render and write the drive.

    :returns: 0
    :raises TextDifuseError: a parameter is out of range, or the output cannot be written
    """
    config = from_arguments(DriveSceneConfig, arguments)
    if arguments.pictures:
        print("textdifuse: --pictures is deprecated; use --images", file=sys.stderr)
        arguments.images = True

    import numpy as np
    from tqdm import tqdm

    from textdifuse_ros.bags.writer import BagWriter
    from textdifuse_ros.demo.inputs import record_frame
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


def _write_images(output: Path, stem: str, frame: Frame, images: bool, clean: bool) -> None:
    from textdifuse_ros.image.files import write_png

    write_png(output / "truth" / "labels" / f"{stem}.png", frame.labels)
    write_png(output / "truth" / "instances" / f"{stem}.png", frame.instances)
    if images:
        write_png(output / "vis" / f"{stem}.png", frame.visible)
        write_png(output / "ir" / f"{stem}.png", frame.infrared)
    if clean:
        write_png(output / "truth" / "clean" / f"{stem}.png", frame.visible_clean)
