"""``textdifuse fuse VIS IR -o OUT``: fuse image files."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textdifuse_ros.cli.outputs import (
    check_output,
    output_of_one,
    prepare_output,
    regions_files,
    unmatched,
    warn,
    warn_if_swapped,
    warn_of_no_value,
)
from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments, parameters, to_mapping
from textdifuse_ros.config.files import load_config
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.config.sensors import ImageConfig, SensorConfig
from textdifuse_ros.errors import ConfigError, FileError, TextDifuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textdifuse_ros.image.files import Pair, PairListing
    from textdifuse_ros.image.intake import AlignedPair
    from textdifuse_ros.runtime.engine import FusionRequest
    from textdifuse_ros.runtime.processor import PairProcessor

NAME = "fuse"
HELP = "Fuse a pair of image files, or two folders of them paired by name."
FUSED, MASK, CONFIDENCE = ".png", "_mask.png", "_confidence.tif"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("visible", metavar="VIS", type=Path, help="Visible image, or a folder of them.")
    add("infrared", metavar="IR", type=Path, help="Infrared image, or a folder of them.")
    add(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        required=True,
        help="Folder for the fused images OUT/STEM.png, with STEM the visible file's name without suffix; created if "
        "missing, existing files of these names are overwritten. For one pair also a file, OUT.png.",
    )
    add("--text", default="", metavar="T", help="Objects to emphasize, as in 'person, car:0.5'. Default: none.")
    add(
        "--strength",
        type=float,
        default=1.0,
        metavar="S",
        help="Strength of the emphasis, in [-1, 2]; 0 has no effect, negative values suppress the objects. Default: 1.",
    )
    add(
        "--save-mask",
        action="store_true",
        help=f"Also write OUT/STEM{MASK}, 8-bit grey: 0 where the text has no effect.",
    )
    add(
        "--save-confidence",
        action="store_true",
        help=f"Also write OUT/STEM{CONFIDENCE}, 32-bit float: expected absolute error of each pixel [grey levels].",
    )
    add(
        "--params-file",
        type=Path,
        action="append",
        metavar="FILE",
        help="Parameters of the node --name, as ROS reads them: gain, rectification and registration of the images as "
        "the node does it, and the model; flags override them. Repeatable: later files override earlier ones.",
    )
    add("--name", metavar="NAME", help="The node whose parameters are read. Default: fusion_node.")
    add_arguments(parser, FuserConfig)
    add_arguments(parser, LocalizerConfig)
    add_arguments(parser, ImageConfig)


def run(arguments: argparse.Namespace) -> int:
    """Fuse all pairs; a bad one is reported at the end and does not stop the others.

    :returns: 0, or 1 where a pair failed or an image has no counterpart
    :raises TextDifuseError: text, configuration, folders or weights are wrong; nothing was written
    """
    config, max_pixels, align = _parameters(arguments)
    localize = from_arguments(LocalizerConfig, arguments)

    from textdifuse_ros.image.files import find_pairs

    listing = find_pairs(arguments.visible, arguments.infrared)
    extras = [MASK] * arguments.save_mask + [CONFIDENCE] * arguments.save_confidence
    endings = (FUSED, *extras)
    folders = (arguments.visible, arguments.infrared)
    output, listing = output_of_one(arguments.output, listing)
    check_output(output, folders, listing, endings, regions_files(localize))
    warn_if_swapped(*folders, listing, max_pixels)
    if arguments.save_mask:
        _check_masks(listing)

    from textdifuse_ros.fusion.fuser import Fuser
    from textdifuse_ros.runtime.engine import DirectBackend, FusionRequest
    from textdifuse_ros.runtime.image_target import ImageTarget
    from textdifuse_ros.runtime.processor import PairProcessor

    target = ImageTarget.from_config(arguments.text, arguments.strength, localize)

    fuser = Fuser.from_config(config)
    try:
        if target:
            fuser.require_modulation()
        prepare_output(output)
        processor = PairProcessor(DirectBackend(fuser), target)
        if arguments.save_confidence:
            fuser.require_confidence()
        request = FusionRequest(config.steps, config.sampler, config.seed, confidence=arguments.save_confidence)
        failures = _fuse_all(processor, request, listing, output, align, extras)
    finally:
        fuser.close()
        if target:
            target.localizer.close()
    for line in failures + unmatched(listing):
        print(f"textdifuse: {line}", file=sys.stderr)
    done = len(listing) - len(failures)
    found = f"; found {target.summary}" if target else ""
    print(f"fused {done} of {len(listing)} pairs into {arguments.output}{found}")
    return 1 if failures or listing.visible_only or listing.infrared_only else 0


def _parameters(arguments: argparse.Namespace) -> tuple[FuserConfig, int, Callable[[Pair], AlignedPair]]:
    """The fuser's parameters, the largest image [pixel], and what reads and aligns a pair.

    :raises TextDifuseError: an invalid flag or parameter file
    """
    from textdifuse_ros.image.file_intake import FileIntake
    from textdifuse_ros.image.intake import read_aligned

    if arguments.name and not arguments.params_file:
        raise ConfigError("--name", "given with --params-file", "without it")
    if not arguments.params_file:
        max_pixels = from_arguments(ImageConfig, arguments).max_pixels
        return from_arguments(FuserConfig, arguments), max_pixels, partial(read_aligned, max_pixels=max_pixels)
    node = f"/{(arguments.name or 'fusion_node').strip('/')}"
    before = to_mapping(load_config(FusionNodeConfig, *arguments.params_file, node=node, warn=warn))
    taken = {item.name for kind in (FuserConfig, SensorConfig) for item in parameters(kind)}
    given = {name: value for name, value in vars(arguments).items() if name in taken}
    merged = argparse.Namespace(**{**{name: before[name] for name in taken}, **given})
    sensors = from_arguments(SensorConfig, merged)
    return from_arguments(FuserConfig, merged), sensors.max_pixels, FileIntake(sensors).align


def _check_masks(listing: PairListing) -> None:
    """Refuse names for which the mask of one pair would overwrite the fused image of another."""
    names = {f"{pair.stem}{FUSED}" for pair in listing}
    for pair in listing:
        if f"{pair.stem}{MASK}" in names:
            found = f"{pair.stem} and {Path(pair.stem + MASK).stem}"
            raise FileError("the names of the pairs", f"such that no other ends in {MASK}", found, "rename one")


def _fuse_all(
    processor: PairProcessor,
    request: FusionRequest,
    listing: PairListing,
    output: Path,
    align: Callable[[Pair], AlignedPair],
    extras: Sequence[str],
) -> list[str]:
    """Fuse the pairs one by one; returns a line for each failure, and one on pixels without a value."""
    from tqdm import tqdm

    failures: list[str] = []
    shares: dict[str, float] = {}
    for pair in tqdm(listing.pairs, desc="fusing", unit="pair", file=sys.stderr):
        try:
            aligned = align(pair)
            shares[pair.stem] = aligned.no_value
            _fuse_one(processor, request, aligned, pair, output, extras)
        except TextDifuseError as error:
            failures.append(f"{pair.stem}: {error}")
    warn_of_no_value(shares)
    return failures


def _fuse_one(
    processor: PairProcessor,
    request: FusionRequest,
    aligned: AlignedPair,
    pair: Pair,
    output: Path,
    extras: Sequence[str],
) -> None:
    import numpy as np

    from textdifuse_ros.fusion.result import png_texts
    from textdifuse_ros.image.files import write_png

    processed = processor.process(aligned, request)
    metadata = png_texts(processed.provenance, pair)
    write_png(output / f"{pair.stem}{FUSED}", processed.image, metadata)
    if MASK in extras:
        mask = np.zeros(processed.image.shape[:2], np.uint8) if processed.mask is None else processed.mask
        write_png(output / f"{pair.stem}{MASK}", mask, metadata)
    if CONFIDENCE in extras:
        import tifffile

        tifffile.imwrite(output / f"{pair.stem}{CONFIDENCE}", processed.confidence, metadata=None)
