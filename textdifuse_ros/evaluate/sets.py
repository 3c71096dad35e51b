"""The pairs to measure: two folders, or a named set of the data folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from textdifuse_ros.errors import ConfigError, FileError, ImageError
from textdifuse_ros.image.files import Pair, find_pairs, read_infrared, read_infrared_levels, read_visible
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.image.validity import fill_from_visible

GREY_TOLERANCE = 8
"""Largest difference between the channels of a grey image stored in color, caused by lossy coding [levels]."""


@dataclass(frozen=True)
class NamedSet:
    """Location of a set in the data folder.

    :ivar visible: folder of the visible images
    :ivar infrared: folder of the infrared images
    :ivar ending: only names with this ending belong to the set; "" for all
    """

    visible: str
    infrared: str
    ending: str = ""


NAMED_SETS = {
    "roadscene_test": NamedSet("roadscene/test/vis", "roadscene/test/ir"),
    "msrs_dev": NamedSet("msrs_dev/vis", "msrs_dev/ir"),
    "msrs_dev_night": NamedSet("msrs_dev/vis", "msrs_dev/ir", "N"),
    "llvip_dev": NamedSet("llvip_dev/vis", "llvip_dev/ir"),
    "harvard_ct_mri": NamedSet("harvard/ct-mri/test/a", "harvard/ct-mri/test/b"),
    "harvard_pet_mri": NamedSet("harvard/pet-mri/test/a", "harvard/pet-mri/test/b"),
    "harvard_spect_mri": NamedSet("harvard/spect-mri/test/a", "harvard/spect-mri/test/b"),
}
"""The sets of ``--set``; in the medical ones CT, PET or SPECT takes the place of visible, MRI that of infrared."""


@dataclass(frozen=True)
class PairSet:
    """Pairs under one name.

    :ivar name: name of the set
    :ivar pairs: sorted by stem, at least one
    """

    name: str
    pairs: tuple[Pair, ...]


def named_set(name: str, data: Path, limit: int = 0) -> PairSet:
    """Find a set of the data folder.

    :param name: one of :data:`NAMED_SETS`
    :param data: data folder
    :param limit: see :func:`folder_set`
    :raises ConfigError: no set has that name
    :raises FileError: the set is not in the folder
    """
    if name not in NAMED_SETS:
        raise ConfigError("--set", f"one of {', '.join(NAMED_SETS)}", repr(name))
    place = NAMED_SETS[name]
    return _pair_set(name, data / place.visible, data / place.infrared, limit, place.ending)


def folder_set(visible: Path, infrared: Path, limit: int = 0) -> PairSet:
    """Find the pairs of two folders (or two files) by stem.

    :param visible: folder of the visible images
    :param infrared: folder of the infrared images
    :param limit: maximum number of pairs, evenly spread over the sorted names; 0 for all
    :raises FileError: a folder is missing or empty, or an image has no counterpart
    """
    name = visible.stem if visible.is_file() else visible.resolve().parent.name or visible.name
    return _pair_set(name, visible, infrared, limit)


def _pair_set(name: str, visible: Path, infrared: Path, limit: int, ending: str = "") -> PairSet:
    listing = find_pairs(visible, infrared)
    for stems, where, other in (
        (listing.visible_only, infrared, visible),
        (listing.infrared_only, visible, infrared),
    ):
        if stems:
            raise FileError(
                f"the folder {where}",
                f"one with a counterpart for every image of {other}",
                f"{len(stems)} missing: {', '.join(stems[:5])}{', ...' if len(stems) > 5 else ''}",
                "a mean over a part of the set would be misleading",
            )
    pairs = tuple(pair for pair in listing if pair.stem.endswith(ending))
    if not pairs:
        raise FileError(f"the folder {visible}", f"one with images whose names end in {ending}", "none")
    return limit_pairs(PairSet(name, pairs), limit)


def limit_pairs(pairs: PairSet, limit: int, *, first: bool = False) -> PairSet:
    """Limit the number of pairs of a set.

    :param pairs: the set
    :param limit: maximum number; 0 for all
    :param first: take the first, consecutive pairs instead of evenly spread ones
    """
    every = pairs.pairs
    if not 0 < limit < len(every):
        return pairs
    spread = tuple(every[round(index)] for index in np.linspace(0, len(every) - 1, limit))
    return replace(pairs, pairs=every[:limit] if first else spread)


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Read the two images of a pair, reduced to 8 bits and completed as for a fusion.

    :param pair: the files
    :returns: visible uint8 [H, W, 3] RGB, infrared uint8 [H, W]
    :raises FileError: a file is not readable
    :raises ImageError: the infrared image is colored, or of another size than the visible one
    """
    visible = to_uint8(read_visible(pair.visible), str(pair.visible))
    read_grey(pair.infrared, "the infrared image", "are visible and infrared swapped?")
    infrared, valid = read_infrared_levels(pair.infrared)
    check_size(pair.infrared, infrared, visible)
    return visible, infrared if valid is None else fill_from_visible(infrared, valid, visible)


def read_result(path: Path, visible: np.ndarray) -> np.ndarray:
    """Read a fused image of a method.

    :param path: the file
    :param visible: uint8 [H, W, 3], an image of the required size
    :returns: uint8 [H, W, 3] RGB; a grey image is repeated in all channels
    :raises FileError: the file is not readable
    :raises ImageError: the image has another size
    """
    image = to_uint8(read_visible(path), str(path))
    check_size(path, image, visible)
    return image


def check_size(path: Path, image: np.ndarray, like: np.ndarray) -> None:
    """Check that an image has the size of its pair.

    :param path: file of the image, for the error message
    :param image: [H, W, ...]
    :param like: [H, W, ...], an image of the required size
    :raises ImageError: the sizes differ
    """
    (height, width), (expected_height, expected_width) = image.shape[:2], like.shape[:2]
    if (height, width) != (expected_height, expected_width):
        raise ImageError(
            f"the image {path}",
            f"as large as the visible image of its pair ({expected_width} x {expected_height} pixels)",
            f"{width} x {height}",
        )


def read_grey(path: Path, what: str, remedy: str, tolerance: int = GREY_TOLERANCE) -> np.ndarray:
    """Read a grey image, stored in one or in three equal channels.

    :param path: the file
    :param what: name of the image in the error message
    :param remedy: remedy in the error message
    :param tolerance: largest difference between the channels [levels of 8 bits]
    :returns: uint8 or uint16 [H, W]
    :raises FileError: the file is not readable
    :raises ImageError: the image is colored
    """
    grey = read_infrared(path)
    try:
        color = read_visible(path)
    except FileError:  # float32 temperatures, which only an infrared image may have
        return grey
    scale = 257 if color.dtype == np.uint16 else 1
    spread = int((color.max(2) - color.min(2)).max())
    if spread > tolerance * scale:
        found = f"color (channels up to {spread} levels apart)"
        raise ImageError(f"{what} {path}", "grey", found, remedy)
    return grey
