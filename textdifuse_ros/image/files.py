"""Picture files in and out, and pairs of them.

PNG (8 and 16 bit), JPEG, TIFF (8 and 16 bit) and BMP are read. The content decides what a file is, not its name.

- Alpha is dropped; the colour below it is kept.
- EXIF orientation is ignored: both cameras' files are taken as the pixels lie, so that a pair stays aligned.
- A float TIFF is taken for infrared only (temperatures) and stretched to uint8 by :mod:`.thermal`; a visible float
  picture is refused, for no rule tells its white.
- Of a file with several pages the first is read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import FileError, ImageError
from textdifuse_ros.image import png_text
from textdifuse_ros.image.encodings import to_infrared, to_visible

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
_SIGNATURES = {
    png_text.SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
}


def read_visible(path: str | Path) -> np.ndarray:
    """A visible picture from a file; a grey one is repeated to three channels.

    :return: uint8 or uint16 [H, W, 3], RGB
    :raises FileError: missing, no picture, truncated or damaged, not of 8 or 16 bits
    """
    picture = _read(path)
    if picture.dtype.kind == "f":
        raise FileError(str(path), "a picture of 8 or 16 bits", describe(picture), "convert it to 16 bits")
    return to_visible(picture)


def read_infrared(path: str | Path) -> np.ndarray:
    """An infrared picture from a file; a colour one is reduced to BT.601 luma.

    :return: uint8 or uint16 [H, W]; uint8 for a float TIFF, see :func:`.thermal.to_uint8`
    :raises FileError: missing, no picture, truncated or damaged, neither of 8 or 16 bits nor grey float, NaN
    """
    picture = _read(path)
    try:
        return to_infrared(picture)
    except ImageError as error:
        raise FileError(str(path), error.expected, error.actual, error.remedy) from error


def _read(path: str | Path) -> np.ndarray:
    """[H, W] or [H, W, 3] RGB; uint8, uint16, or float."""
    data = _read_bytes(path)
    kind = next((name for mark, name in _SIGNATURES.items() if data.startswith(mark)), None)
    if kind is None:
        found = f"one that starts with {data[:4]!r}" if data else "an empty file"
        raise FileError(str(path), "a PNG, JPEG, TIFF or BMP picture", found)
    # Some releases of OpenCV return what they could decode of a truncated file, grey below; TIFF and BMP they refuse.
    if kind == "PNG":
        for _ in png_text.chunks(data, str(path)):
            pass
    elif kind == "JPEG" and not _jpeg_ends(data):
        raise FileError(str(path), "a whole JPEG file", f"one that breaks off after {len(data)} bytes", "copy it again")
    picture = _decode(data)
    if picture is None:
        raise FileError(str(path), f"a readable {kind} picture", "a damaged or truncated one", "copy it again")
    channels = picture.shape[2] if picture.ndim == 3 else 1
    if picture.dtype.name not in ("uint8", "uint16", "float32", "float64") or channels not in (1, 3, 4):
        raise FileError(str(path), "a picture of 8 or 16 bits with 1, 3 or 4 channels", describe(picture))
    if picture.dtype.kind == "f":
        return picture
    if channels == 1:
        return picture.reshape(picture.shape[:2])
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGB)


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FileError(str(path), "a readable picture file", error.strerror or error) from error


def _decode(data: bytes) -> np.ndarray | None:
    try:
        with _quiet_opencv():
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing about a damaged file: the error raised says it in the project's form."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _jpeg_ends(data: bytes) -> bool:
    """Whether the end mark follows the coded picture; the one of an embedded thumbnail does not count."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark == 0xDA:  # start of scan: from here on 0xFF is escaped, so the end mark cannot occur by chance
            return data.find(b"\xff\xd9", at) >= 0
        at += 1 if mark == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def write_png(path: str | Path, image: np.ndarray, metadata: Mapping[str, str] | None = None) -> None:
    """Write a PNG file; an existing one is replaced as a whole or not at all. Missing folders are made.

    :param image: uint8 or uint16, [H, W] or [H, W, 3] RGB
    :param metadata: texts by keyword (1 to 79 printable ASCII characters), kept as tEXt or, beyond ASCII, iTXt
    :raises ImageError: another type or shape
    :raises FileError: the file cannot be written
    """
    grey, colour = image.ndim == 2, image.ndim == 3 and image.shape[2] == 3
    if image.dtype.name not in ("uint8", "uint16") or not (grey or colour) or not image.size:
        raise ImageError(f"the picture for {path}", "uint8 or uint16, [H, W] or [H, W, 3] (RGB)", describe(image))
    _, coded = cv2.imencode(".png", image if grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    data = png_text.add_text(coded.tobytes(), metadata or {})
    path = Path(path)
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
    :ivar visible_only: stems without an infrared picture, sorted
    :ivar infrared_only: stems without a visible picture, sorted
    """

    pairs: tuple[Pair, ...]
    visible_only: tuple[str, ...] = ()
    infrared_only: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


def find_pairs(visible: str | Path, infrared: str | Path) -> PairListing:
    """Pair two files with each other, or the pictures of two folders by stem.

    Two files make one pair, whatever their names; its stem is the visible file's. In a folder the pictures are the
    files with a suffix of :data:`SUFFIXES` in any case; subfolders and hidden files are passed over.

    :raises FileError: a path is missing; a file and a folder; a folder without pictures, or with two of one stem; no
        stem in both folders
    """
    visible, infrared = Path(visible), Path(infrared)
    for path in (visible, infrared):
        if not path.exists():
            raise FileError(str(path), "a picture or a folder of pictures", "no such file or folder")
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
    left, right = _pictures(visible), _pictures(infrared)
    pairs = tuple(Pair(stem, left[stem], right[stem]) for stem in sorted(left.keys() & right.keys()))
    visible_only, infrared_only = sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())
    if not pairs:
        raise FileError(
            f"the folder {infrared}",
            f"one with a picture of the same name for some picture of {visible}",
            f"{_some(visible_only)} only there and {_some(infrared_only)} only here",
        )
    return PairListing(pairs, tuple(visible_only), tuple(infrared_only))


def _pictures(folder: Path) -> dict[str, Path]:
    """The picture files of a folder by stem."""
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
            raise FileError(f"the folder {folder}", "one picture for each name", names, "remove one of them")
        found[path.stem] = path
    if not found:
        raise FileError(f"the folder {folder}", f"one with pictures ({', '.join(SUFFIXES)})", "none")
    return found


def _some(stems: list[str], most: int = 5) -> str:
    shown = ", ".join(stems[:most])
    return f"{shown} (and {len(stems) - most} more)" if len(stems) > most else shown
