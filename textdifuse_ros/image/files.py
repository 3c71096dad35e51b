"""Read and write image files, and find pairs of them.

Supported are PNG and TIFF (8 and 16 bits), JPEG and BMP, see :mod:`.coded`. A float TIFF (temperatures) is supported
for infrared only and stretched to uint8 by :mod:`.thermal`; a visible float image is rejected, since its white level is
undefined.
"""

from __future__ import annotations

import os
import secrets
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import FileError, ImageError
from textdifuse_ros.image import png_text
from textdifuse_ros.image.coded import decode_file
from textdifuse_ros.image.encodings import to_infrared, to_visible
from textdifuse_ros.image.headers import LIMIT_REMEDY, MAX_PIXEL_BYTES, MAX_PIXELS
from textdifuse_ros.image.nodata import declared_nodata
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.image.validity import extend, find_valid

_MORE_BYTES = 1 << 26  # beyond the pixels, for metadata and the directory of many pages
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


def read_visible(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a visible image; grey is repeated to three channels.

    :param path: file to read
    :param max_pixels: largest accepted image [pixel]
    :returns: uint8 or uint16 [H, W, 3] RGB
    :raises FileError: missing, not an image, truncated, damaged, or not of 8 or 16 bits
    """
    image = read_image(path, max_pixels=max_pixels)
    if image.dtype.kind == "f":
        raise FileError(str(path), "an image of 8 or 16 bits", describe(image), "convert it to 16 bits")
    return to_visible(image)


def read_infrared(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an infrared image; color is reduced to BT.601 luma.

    :param path: file to read
    :param max_pixels: largest accepted image [pixel]
    :returns: uint8 or uint16 [H, W]; uint8 for a float TIFF, see :func:`read_infrared_levels`
    :raises FileError: missing, not an image, truncated, damaged, of an unsupported data type, or without any value
    """
    image = read_image(path, max_pixels=max_pixels)
    return _to_levels(image, None, path)[0] if image.dtype.kind == "f" else to_infrared(image)


def read_infrared_levels(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, np.ndarray | None]:
    """Read an infrared image as 8 bits, and which of its pixels have a value (:mod:`.validity`).

    :param path: file to read
    :param max_pixels: largest accepted image [pixel]
    :returns: uint8 [H, W], see :func:`.thermal.to_uint8`, pixels without a value filled from those beside them; and
        bool [H, W], the pixels with a value, or None for all
    :raises FileError: missing, not an image, truncated, damaged, of an unsupported data type, or without any value
    """
    data = _read_bytes(path, max_pixels)
    image = decode_file(data, str(path), max_pixels=max_pixels)
    return _to_levels(image, declared_nodata(data) if image.ndim == 2 else None, path)


def _to_levels(image: np.ndarray, nodata: float | None, path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        if image.ndim == 3:  # color has no counts
            return to_uint8(to_infrared(image)), None
        valid = find_valid(image, nodata)
        levels = to_uint8(image, valid=valid)
        return (levels, None) if valid is None else (extend(levels, valid), valid)
    except ImageError as error:
        raise FileError(str(path), error.expected, error.actual, error.remedy) from error


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image with the values stored in the file.

    :param path: file to read
    :param max_pixels: largest accepted image [pixel]
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float [H, W] or [H, W, C]
    :raises FileError: missing, not an image, truncated, damaged, or of an unsupported data type
    """
    return decode_file(_read_bytes(path, max_pixels), str(path), max_pixels=max_pixels)


def _read_bytes(path: str | Path, max_pixels: int = MAX_PIXELS) -> bytes:
    path = Path(path)
    try:
        check_regular(path)
        size = path.stat().st_size
        if size > MAX_PIXEL_BYTES * max_pixels + _MORE_BYTES:
            expected = f"a file of at most {(MAX_PIXEL_BYTES * max_pixels + _MORE_BYTES) / 1e6:.4g} MB"
            raise FileError(str(path), expected, f"{size / 1e6:.4g} MB", LIMIT_REMEDY)
        return path.read_bytes()
    except OSError as error:
        raise FileError(str(path), "a readable image file", error.strerror or error) from error


def check_regular(path: Path) -> None:
    """Check that a path, or what a link leads to, is a regular file, since reading a pipe or device may never end.

    :param path: path to check
    :raises FileError: something else
    :raises OSError: nothing is there
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = (
            (stat.S_ISDIR, "a directory"),
            (stat.S_ISFIFO, "a named pipe"),
            (stat.S_ISSOCK, "a socket"),
            (lambda _: True, "a device"),
        )
        raise FileError(str(path), "a regular file", next(kind for test, kind in kinds if test(mode)))


def write_png(path: str | Path, image: np.ndarray, metadata: Mapping[str, str] | None = None) -> None:
    """Write a PNG file atomically; missing folders are created.

    :param path: file to write
    :param image: uint8 or uint16, [H, W] or [H, W, 3] RGB
    :param metadata: texts by keyword (1 to 79 printable ASCII characters), stored as tEXt, or iTXt if not ASCII
    :raises ImageError: wrong type or shape
    :raises FileError: the file cannot be written
    """
    grey, color = image.ndim == 2, image.ndim == 3 and image.shape[2] == 3
    if image.dtype.name not in ("uint8", "uint16") or not (grey or color) or not image.size:
        raise ImageError(f"the image for {path}", "uint8 or uint16, [H, W] or [H, W, 3] (RGB)", describe(image))
    _, encoded = cv2.imencode(".png", image if grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_atomic(Path(path), png_text.add_text(encoded.tobytes(), metadata or {}))


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically, replacing an existing file or link; missing folders are created.

    :param path: file to write
    :param data: content
    :raises FileError: the file cannot be written
    """
    # In the same folder, since replacing is atomic only within a file system; not *.png, so that no reader finds it.
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
    """Read the texts in a PNG file.

    :param path: file to read
    :returns: texts by keyword
    :raises FileError: missing, not a PNG file, truncated or damaged
    """
    data = _read_bytes(path)
    if not data.startswith(png_text.SIGNATURE):
        raise FileError(str(path), "a PNG file", f"data that start with {data[:4]!r}")
    return png_text.read_text(data, str(path))


@dataclass(frozen=True)
class Pair:
    """A visible and an infrared image file of one moment.

    :ivar stem: name of the result, without suffix
    :ivar visible: path of the visible image
    :ivar infrared: path of the infrared image
    """

    stem: str
    visible: Path
    infrared: Path


@dataclass(frozen=True)
class PairListing:
    """The pairs of two folders, and the images without a counterpart; iterating yields the pairs.

    :ivar pairs: at least one, sorted by stem
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
    """Pair two files, or the images of two folders by stem.

    Stems are compared in Unicode's composed form (NFC): macOS writes names decomposed (NFD), other systems as typed.
    Two files form one pair regardless of their names; its stem is that of the visible file. In folders, files with a
    suffix in :data:`SUFFIXES` (any case) are images; subfolders and hidden files are skipped.

    :param visible: file or folder
    :param infrared: likewise
    :raises FileError: a path is missing or neither file nor folder, one is a file and the other a folder, a folder has
        no images or two with the same stem, or the folders have no stem in common
    """
    visible, infrared = Path(visible), Path(infrared)
    for path in (visible, infrared):
        if not path.exists():
            raise FileError(str(path), "an image or a folder of images", "no such file or folder")
    if visible.is_dir() != infrared.is_dir():
        words = {True: "a folder", False: "a file"}
        raise FileError(
            f"the infrared path {infrared}",
            f"{words[visible.is_dir()]}, like the visible path {visible}",
            words[infrared.is_dir()],
            "give two files or two folders",
        )
    if not visible.is_dir():
        check_regular(visible)
        check_regular(infrared)
        return PairListing((Pair(visible.stem, visible, infrared),))
    left, right = _images(visible), _images(infrared)
    pairs = tuple(Pair(left[stem].stem, left[stem], right[stem]) for stem in sorted(left.keys() & right.keys()))
    visible_only, infrared_only = sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())
    if not pairs:
        raise FileError(
            f"the folder {infrared}",
            f"one with an image of the same name as an image in {visible}",
            f"{_some(infrared_only)} here and {_some(visible_only)} there",
        )
    return PairListing(pairs, tuple(visible_only), tuple(infrared_only))


def _images(folder: Path) -> dict[str, Path]:
    """Map the stems of a folder's image files, in NFC, to their paths."""
    found: dict[str, Path] = {}
    try:
        # Pipes and devices are kept: reading them gives an error with their name.
        files = sorted(path for path in folder.iterdir() if path.exists() and not path.is_dir())
    except OSError as error:
        raise FileError(str(folder), "a readable folder", error.strerror or error) from error
    for path in files:
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in found:
            names, remedy = f"{found[stem].name} and {path.name}", "remove one of them"
            if found[stem].stem != path.stem:
                names += f", the same name in two Unicode forms ({found[stem].name!a} and {path.name!a})"
            raise FileError(f"the folder {folder}", "one image for each name", names, remedy)
        found[stem] = path
    if not found:
        raise FileError(f"the folder {folder}", f"one with images ({', '.join(SUFFIXES)})", "no images")
    return found


def find_image(folder: Path, stem: str) -> Path | None:
    """Find an image by its stem, in whichever Unicode form the folder has it; PNG is preferred.

    :param folder: folder to search
    :param stem: name without suffix
    :returns: None if there is none
    """
    suffixes = (".png", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
    paths = (stored_path(folder / f"{stem}{suffix}") for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def stored_path(path: Path) -> Path:
    """Return a path with its name in the Unicode form in which it is stored.

    :param path: any path
    :returns: ``path`` itself if there is no such file in another form either
    """
    others = (path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD"))
    return next((other for other in (path, *others) if other.exists()), path)


def _some(stems: list[str], most: int = 5) -> str:
    shown = ", ".join(stems[:most])
    return f"{shown} (and {len(stems) - most} more)" if len(stems) > most else shown
