"""What several verbs share: checks of outputs, the summary of unmatched files, an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from textdifuse_ros.errors import ConfigError, FileError

if TYPE_CHECKING:
    from textdifuse_ros.config.localizer import LocalizerConfig
    from textdifuse_ros.image.files import PairListing

INTERRUPTED = 130
"""Exit status of a training that was interrupted."""


def check_output(
    output: Path,
    inputs: tuple[Path, Path],
    listing: PairListing,
    endings: tuple[str, ...],
    others: Sequence[Path] = (),
) -> None:
    """Check that the output is a folder in which no input would be overwritten.

    :param output: the output folder, which need not exist
    :param inputs: the visible and the infrared folder or file
    :param listing: the pairs
    :param endings: the files written for each pair: ``STEM + ending``
    :param others: further input files
    :raises FileError: the output is a file or an input folder, or an input would be overwritten
    """
    if not output.exists():
        return
    what = f"the output {output}"
    if not output.is_dir():
        raise FileError(what, "a folder", "a file")
    for folder in inputs:
        if output.samefile(folder):
            raise FileError(what, "another folder than the input", folder)
    for pair in listing:
        for target in (output / f"{pair.stem}{ending}" for ending in endings):
            sources = (pair.visible, pair.infrared, *(path for path in others if path.exists()))
            if target.exists() and any(target.samefile(source) for source in sources):
                raise FileError(what, "a folder where no input image is overwritten", target)


def output_of_one(output: Path, listing: PairListing) -> tuple[Path, PairListing]:
    """Let ``-o x.png`` name the fused image of a single pair.

    :param output: folder, or file ending in ``.png``; an existing folder of any name is a folder
    :param listing: the pairs
    :returns: folder to write to, and the pairs with the stems to write
    :raises FileError: a file is named for several pairs, or one of another format
    """
    from textdifuse_ros.image.files import SUFFIXES

    if output.is_dir() or output.suffix.lower() not in SUFFIXES:
        return output, listing
    found = "a file" if output.exists() else "the name of an image file"
    if len(listing) > 1:
        raise FileError(f"the output {output}", "a folder", f"{found} for {len(listing)} pairs")
    if output.suffix != ".png":
        raise FileError(f"the output {output}", "a folder, or a file that ends in .png", found)
    return output.parent, replace(listing, pairs=(replace(listing.pairs[0], stem=output.stem),))


def warn_if_swapped(visible: Path, infrared: Path, listing: PairListing, max_pixels: int | None = None) -> None:
    """Print a line to stderr if visible and infrared images seem to be exchanged.

    :param visible: file or folder given as visible
    :param infrared: file or folder given as infrared
    :param listing: their pairs
    :param max_pixels: largest accepted image [pixel]; None for the default
    """
    from textdifuse_ros.image.headers import MAX_PIXELS
    from textdifuse_ros.image.swapped import swap_warning

    line = swap_warning(visible, infrared, listing, max_pixels or MAX_PIXELS)
    if line:
        print(f"textdifuse: warning: {line}", file=sys.stderr)


def warn(text: str) -> None:
    """Print a warning to stderr.

    :param text: one line
    """
    print(f"textdifuse: warning: {text}", file=sys.stderr)


def regions_files(config: LocalizerConfig) -> tuple[Path, ...]:
    """Return the file with user-defined regions, if there is one.

    :param config: configuration of the localizer
    :raises ConfigError: regions are given for a localizer that does not use them
    """
    from textdifuse_ros.localize.fixed import regions_file

    if config.regions.strip() and config.localizer != "fixed":
        raise ConfigError("--regions", "given with --localizer fixed", f"--localizer {config.localizer}")
    path = regions_file(config)
    return () if path is None else (path,)


def prepare_output(output: Path) -> None:
    """Create the output folder.

    :param output: the folder
    :raises FileError: it cannot be created or written to
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"the output {output}", "a folder that can be created", error.strerror or error) from error
    if not os.access(output, os.W_OK | os.X_OK):
        raise FileError(f"the output {output}", "a folder that can be written to", "one without permission")


def try_outputs(files: Sequence[Path | None], folders: Sequence[Path | None] = ()) -> None:
    """Check before the work starts that outputs can be written, without creating anything.

    :param files: output files; None is skipped
    :param folders: output folders; None is skipped
    :raises FileError: a path is a folder instead of a file or vice versa, or is not writable
    """
    import tempfile

    for path, kind in (*((path, "file") for path in files), *((path, "folder") for path in folders)):
        if path is None:
            continue
        what, expected = f"the output {path}", f"a {kind} that can be written"
        if path.exists() and path.is_dir() != (kind == "folder"):
            raise FileError(what, expected, "a file" if kind == "folder" else "a folder")
        if path.exists() and not path.is_dir() and (path.is_symlink() or not path.is_file()):
            # Links, pipes and terminals are written to; their folder need not be writable.
            if not os.access(path, os.W_OK):
                raise FileError(what, expected, "one without permission")
            continue
        nearest = path.absolute() if path.is_dir() else path.absolute().parent
        while not nearest.exists():
            nearest = nearest.parent
        try:
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            found = f"{nearest}: {(error.strerror or str(error)).lower()}"
            raise FileError(what, expected, found) from error


def unmatched(listing: PairListing) -> list[str]:
    """Return one line per sensor that has images without a counterpart.

    :param listing: the pairs
    """
    lines = []
    for stems, what in (
        (listing.visible_only, "visible without an infrared image"),
        (listing.infrared_only, "infrared without a visible image"),
    ):
        if stems:
            lines.append(f"unmatched: {len(stems)} {what}: {', '.join(stems)}")
    return lines


def warn_of_no_value(shares: Mapping[str, float]) -> None:
    """Print one line about infrared images with pixels without a value, if there are any.

    :param shares: share of such pixels by the name of the pair, 0 .. 1
    """
    from textdifuse_ros.image.intake import no_value_text

    names = [name for name, share in shares.items() if share]
    if names:
        worst = max(names, key=lambda name: shares[name])
        count = f"{len(names)} of {len(shares)} infrared images, most in {worst}: " if len(shares) > 1 else ""
        print(f"textdifuse: warning: {count}{no_value_text(shares[worst])}", file=sys.stderr)
