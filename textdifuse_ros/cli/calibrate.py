"""``textdifuse calibrate``: estimate the homography between the two cameras from a recording or folders of pairs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments, parameters
from textdifuse_ros.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from textdifuse_ros.evaluate.registration import Recovery
    from textdifuse_ros.image.calibration import Estimate

NAME = "calibrate"
HELP = "Estimate the homography from infrared to visible pixels and write it as parameters of the node."
TRANSFORMS = ("auto", "translation", "similarity", "affine", "homography")
SHEET_ROWS = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="A recording, or visible images (a folder or a file).")
    add("infrared", type=Path, nargs="?", metavar="IR", help="Infrared images of the same names; omit for a recording.")
    add("-o", "--output", type=Path, metavar="FILE", help="Write the parameters to this YAML file of fusion_node.")
    add("--sheet", type=Path, metavar="FILE", help="Write overlays before and after to this PNG file.")
    add("--json", type=Path, metavar="FILE", help="Write the figures to this file.")
    add("--transform", default="auto", choices=TRANSFORMS, help="Most general transform to fit. Default: auto.")
    add("--limit", type=int, default=30, metavar="N", help="Number of pairs, evenly spread; 0 for all. Default: 30.")
    add("--visible-topic", default="", metavar="TOPIC", help="Topic in a recording; detected by default.")
    add("--infrared-topic", default="", metavar="TOPIC", help="Topic in a recording; detected by default.")
    add("--tolerance", type=float, default=0.05, metavar="S", help="Largest difference of the stamps of a pair in a "
        "recording. Default: 0.05 s.")  # fmt: skip
    add("--visible-calibration", type=Path, metavar="FILE", help="Undistort the visible images with this file first.")
    add("--infrared-calibration", type=Path, metavar="FILE", help="Undistort the infrared images with this file first.")
    add("--check", action="append", default=[], metavar="DX,DY[,DEG[,SCALE]]", help="Instead of calibrating: displace "
        "the infrared images of aligned pairs, calibrate, register, fuse, and compare Qabf; repeatable.")  # fmt: skip
    add_arguments(parser, FuserConfig)


def run(arguments: argparse.Namespace) -> int:
    """Calibrate, or measure with ``--check``.

    :returns: 0; 1 if the result is unreliable
    :raises TextDifuseError: the input or an option is invalid, or no homography aligns the images
    """
    from textdifuse_ros.checks import check_number
    from textdifuse_ros.evaluate.pair_sources import read_pairs

    check_number("--limit", arguments.limit, 0, None, "pairs", integer=True)
    check_number("--tolerance", arguments.tolerance, 0, 10, "s")
    if bool(arguments.visible_calibration) != bool(arguments.infrared_calibration):
        raise ConfigError("the calibration files", "given for both cameras", "one")
    _check_options(arguments)
    if arguments.output is None and not arguments.check:
        raise ConfigError("--output", "given: the file for the parameters", "nothing", "or measure with --check")
    pairs = read_pairs(
        arguments.source,
        arguments.infrared,
        arguments.limit,
        topics=(arguments.visible_topic, arguments.infrared_topic),
        tolerance=arguments.tolerance,
        calibrations=(arguments.visible_calibration, arguments.infrared_calibration),
        report=lambda line: print(f"textdifuse: {line}", file=sys.stderr),
    )
    if arguments.check:
        return _check(arguments, pairs)
    return _calibrate(arguments, pairs)


def _check_options(arguments: argparse.Namespace) -> None:
    """Reject options without effect.

    :raises ConfigError: names the option
    """
    if arguments.check:
        unused = [name for name in ("output", "sheet") if getattr(arguments, name) is not None]
        expected = "left out with --check, which writes only --json"
    else:
        unused = [item.name for item in parameters(FuserConfig) if hasattr(arguments, item.name)]
        expected = "given with --check only: nothing is fused without it"
    if unused:
        raise ConfigError(f"--{unused[0].replace('_', '-')}", expected, getattr(arguments, unused[0]))


def _distinct(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Remove duplicate pairs, which a recording of a static scene contains."""
    return list({(visible.tobytes(), infrared.tobytes()): (visible, infrared) for visible, infrared in pairs}.values())


