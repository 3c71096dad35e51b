"""``textdifuse fuse VIS IR -o OUT``: fuse picture files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from textdifuse_ros import __version__
from textdifuse_ros.config import FuserConfig, add_arguments, from_arguments
from textdifuse_ros.errors import FileError, TextDifuseError

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser
    from textdifuse_ros.image.files import Pair, PairListing

NAME = "fuse"
HELP = "Fuse a pair of picture files, or two folders of them paired by name."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("visible", metavar="VIS", type=Path, help="Visible picture, or a folder of them.")
    parser.add_argument("infrared", metavar="IR", type=Path, help="Infrared picture, or a folder of them.")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        required=True,
        help="Folder for the fused pictures OUT/STEM.png, STEM being the visible file's name without suffix; "
        "made where it is missing, existing pictures of these names are overwritten.",
    )
    add_arguments(parser, FuserConfig)


def run(arguments: argparse.Namespace) -> int:
    """Fuse all pairs; a bad one is reported at the end and does not stop the others.

    :return: 0, or 1 where a pair failed or a picture has no partner
    :raises TextDifuseError: the configuration, the folders or the weights are wrong; nothing was written
    """
    config = from_arguments(FuserConfig, arguments)

    from textdifuse_ros.image.files import find_pairs

    listing = find_pairs(arguments.visible, arguments.infrared)
    _check_output(arguments.output, (arguments.visible, arguments.infrared), listing)

    from textdifuse_ros.fusion.fuser import Fuser

    fuser = Fuser.from_config(config)
    try:
        _prepare_output(arguments.output)
        failures = _fuse_all(fuser, listing, arguments.output)
    finally:
        fuser.close()
    for line in failures + _unmatched(listing):
        print(f"textdifuse: {line}", file=sys.stderr)
    done = len(listing) - len(failures)
    print(f"fused {done} of {len(listing)} pairs into {arguments.output}")
    return 1 if failures or listing.visible_only or listing.infrared_only else 0


def _check_output(output: Path, inputs: tuple[Path, Path], listing: PairListing) -> None:
    """Refuse an output that is no folder, an input folder, or one where an input picture would be overwritten."""
    if not output.exists():
        return
    what = f"the output {output}"
    if not output.is_dir():
        raise FileError(what, "a folder", "a file")
    for folder in inputs:
        if output.samefile(folder):
            raise FileError(what, "another folder than the input", folder)
    for pair in listing:
        target = output / f"{pair.stem}.png"
        for source in (pair.visible, pair.infrared):
            if target.exists() and target.samefile(source):
                raise FileError(what, "a folder where no input picture is overwritten", target)


def _prepare_output(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"the output {output}", "a folder that can be made", error.strerror or error) from error
    if not os.access(output, os.W_OK | os.X_OK):
        raise FileError(f"the output {output}", "a folder that can be written to", "one without permission")


def _fuse_all(fuser: Fuser, listing: PairListing, output: Path) -> list[str]:
    """Fuse the pairs one by one; the failures, a line each."""
    from tqdm import tqdm

    failures = []
    for pair in tqdm(listing.pairs, desc="fusing", unit="pair", file=sys.stderr):
        try:
            _fuse_one(fuser, pair, output / f"{pair.stem}.png")
        except TextDifuseError as error:
            failures.append(f"{pair.stem}: {error}")
    return failures


def _fuse_one(fuser: Fuser, pair: Pair, target: Path) -> None:
    from textdifuse_ros.image.files import read_infrared, read_visible, write_png

    result = fuser(read_visible(pair.visible), read_infrared(pair.infrared))
    made_by = {**result.provenance, "visible": pair.visible.name, "infrared": pair.infrared.name}
    metadata = {"Software": f"textdifuse_ros {__version__}", "textdifuse": json.dumps(made_by, sort_keys=True)}
    write_png(target, result.image, metadata)


def _unmatched(listing: PairListing) -> list[str]:
    """What found no partner, a line for each side."""
    lines = []
    for stems, what in (
        (listing.visible_only, "visible without an infrared picture"),
        (listing.infrared_only, "infrared without a visible picture"),
    ):
        if stems:
            lines.append(f"unmatched: {len(stems)} {what}: {', '.join(stems)}")
    return lines
