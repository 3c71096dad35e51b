"""The rows of a table: where the fused images of each come from.

A control is computed, the results of any other method lie in a folder. The model under test is one of these: it fuses
in one process (:func:`fuse_into`) and its images are then read back as anyone else's, so that exactly what was saved
is judged.

A folder holds ``STEM.png`` (or another image format) for each pair; for the degraded panel ``clean/STEM.png`` and
``CONDITION/STEM.png``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdifuse_ros.data.conditions import degrade_pair
from textdifuse_ros.errors import ConfigError, FileError
from textdifuse_ros.evaluate.controls import CONTROLS
from textdifuse_ros.evaluate.preprocess import SUFFIX as PRE
from textdifuse_ros.evaluate.preprocess import preprocess
from textdifuse_ros.evaluate.sets import read_result
from textdifuse_ros.fusion.result import FusionResult, png_texts
from textdifuse_ros.image.files import SUFFIXES, Pair, write_png

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

CLEAN = "clean"
MODEL = "textdifuse"
"""Name of the row of the model under test."""


@dataclass(frozen=True)
class Row:
    """One row of the tables.

    :ivar folder: of the results; None for a control, which is computed
    """

    name: str
    folder: Path | None = None

    @property
    def is_control(self) -> bool:
        """Whether anyone gets this row without a method; a pre-processing does not change that."""
        return self.name.removesuffix(PRE) in CONTROLS

    @property
    def preprocessed(self) -> bool:
        """Whether the pre-processed pair is fused."""
        return self.name.endswith(PRE)


def control_rows(preprocessed: Sequence[str] = ()) -> list[Row]:
    """All controls, and those named once more with pre-processing.

    :raises ConfigError: no control of that name
    """
    for name in preprocessed:
        if name not in CONTROLS:
            raise ConfigError("--pre", f"the name of a control ({', '.join(CONTROLS)}) or {MODEL}", repr(name))
    return [Row(name) for name in CONTROLS] + [Row(name + PRE) for name in preprocessed]


def parse_method(text: str) -> Row:
    """A row from ``NAME=FOLDER``.

    :raises ConfigError: no name or no folder in it, or the name of a control or of the model
    :raises FileError: no such folder
    """
    name, separator, folder = text.partition("=")
    if not separator or not name.strip() or not folder.strip():
        raise ConfigError("--method", "NAME=FOLDER", repr(text))
    row = Row(name.strip(), Path(folder.strip()))
    if row.is_control or row.name.removesuffix(PRE) == MODEL:
        raise ConfigError("the name of a method", "none that the table already has", repr(name))
    if not Path(folder.strip()).is_dir():
        raise FileError(f"the results of {row.name}", "in a folder", f"{folder!r}, which is none")
    return row


def check_results(row: Row, pairs: Sequence[Pair], conditions: Sequence[str]) -> None:
    """Refuse a folder that lacks an image, before hours are spent on the others.

    :param conditions: as for :func:`result_path`
    :raises FileError: names the first missing image, and says how many are
    """
    missing = []
    for condition in conditions or ("",):
        for pair in pairs:
            try:
                result_path(row, pair.stem, condition)
            except FileError as error:
                missing.append(error)
    if missing:
        first = missing[0]
        total = len(pairs) * len(conditions or ("",))
        raise FileError(first.what, first.expected, f"{first.actual} ({len(missing)} of {total} images are missing)")


def result_path(row: Row, stem: str, condition: str = "") -> Path:
    """The file of a fused image in a row's folder.

    :param condition: ``clean`` or that of a condition, for the degraded panel; "" where there are no such folders
    :raises FileError: there is none
    """
    assert row.folder is not None
    folder = row.folder / condition
    for suffix in (".png", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    raise FileError(f"the result of {row.name} for {stem}", f"the file {folder / stem}.png", "no such file")


class InputPair:
    """One pair under one condition, pre-processed at most once, and its rows' fused images.

    :param condition: as for :func:`result_path`
    :param visible: uint8 [H, W, 3] RGB, clean
    :param infrared: uint8 [H, W], clean
    """

    def __init__(self, stem: str, condition: str, visible: np.ndarray, infrared: np.ndarray) -> None:
        self.stem, self.condition = stem, condition
        clean = condition in ("", CLEAN)
        self.pair = (visible, infrared) if clean else degrade_pair(condition, visible, infrared, stem)
        self._preprocessed: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def preprocessed(self) -> tuple[np.ndarray, np.ndarray]:
        """The pair after :func:`preprocess`."""
        if self._preprocessed is None:
            self._preprocessed = preprocess(*self.pair)
        return self._preprocessed

    def of(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """The visible and infrared image that a row's method is given."""
        return self.preprocessed if row.preprocessed else self.pair

    def fused(self, row: Row) -> np.ndarray:
        """A row's image of this pair, uint8 [H, W, 3] RGB.

        :raises FileError: a method's file is missing or not readable
        :raises ImageError: it has another size than the pair
        """
        if row.folder is None:
            return CONTROLS[row.name.removesuffix(PRE)](*self.of(row))
        return read_result(result_path(row, self.stem, self.condition), self.pair[0])


def fuse_into(row: Row, fuser: Fuser, inputs: InputPair, pair: Pair) -> None:
    """Let the model fuse one pair, and save the image where the row looks for it.

    The file says what made it; of a degraded or pre-processed pair also ``given``: ``haze+pre``, say.

    :param pair: the files that the inputs were read from
    """
    given = (inputs.condition or CLEAN) + (PRE if row.preprocessed else "")
    more = {} if given == CLEAN else {"given": given}
    save_fused(row, pair, fuser.fuse(*inputs.of(row)), part=inputs.condition, **more)


def save_fused(row: Row, pair: Pair, result: FusionResult, *, part: str = "", **more: str) -> None:
    """Save an image of the model where its row looks for it.

    :param part: of the row's folder, as ``condition`` of :func:`result_path`
    :param more: as for :func:`.result.png_texts`
    """
    assert row.folder is not None
    write_png(row.folder / part / f"{pair.stem}.png", result.image, png_texts(result.provenance, pair, **more))


def input_folders(folder: Path, condition: str) -> list[Path]:
    """Where :func:`save_inputs` writes: visible, infrared, and both pre-processed.

    :param condition: as for :func:`result_path`; what has none is clean
    """
    parts = [f"{source}{ending}" for ending in ("", PRE) for source in ("visible", "infrared")]
    return [folder / (condition or CLEAN) / part for part in parts]


def save_inputs(folder: Path, inputs: InputPair) -> None:
    """Save what the methods are given, so that one that runs elsewhere can be given the same.

    Written are ``CONDITION/{visible,infrared,visible+pre,infrared+pre}/STEM.png``, CONDITION being ``clean`` in the
    clean panel.
    """
    images = (*inputs.pair, *inputs.preprocessed)
    for place, image in zip(input_folders(folder, inputs.condition), images, strict=True):
        write_png(place / f"{inputs.stem}.png", image)
