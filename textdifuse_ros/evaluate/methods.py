"""The rows of a table, and where the fused images of each come from.

Controls are computed; the results of all other methods are read from folders. This includes the model under test:
:func:`fuse_into` saves its images, which are then read back, so that the saved image is what is measured.

A folder contains ``STEM.png`` (or another image format) per pair; in the degraded panel ``clean/STEM.png`` and
``CONDITION/STEM.png``. A ``condition`` is ``clean`` or the name of a degradation in the degraded panel, else "".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdifuse_ros.data.conditions import CONDITIONS, degrade_pair
from textdifuse_ros.errors import ConfigError, FileError
from textdifuse_ros.evaluate.controls import CONTROLS
from textdifuse_ros.evaluate.preprocess import SUFFIX as PRE
from textdifuse_ros.evaluate.preprocess import preprocess
from textdifuse_ros.evaluate.sets import read_result
from textdifuse_ros.fusion.result import FusionResult, png_texts
from textdifuse_ros.image.files import Pair, find_image, write_png

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser
    from textdifuse_ros.runtime.processor import ProcessedPair

CLEAN = "clean"
MODEL = "textdifuse"
"""Name of the model's row."""


def condition_meaning(condition: str) -> str:
    """Describe a ``condition``, see above."""
    return "The images as they are." if condition == CLEAN else CONDITIONS[condition].meaning


@dataclass(frozen=True)
class Row:
    """One row of the tables.

    :ivar name: name in the tables; ends in ``+pre`` if the pre-processed pair is fused
    :ivar folder: folder of the results; None for a control
    :ivar baseline: whether the row counts as a control without being one of :data:`CONTROLS`
    """

    name: str
    folder: Path | None = None
    baseline: bool = False

    @property
    def is_control(self) -> bool:
        """Whether this row is a control, with or without pre-processing."""
        return self.baseline or self.name.removesuffix(PRE) in CONTROLS

    @property
    def preprocessed(self) -> bool:
        """Whether the pre-processed pair is fused."""
        return self.name.endswith(PRE)


def control_rows(preprocessed: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all controls, followed by the pre-processed ones.

    :param preprocessed: names of the controls to add with pre-processing
    :raises ConfigError: no control has that name
    """
    for name in preprocessed:
        if name not in CONTROLS:
            raise ConfigError("--pre", f"the name of a control ({', '.join(CONTROLS)}) or {MODEL}", repr(name))
    return [Row(name) for name in CONTROLS] + [Row(name + PRE) for name in preprocessed]


def parse_method(text: str) -> Row:
    """Parse the row of a method.

    :param text: ``NAME=FOLDER``
    :raises ConfigError: name or folder is missing, or the name is that of a control or of the model
    :raises FileError: the folder does not exist
    """
    name, separator, folder = text.partition("=")
    if not separator or not name.strip() or not folder.strip():
        raise ConfigError("--method", "NAME=FOLDER", repr(text))
    row = Row(name.strip(), Path(folder.strip()))
    if row.is_control or row.name.removesuffix(PRE) == MODEL:
        raise ConfigError("the name of a method", "one that no other row has", repr(name))
    if not Path(folder.strip()).is_dir():
        raise FileError(f"the results of {row.name}", "in an existing folder", repr(folder))
    return row


def check_results(row: Row, pairs: Sequence[Pair], conditions: Sequence[str]) -> None:
    """Check that a folder contains all results, before hours are spent on measuring.

    :param row: a row with a folder
    :param pairs: the pairs to measure
    :param conditions: the conditions to measure; () is the same as ("",)
    :raises FileError: names the first missing image and the number of missing images
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
    """Find the file of a fused image.

    :param row: a row with a folder
    :param stem: name of the pair without suffix
    :param condition: the condition, see above
    :raises FileError: the file does not exist
    """
    assert row.folder is not None
    folder = row.folder / condition
    path = find_image(folder, stem)
    if path is not None:
        return path
    raise FileError(f"the result of {row.name} for {stem}", f"the file {folder / stem}.png", "no such file")


class InputPair:
    """One pair under one condition: the input of every row, and access to the fused images.

    :param stem: name of the pair without suffix
    :param condition: the condition, see above
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
        """The pair after :func:`preprocess`, computed once."""
        if self._preprocessed is None:
            self._preprocessed = preprocess(*self.pair)
        return self._preprocessed

    def inputs_of(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """Return the visible and the infrared image that the method of ``row`` fuses."""
        return self.preprocessed if row.preprocessed else self.pair

    def fused_image(self, row: Row) -> np.ndarray:
        """Compute or read the fused image of ``row``, uint8 [H, W, 3] RGB.

        :raises FileError: the file is missing or not readable
        :raises ImageError: the image has another size than the pair
        """
        if row.folder is None:
            return CONTROLS[row.name.removesuffix(PRE)](*self.inputs_of(row))
        return read_result(result_path(row, self.stem, self.condition), self.pair[0])


def fuse_into(row: Row, fuser: Fuser, inputs: InputPair, pair: Pair) -> None:
    """Fuse one pair by the model and save the image in the folder of its row.

    The file carries its provenance; for a degraded or pre-processed pair also ``given``, for example ``haze+pre``.

    :param row: a row of the model
    :param fuser: the model
    :param inputs: the pair under one condition
    :param pair: the files of the pair
    """
    given = (inputs.condition or CLEAN) + (PRE if row.preprocessed else "")
    more = {} if given == CLEAN else {"given": given}
    save_fused(row, pair, fuser.fuse(*inputs.inputs_of(row)), part=inputs.condition, **more)


def save_fused(row: Row, pair: Pair, result: FusionResult | ProcessedPair, *, part: str = "", **more: str) -> None:
    """Save a fused image of the model in the folder of its row.

    :param row: a row of the model
    :param pair: the files of the pair
    :param result: the fused image with its provenance
    :param part: sub-folder: the condition, see above
    :param more: further provenance, see :func:`.result.png_texts`
    """
    assert row.folder is not None
    write_png(row.folder / part / f"{pair.stem}.png", result.image, png_texts(result.provenance, pair, **more))


def input_folders(folder: Path, condition: str) -> list[Path]:
    """Return the folders that :func:`save_inputs` writes: visible, infrared, and both pre-processed.

    :param folder: the root folder
    :param condition: the condition, see above; "" is the same as ``clean``
    """
    parts = [f"{source}{ending}" for ending in ("", PRE) for source in ("visible", "infrared")]
    return [folder / (condition or CLEAN) / part for part in parts]


def save_inputs(folder: Path, inputs: InputPair) -> None:
    """Save the input images of the methods, so that other programs can fuse the same ones.

    Writes ``CONDITION/{visible,infrared,visible+pre,infrared+pre}/STEM.png``; CONDITION is ``clean`` in that panel.

    :param folder: the root folder
    :param inputs: the pair under one condition
    """
    images = (*inputs.pair, *inputs.preprocessed)
    for place, image in zip(input_folders(folder, inputs.condition), images, strict=True):
        write_png(place / f"{inputs.stem}.png", image)
