"""``textdifuse evaluate-localizer``: measure the built-in localizer."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros.checks import check_number
from textdifuse_ros.cli.outputs import try_outputs
from textdifuse_ros.errors import ConfigError

if TYPE_CHECKING:
    from textdifuse_ros.metrics.detection import MatchCounts

NAME = "evaluate-localizer"
HELP = "Measure the built-in localizer: CamVid classes, RoadScene boxes, rendered drives by day and night."

_DATA = "TEXTDIFUSE_DATA"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help=f"Data folder with camvid and roadscene. Default: ${_DATA}.")
    add("--model", default="locate", metavar="NAME", help="Checkpoint. Default: locate.")
    add("--split", default="test", choices=("val", "test"), help="Split of CamVid. Default: test.")
    add("--threshold", type=float, default=0.4, metavar="S", help="Minimum score, in [0, 1]. Default: 0.4.")
    add("--json", type=Path, metavar="FILE", help="Also write the figures to FILE; undefined ones are null.")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print a table.

    :returns: 0
    :raises ConfigError: no data folder is given, or the threshold is outside [0, 1]
    :raises FileError: the images are not in the data folder, or the figures cannot be written
    """
    from textdifuse_ros.evaluate.localization import (
        SENSORS_ON,
        camvid_overlaps,
        count_hits,
        drive_samples,
        find_objects,
        mask_overlaps,
        roadscene_samples,
    )
    from textdifuse_ros.evaluate.tables import json_text, write_text
    from textdifuse_ros.localize.builtin import BuiltinLocalizer

    check_number("--threshold", arguments.threshold, 0, 1)
    try_outputs((arguments.json,))
    data = arguments.data or (Path(os.environ[_DATA]) if os.environ.get(_DATA) else None)
    if data is None:
        raise ConfigError("--data", "a data folder", "none", f"give --data or set {_DATA}")
    localizer = BuiltinLocalizer(arguments.model, score=arguments.threshold)
    figures: dict[str, Any] = {"model": localizer.name, "threshold": arguments.threshold}
    print(f"{localizer.name}, CamVid {arguments.split}, visible only: intersection over union")
    figures["camvid"] = camvid_overlaps(localizer, data, arguments.split)
    for name, value in figures["camvid"].items():
        print(f"  {name:22s} {value:.3f}")
    print("objects found at an overlap of 0.5: recall, precision (labeled, reported)")
    night, day = zip(*drive_samples(), strict=True)
    figures["objects"], figures["pixels"] = {}, {}
    for sensors, sensors_on in SENSORS_ON.items():
        for name, samples in (("RoadScene test", list(roadscene_samples(data))), ("night", night), ("day", day)):
            found = find_objects(localizer, samples, sensors_on)
            if samples[0].labels is None:
                _print_counts(figures["objects"], f"{name}, {sensors}", count_hits(samples, found))
                _print_counts(
                    figures["objects"], f"{name}, 16 px and higher, {sensors}", count_hits(samples, found, 16.0)
                )
                continue
            _print_counts(figures["objects"], f"drive by {name}, {sensors}", count_hits(samples, found))
            figures["pixels"][f"drive by {name}, {sensors}"] = overlaps = mask_overlaps(samples, found)
            shown = ", ".join(f"{kind} {value:.3f}" for kind, value in overlaps.items())
            print(f"    intersection over union of the masks: {shown}")
    if arguments.json:
        write_text(arguments.json, json_text(figures))
    return 0


def _print_counts(figures: dict[str, Any], name: str, hits: dict[str, MatchCounts]) -> None:
    """Print a line and store its figures."""
    figures[name] = {
        kind: {
            "truths": item.truths,
            "found": item.detections,
            "hits": item.matches,
            "recall": item.recall,
            "precision": item.precision,
        }
        for kind, item in hits.items()
    }
    line = "; ".join(f"{k} {i.recall:.2f}, {i.precision:.2f} ({i.truths}, {i.detections})" for k, i in hits.items())
    print(f"  {name}: {line}", flush=True)
