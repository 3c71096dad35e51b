"""What verbs that go through pairs of files have in common: the folder they write to, and what they say at the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textdifuse_ros.errors import ConfigError, FileError

if TYPE_CHECKING:
    from textdifuse_ros.config.localizer import LocalizerConfig
    from textdifuse_ros.image.files import PairListing


def check_output(
    output: Path,
    inputs: tuple[Path, Path],
    listing: PairListing,
    endings: tuple[str, ...],
    others: Sequence[Path] = (),
) -> None:
    """Check that an output is a folder in which no input would be overwritten.

    :param inputs: the visible and the infrared folder or file
    :param listing: the pairs

    :param endings: what is written for each pair: ``STEM + ending``
    :param others: files beside the pairs that are read too
    :raises FileError: says which
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


def regions_read(config: LocalizerConfig) -> tuple[Path, ...]:
    """The file, if any, that contains regions given by hand.

    :param config: of the localizer
    :raises ConfigError: regions that the localizer does not use
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
        raise FileError(f"the output {output}", "a folder that can be made", error.strerror or error) from error
    if not os.access(output, os.W_OK | os.X_OK):
        raise FileError(f"the output {output}", "a folder that can be written to", "one without permission")


def try_outputs(files: Sequence[Path | None], folders: Sequence[Path | None] = ()) -> None:
    """Check that outputs can be written before the work starts; creates nothing.

    :param files: to write; None is skipped
    :param folders: to write into; None is skipped
    :raises FileError: a folder in place of a file or the other way round, or nothing can be written there
    """
    import tempfile

    for path, kind in (*((path, "file") for path in files), *((path, "folder") for path in folders)):
        if path is None:
            continue
        what, expected = f"the output {path}", f"a {kind} that can be written"
        if path.exists() and path.is_dir() != (kind == "folder"):
            raise FileError(what, expected, "a file" if kind == "folder" else "a folder")
        if path.exists() and not path.is_dir() and (path.is_symlink() or not path.is_file()):
            # A link, a pipe or a terminal is written to, and its folder need not be.
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
    """One line per side that has images without a counterpart.

    :param listing: of the pairs
    """
    lines = []
    for stems, what in (
        (listing.visible_only, "visible without an infrared image"),
        (listing.infrared_only, "infrared without a visible image"),
    ):
        if stems:
            lines.append(f"unmatched: {len(stems)} {what}: {', '.join(stems)}")
    return lines
