"""Image files in and out, and pairs of them.

PNG (8 and 16 bit), JPEG, TIFF (8 and 16 bit) and BMP are read, as :mod:`.coded` says.

- A float TIFF is taken for infrared only (temperatures) and stretched to uint8 by :mod:`.thermal`; a visible float
  image is refused, for no rule tells its white.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import FileError, ImageError
from textdifuse_ros.image import png_text
from textdifuse_ros.image.coded import decode_coded
from textdifuse_ros.image.encodings import to_infrared, to_visible

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


def read_visible(path: str | Path) -> np.ndarray:
    """A visible image from a file; a grey one is repeated to three channels.

    :returns: uint8 or uint16 [H, W, 3], RGB
    :raises FileError: missing, no image, truncated or damaged, not of 8 or 16 bits
    """
    image = read_image(path)
    if image.dtype.kind == "f":
        raise FileError(str(path), "an image of 8 or 16 bits", describe(image), "convert it to 16 bits")
    return to_visible(image)


def read_infrared(path: str | Path) -> np.ndarray:
    """An infrared image from a file; a color one is reduced to BT.601 luma.

    :returns: uint8 or uint16 [H, W]; uint8 for a float TIFF, see :func:`.thermal.to_uint8`
    :raises FileError: missing, no image, truncated or damaged, neither of 8 or 16 bits nor grey float, NaN
    """
    image = read_image(path)
    try:
        return to_infrared(image)
    except ImageError as error:
        raise FileError(str(path), error.expected, error.actual, error.remedy) from error


def read_image(path: str | Path) -> np.ndarray:
    """An image with the values that the file holds.

    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float [H, W] or [H, W, C]
    :raises FileError: missing, no image, truncated or damaged, not of 8 or 16 bits
    """
    return decode_coded(_read_bytes(path), str(path))


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FileError(str(path), "a readable image file", error.strerror or error) from error


def write_png(path: str | Path, image: np.ndarray, metadata: Mapping[str, str] | None = None) -> None:
    """Write a PNG file; an existing one is replaced as a whole or not at all. Missing folders are made.

    :param image: uint8 or uint16, [H, W] or [H, W, 3] RGB
    :param metadata: texts by keyword (1 to 79 printable ASCII characters), kept as tEXt or, beyond ASCII, iTXt
    :raises ImageError: another type or shape
    :raises FileError: the file cannot be written
    """
    grey, color = image.ndim == 2, image.ndim == 3 and image.shape[2] == 3
    if image.dtype.name not in ("uint8", "uint16") or not (grey or color) or not image.size:
        raise ImageError(f"the image for {path}", "uint8 or uint16, [H, W] or [H, W, 3] (RGB)", describe(image))
    _, coded = cv2.imencode(".png", image if grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_atomic(Path(path), png_text.add_text(coded.tobytes(), metadata or {}))


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file; an existing one, or a link, is replaced as a whole or not at all. Missing folders are made.

    :raises FileError: the file cannot be written
    """
    # In the same folder, for only within a file system is a replacement atomic; not *.png, lest a reader pair it.
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(str(path), "a file that can be written", error.strerror or error) from error


def read_png_metadata(path: str | Path) -> dict[str, str]:
    """The texts in a PNG file by keyword.

    :raises FileError: missing, no PNG, truncated or damaged
    """
    data = _read_bytes(path)
    if not data.startswith(png_text.SIGNATURE):
        raise FileError(str(path), "a PNG file", f"one that starts with {data[:4]!r}")
    return png_text.read_text(data, str(path))


@dataclass(frozen=True)
class Pair:
    """Two files of one moment.

    :ivar stem: the name that the result gets, without suffix
    """

    stem: str
    visible: Path
    infrared: Path


@dataclass(frozen=True)
class PairListing:
    """The pairs of two folders, and what found no partner; iterating yields the pairs.

    :ivar pairs: sorted by stem, at least one
    :ivar visible_only: stems without an infrared image, sorted
    :ivar infrared_only: stems without a visible image, sorted
    """

    pairs: tuple[Pair, ...]
    visible_only: tuple[str, ...] = ()
    infrared_only: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


def find_pairs(visible: str | Path, infrared: str | Path) -> PairListing:
    """Pair two files with each other, or the images of two folders by stem.

    Two files make one pair, whatever their names; its stem is the visible file's. In a folder the images are the
    files with a suffix of :data:`SUFFIXES` in any case; subfolders and hidden files are passed over.

    :raises FileError: a path is missing; a file and a folder; a folder without images, or with two of one stem; no
        stem in both folders
    """
    visible, infrared = Path(visible), Path(infrared)
    for path in (visible, infrared):
        if not path.exists():
            raise FileError(str(path), "an image or a folder of images", "no such file or folder")
    if visible.is_dir() != infrared.is_dir():
        words = {True: "a folder", False: "a file"}
        raise FileError(
            f"the infrared path {infrared}",
            f"{words[visible.is_dir()]}, as the visible path {visible} is",
            words[infrared.is_dir()],
            "give two files or two folders",
        )
    if not visible.is_dir():
        return PairListing((Pair(visible.stem, visible, infrared),))
    left, right = _images(visible), _images(infrared)
    pairs = tuple(Pair(stem, left[stem], right[stem]) for stem in sorted(left.keys() & right.keys()))
    visible_only, infrared_only = sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())
    if not pairs:
        raise FileError(
            f"the folder {infrared}",
            f"one with an image of the same name for some image of {visible}",
            f"{_some(visible_only)} only there and {_some(infrared_only)} only here",
        )
    return PairListing(pairs, tuple(visible_only), tuple(infrared_only))


def _images(folder: Path) -> dict[str, Path]:
    """The image files of a folder by stem."""
    found: dict[str, Path] = {}
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise FileError(str(folder), "a readable folder", error.strerror or error) from error
    for path in files:
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            names = f"{found[path.stem].name} and {path.name}"
            raise FileError(f"the folder {folder}", "one image for each name", names, "remove one of them")
        found[path.stem] = path
    if not found:
        raise FileError(f"the folder {folder}", f"one with images ({', '.join(SUFFIXES)})", "none")
    return found


def _some(stems: list[str], most: int = 5) -> str:
    shown = ", ".join(stems[:most])
    return f"{shown} (and {len(stems) - most} more)" if len(stems) > most else shown
