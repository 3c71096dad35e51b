"""The output folder of a run, whose results replace those of an earlier run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from textdifuse_ros.errors import FileError

MARKER = ".textdifuse_run"
"""File in the output folder with the names of what runs have written there, one per line; nothing else is removed."""


def claim_output(output: Path, results: Sequence[str], inputs: Sequence[Path] = ()) -> None:
    """Create the folder, remove the results of an earlier run, and mark the results of this run as its own.

    Call it after all other checks: a run that is refused must not remove anything.

    :param output: the folder
    :param results: names of all files and folders that the run writes
    :param inputs: paths that the run reads
    :raises FileError: the folder cannot be created or written, an input would be removed, or a file of such a name was
        not written by a run
    """
    what = f"the output {output}"
    if output.exists() and not output.is_dir():
        raise FileError(what, "a folder", "a file")
    for path in inputs:
        for name in results:
            if _is_within(path, output / name):
                expected = f"outside of {output / name}, which the run replaces"
                raise FileError(f"the input {path}", expected, "one within", "give another output, or move the input")
    marker = output / MARKER
    try:
        owned = marker.read_text(encoding="utf-8").splitlines() if marker.is_file() else []
        existing = [name for name in results if os.path.lexists(output / name)]
        foreign = [name for name in existing if name not in owned]
        if foreign:
            found = f"one with {', '.join(foreign)}, which no run has marked as its own"
            raise FileError(what, "new, or an earlier run's", found, "give another folder, or remove them yourself")
        output.mkdir(parents=True, exist_ok=True)
        marker.write_text("".join(f"{name}\n" for name in sorted({*owned, *results})), encoding="utf-8")
        for name in existing:
            _remove(output / name)
    except (OSError, UnicodeDecodeError) as error:
        found = str(getattr(error, "strerror", None) or error)
        raise FileError(what, "a folder that can be written to", found) from error


def _is_within(path: Path, target: Path) -> bool:
    """Return whether a path is within ``target``, either as written or with links of its folders resolved."""
    written = Path(os.path.abspath(path)), Path(os.path.abspath(target))
    resolved = path.resolve(), target.parent.resolve() / target.name
    return any(inner.is_relative_to(outer) for inner, outer in (written, resolved))


def _remove(path: Path) -> None:
    """Remove a file or a folder; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
