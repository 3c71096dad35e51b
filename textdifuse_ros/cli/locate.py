"""``textdifuse locate VIS IR --text T -o OUT``: locate the objects that a text names in image files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdifuse_ros import __version__
from textdifuse_ros.cli.outputs import (
    check_output,
    prepare_output,
    regions_files,
    unmatched,
    warn_if_swapped,
    warn_of_no_value,
)
from textdifuse_ros.config.base import add_arguments, from_arguments
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.config.sensors import ImageConfig
from textdifuse_ros.errors import ConfigError, FileError, TextDifuseError, quote

if TYPE_CHECKING:
    from textdifuse_ros.image.files import Pair, PairListing
    from textdifuse_ros.localize.base import Localization, Localizer
    from textdifuse_ros.localize.coco import CocoDocument
    from textdifuse_ros.localize.prompt import Prompt

NAME = "locate"
HELP = "Locate the objects that a text names in a pair of image files, or in two folders of them paired by name."
OVERLAY, LABELS, INSTANCES = "_overlay.png", "_labels.png", "instances.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("visible", metavar="VIS", type=Path, help="Visible image, or a folder of them.")
    parser.add_argument("infrared", metavar="IR", type=Path, help="Infrared image, or a folder of them.")
    parser.add_argument(
        "--text", required=True, metavar="T", help="Objects to locate, as in 'person, car'; see docs/text.md."
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        required=True,
        help=f"Folder for STEM{OVERLAY} (objects drawn into the image), STEM{LABELS} (0 = nothing, k = k-th phrase) "
        f"and {INSTANCES} (COCO); created if missing, existing files of these names are overwritten.",
    )
    add_arguments(parser, LocalizerConfig)
    add_arguments(parser, ImageConfig)


def run(arguments: argparse.Namespace) -> int:
    """Process all pairs; a pair that fails is reported at the end and does not stop the others.

    :returns: 0, or 1 if a pair failed or an image has no counterpart
    :raises TextDifuseError: invalid text, configuration, folders or weights; nothing was written
    """
    config = from_arguments(LocalizerConfig, arguments)
    max_pixels = from_arguments(ImageConfig, arguments).max_pixels

    from textdifuse_ros.image.files import find_pairs
    from textdifuse_ros.localize.coco import CocoDocument
    from textdifuse_ros.localize.prompt import parse_prompt, resolve
    from textdifuse_ros.localize.registry import make_localizer

    prompt = parse_prompt(arguments.text, "--text")
    if not prompt:
        raise ConfigError("--text", "at least one phrase", quote(arguments.text))
    listing = find_pairs(arguments.visible, arguments.infrared)
    folders, endings = (arguments.visible, arguments.infrared), (OVERLAY, LABELS)
    check_output(arguments.output, folders, listing, endings, regions_files(config))
    warn_if_swapped(*folders, listing, max_pixels)
    localizer = make_localizer(config)
    try:
        if localizer.vocabulary is not None:
            resolve(prompt, localizer.vocabulary, "--text")
        prepare_output(arguments.output)
        document = CocoDocument(
            prompt, {"description": prompt.text, "localizer": localizer.name, "version": __version__}
        )
        failures = _locate_all(localizer, prompt, listing, arguments.output, document, max_pixels)
    finally:
        localizer.close()
    _write(arguments.output / INSTANCES, document)
    for line in failures + unmatched(listing):
        print(f"textdifuse: {line}", file=sys.stderr)
    counts = ", ".join(f"{document.counts[phrase.index]} {phrase.text}" for phrase in prompt.phrases)
    print(f"found {counts} in {len(listing) - len(failures)} of {len(listing)} pairs; results in {arguments.output}")
    return 1 if failures or listing.visible_only or listing.infrared_only else 0


def _locate_all(
    localizer: Localizer,
    prompt: Prompt,
    listing: PairListing,
    output: Path,
    document: CocoDocument,
    max_pixels: int,
) -> list[str]:
    """Process the pairs one by one; returns a line for each failure."""
    from tqdm import tqdm

    failures: list[str] = []
    shares: dict[str, float] = {}
    for pair in tqdm(listing.pairs, desc="locating", unit="pair", file=sys.stderr):
        try:
            objects = _locate_one(localizer, prompt, pair, output, max_pixels, shares)
            document.add(pair.visible.name, pair.infrared.name, objects)
        except TextDifuseError as error:
            failures.append(f"{pair.stem}: {error}")
    warn_of_no_value(shares)
    return failures


def _locate_one(
    localizer: Localizer, prompt: Prompt, pair: Pair, output: Path, max_pixels: int, shares: dict[str, float]
) -> Localization:
    from textdifuse_ros.image.files import write_png
    from textdifuse_ros.image.intake import read_aligned
    from textdifuse_ros.localize.overlay import draw_overlay

    aligned = read_aligned(pair, max_pixels=max_pixels)
    shares[pair.stem] = aligned.no_value
    assert aligned.visible is not None and aligned.infrared is not None
    visible, infrared = aligned.visible, aligned.infrared
    if visible.dtype == np.uint16:
        visible = (visible >> 8).astype(np.uint8)
    objects = localizer.locate(visible, infrared, prompt)
    metadata = {
        "Software": f"textdifuse_ros {__version__}",
        "textdifuse": json.dumps({"localizer": localizer.name, "text": prompt.text, "version": __version__}),
    }
    # By night the visible image is black, so draw into the maximum of both.
    backdrop = np.maximum(visible, infrared[:, :, None])
    write_png(output / f"{pair.stem}{OVERLAY}", draw_overlay(backdrop, objects), metadata)
    write_png(output / f"{pair.stem}{LABELS}", objects.label_map(), metadata)
    return objects


def _write(path: Path, document: CocoDocument) -> None:
    try:
        path.write_text(json.dumps(document.content()) + "\n", encoding="utf-8")
    except OSError as error:
        raise FileError(str(path), "a file that can be written", error.strerror or error) from error
