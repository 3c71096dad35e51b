"""The pairs that are judged: two folders, or a named set of a data folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from textdifuse_ros.errors import ConfigError, FileError, ImageError
from textdifuse_ros.image.files import Pair, find_pairs, read_infrared, read_visible
from textdifuse_ros.image.thermal import to_uint8

GREY_TOLERANCE = 8
"""Largest difference [levels] between the channels of a grey image stored in color (lossy coding leaves some)."""


@dataclass(frozen=True)
class NamedSet:
    """Where a set lies below the data folder.

    :ivar ending: of the names that belong to it; "" for all
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
"""The sets that ``--set`` knows; of the medical ones CT, PET or SPECT stands for visible, MRI for infrared."""


@dataclass(frozen=True)
class PairSet:
    """Pairs under one name.

    :ivar pairs: sorted by stem, at least one
    """

    name: str
    pairs: tuple[Pair, ...]


def named_set(name: str, data: Path, limit: int = 0) -> PairSet:
    """A set of a data folder.

    :param limit: see :func:`folder_set`
    :raises ConfigError: no set of that name
    :raises FileError: the set is not in the folder
    """
    if name not in NAMED_SETS:
        raise ConfigError("--set", f"one of {', '.join(NAMED_SETS)}", repr(name))
    place = NAMED_SETS[name]
    return _pair_set(name, data / place.visible, data / place.infrared, limit, place.ending)


def folder_set(visible: Path, infrared: Path, limit: int = 0) -> PairSet:
    """The pairs of two folders (or two files), by stem.

    :param limit: take only so many, evenly spread over the sorted names; 0 for all
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
                "a mean over a part would be taken for that over the set",
            )
    pairs = tuple(pair for pair in listing if pair.stem.endswith(ending))
    if not pairs:
        raise FileError(f"the folder {visible}", f"one with images whose names end in {ending}", "none")
    return limited(PairSet(name, pairs), limit)


def limited(pairs: PairSet, limit: int, *, first: bool = False) -> PairSet:
    """So many pairs of a set.

    :param limit: 0 for all
    :param first: take the first ones, which follow one another; else some that are evenly spread over the names
    """
    known = pairs.pairs
    if not 0 < limit < len(known):
        return pairs
    spread = tuple(known[round(index)] for index in np.linspace(0, len(known) - 1, limit))
    return replace(pairs, pairs=known[:limit] if first else spread)


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The two images of a pair, reduced to 8 bits as the fuser does it.

    :returns: visible uint8 [H, W, 3] RGB, infrared uint8 [H, W]
    :raises FileError: not readable
    :raises ImageError: the infrared image is colored, or of another size than the visible one
    """
    visible = to_uint8(read_visible(pair.visible), str(pair.visible))
    grey = read_grey(pair.infrared, "the infrared image", "are visible and infrared swapped?")
    infrared = to_uint8(grey, str(pair.infrared))
    check_size(pair.infrared, infrared, visible)
    return visible, infrared


def read_result(path: Path, visible: np.ndarray) -> np.ndarray:
    """A fused image of a method.

    :param visible: image of the size that it must have
    :returns: uint8 [H, W, 3] RGB; a grey file is repeated
    :raises FileError: not readable
    :raises ImageError: of another size
    """
    image = to_uint8(read_visible(path), str(path))
    check_size(path, image, visible)
    return image


def check_size(path: Path, image: np.ndarray, like: np.ndarray) -> None:
    """Refuse an image of another size than its pair.

    :raises ImageError: names the file
    """
    (height, width), (expected_height, expected_width) = image.shape[:2], like.shape[:2]
    if (height, width) != (expected_height, expected_width):
        raise ImageError(
            f"the image {path}",
            f"as large as the visible image of its pair ({expected_width} x {expected_height} pixels)",
            f"{width} x {height}",
        )


def read_grey(path: Path, what: str, remedy: str, tolerance: int = GREY_TOLERANCE) -> np.ndarray:
    """A grey image; one stored in three channels is taken, a colored one is not.

    :param what: names the image in the error
    :param tolerance: largest difference between the channels [levels of 8 bits]
    :returns: uint8 or uint16 [H, W]
    :raises FileError: not readable
    :raises ImageError: colored
    """
    grey = read_infrared(path)
    try:
        color = read_visible(path)
    except FileError:  # temperatures as floats, which only an infrared image may be
        return grey
    scale = 257 if color.dtype == np.uint16 else 1
    spread = int((color.max(2) - color.min(2)).max())
    if spread > tolerance * scale:
        found = f"color (channels up to {spread} levels apart)"
        raise ImageError(f"{what} {path}", "grey", found, remedy)
    return grey
