"""Log of a run: lines of JSON, the same values for TensorBoard, a progress bar, sheets of sample images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from textdifuse_ros.image.files import write_png

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"
BOARD = "tensorboard"
SHEETS = "sheets"


class RunLog:
    """Log of one process.

    Lines that a killed run wrote after its last state are removed, because the resumed run writes them again.

    :param folder: run folder
    :param step: steps done
    :param steps: of the whole run
    :param silent: write nothing: for all processes but the first
    """

    def __init__(self, folder: Path, step: int, steps: int, *, silent: bool = False) -> None:
        self.folder, self.silent = folder, silent
        # In a file, one line every half a minute is enough.
        interval = 0.5 if sys.stderr.isatty() else 30.0
        self.bar: Any = tqdm(
            total=steps, initial=step, unit="step", smoothing=0.05, disable=silent, mininterval=interval
        )
        self.board: SummaryWriter | None = None
        if not silent:
            folder.mkdir(parents=True, exist_ok=True)
            _truncate(folder / LOG, step)
            self.board = _board(folder / BOARD, step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.board is not None:
            self.board.close()

    def values(self, step: int, values: dict[str, float]) -> None:
        """Write one line, and one point per value for TensorBoard.

        :param step: steps done
        :param values: by name, with ``loss`` and ``crops_per_second``
        """
        if self.silent:
            return
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        self.bar.set_postfix_str(f"loss {values['loss']:.4f}, {values['crops_per_second']:.0f} crops/s", refresh=False)

    def sheet(self, step: int, image: np.ndarray) -> None:
        """Write a sheet of sample images.

        :param step: steps done
        :param image: uint8 [H, W, 3] RGB
        """
        if self.silent:
            return
        write_png(self.folder / SHEETS / f"{step:08}.png", image, {"step": str(step)})
        if self.board is not None:
            self.board.add_image("sheet", image, step, dataformats="HWC")


def tensorboard_installed() -> bool:
    """Return whether TensorBoard's logs can be written."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


def _board(folder: Path, step: int) -> SummaryWriter | None:
    if not tensorboard_installed():
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def _truncate(path: Path, step: int) -> None:
    """Keep the lines up to a step; drop an incomplete line too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError):
            break
        kept.append(line + "\n")
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)