def _calibrate(arguments: argparse.Namespace, pairs: list[tuple[np.ndarray, np.ndarray]]) -> int:
    import cv2

    from textdifuse_ros.evaluate.overlays import overlay_sheet
    from textdifuse_ros.evaluate.tables import write_text
    from textdifuse_ros.image.calibration import MIN_RELIABLE_PAIRS, estimate_homography
    from textdifuse_ros.image.files import write_png

    pairs = _distinct(pairs)
    lumas = [(cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY), infrared) for visible, infrared in pairs]
    found = estimate_homography(lumas, arguments.transform, report=lambda line: print(line, file=sys.stderr))
    figures = _figures(found, lumas)
    write_text(arguments.output, _yaml(arguments, found, figures))
    if arguments.json:
        write_text(arguments.json, json.dumps(figures, indent=2) + "\n")
    if arguments.sheet:
        step = max(1, len(pairs) // SHEET_ROWS)
        write_png(arguments.sheet, overlay_sheet(pairs[::step][:SHEET_ROWS], found.start, found.homography))
    spread = "an unknown amount" if figures["spread_px"] is None else f"{figures['spread_px']} px"
    print(f"{figures['transform']} from {figures['pairs']} pairs; edge agreement {figures['score_before']} before, "
          f"{figures['score']} after (1: equal); single pairs differ by {spread}")  # fmt: skip
    for row in figures["infrared_homography"]:
        print("  " + " ".join(f"{value:12.6f}" for value in row))
    print(f"written: {arguments.output}")
    if len(pairs) < MIN_RELIABLE_PAIRS:
        print(f"textdifuse: {len(pairs)} different pairs are too few to verify the result or the type of transform; "
              "use a dozen", file=sys.stderr)  # fmt: skip
        return 1
    if figures["score"] < MIN_SCORE or (figures["spread_px"] or 0) > MAX_SPREAD:
        print("textdifuse: the pairs hardly agree; check the overlays of --sheet before using this, or add more varied "
              "pairs", file=sys.stderr)  # fmt: skip
        return 1
    return 0


MIN_SCORE = 0.12
"""Edge agreement is 0.2 to 0.4 for aligned street scenes, below 0.1 for unrelated images."""
MAX_SPREAD = 3.0
"""Single pairs of one rig agree within about one pixel [pixels]."""


def _figures(found: Estimate, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    import numpy as np

    offsets = found.offsets[np.isfinite(found.offsets).all(1)]
    return {
        "transform": found.model,
        "infrared_homography": found.homography.round(9).tolist(),
        "pairs": len(pairs),
        "visible_size": list(pairs[0][0].shape[::-1]),
        "infrared_size": list(pairs[0][1].shape[::-1]),
        "one_size": len({(visible.shape, infrared.shape) for visible, infrared in pairs}) == 1,
        "score_before": round(float(np.nanmean(found.scores_before)), 4),
        "score": round(float(np.nanmean(found.scores)), 4),
        "scores_by_transform": found.candidates,
        "spread_px": round(found.spread, 3) if math.isfinite(found.spread) else None,
        "pairs_that_tell": len(offsets),
        "offset_median_px": np.median(offsets, 0).round(3).tolist() if len(offsets) else None,
    }


def _yaml(arguments: argparse.Namespace, found: Estimate, figures: dict[str, Any]) -> str:
    values = ", ".join(repr(float(value)) for value in found.homography.round(9).reshape(-1))
    lines = [
        "# Made by textdifuse calibrate: infrared pixel to visible pixel.",
        f"# {figures['transform']} from {figures['pairs']} pairs, edge agreement {figures['score_before']} before, "
        f"{figures['score']} after.",
        "/**:",
        "  ros__parameters:",
        "    registration: homography",
        f"    infrared_homography: [{values}]",
    ]
    if figures["one_size"]:
        lines.append(f"    homography_sizes: {[*figures['visible_size'], *figures['infrared_size']]}")
    if arguments.visible_calibration:
        lines += [
            "    rectify: true",
            f"    visible_calibration: {json.dumps(str(arguments.visible_calibration.resolve()))}",
            f"    infrared_calibration: {json.dumps(str(arguments.infrared_calibration.resolve()))}",
        ]
    return "\n".join(lines) + "\n"


def _check(arguments: argparse.Namespace, pairs: list[tuple[np.ndarray, np.ndarray]]) -> int:
    from tqdm import tqdm

    from textdifuse_ros.checks import check_same_size
    from textdifuse_ros.evaluate.registration import measure_recovery, parse_displacement
    from textdifuse_ros.evaluate.tables import write_text
    from textdifuse_ros.fusion.fuser import Fuser

    for visible, infrared in pairs:
        check_same_size(visible, infrared)
    size = (pairs[0][0].shape[1], pairs[0][0].shape[0])
    displacements = {text: parse_displacement(text, size) for text in arguments.check}
    fuser = Fuser.from_config(from_arguments(FuserConfig, arguments))
    aligned: dict[int, np.ndarray] = {}
    found = []
    try:
        with tqdm(total=len(pairs) * len(displacements), desc="fusing", unit="pair", file=sys.stderr) as bar:
            for text, displacement in displacements.items():
                found.append(
                    measure_recovery(pairs, displacement, fuser, arguments.transform, text, bar.update, aligned)
                )
    finally:
        fuser.close()
    print(_table(found))
    if arguments.json:
        rows = [{**vars(row), "loss": round(row.loss, 5)} for row in found]
        write_text(arguments.json, json.dumps({"pairs": len(pairs), "displacements": rows}, indent=2) + "\n")
    return 0


def _table(rows: list[Recovery]) -> str:
    lines = [
        "| moved by | transform | error px | Qabf aligned | moved | registered | loss |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        figures = " | ".join(f"{row.qabf[name]:.4f}" for name in ("aligned", "moved", "registered"))
        lines.append(f"| {row.displacement} | {row.model} | {row.error_px:.2f} | {figures} | {100 * row.loss:.1f} % |")
    return "\n".join(lines)
