"""The output folder of a run, whose results replace those of an earlier run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from textdifuse_ros.errors import FileError

MARKER = ".textdifuse_run"
"""File in the output folder with the names of what runs have written there, one per line; nothing else is removed."""

_WRITTEN = (".log", ".json", ".mcap", ".db3", ".db3-journal", ".yaml", ".yaml.tmp")
"""Ends of the names of all files that runs write into folders."""
_ROS_LOGS = "ros"
"""Folder of ROS within the folder of the logs."""


def claim_output(output: Path, results: Sequence[str], inputs: Sequence[Path] = ()) -> None:
    """Create the folder, remove the results of an earlier run, and mark the results of this run as its own.

    Call it after all other checks: a run that is refused must not remove anything.

    :param output: the folder
    :param results: names of all files and folders that the run writes
    :param inputs: paths that the run reads
    :raises FileError: the folder cannot be created or written, an input would be removed, or a file of such a name, or
        in such a folder, was not written by a run
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
        if marker.is_symlink():
            raise FileError(
                f"the file {marker}", "no symbolic link", "one", "give another folder, or remove it yourself"
            )
        owned = marker.read_text(encoding="utf-8").splitlines() if marker.is_file() else []
        existing = [name for name in results if os.path.lexists(output / name)]
        foreign = [name for name in existing if name not in owned]
        if foreign:
            found = f"one with {', '.join(foreign)}, which no run has marked as its own"
            raise FileError(what, "new, or an earlier run's", found, "give another folder, or remove them yourself")
        if stranger := next((path for name in existing for path in _strangers(output / name)), None):
            found = f"one with {stranger}, which no run has written"
            raise FileError(what, "new, or an earlier run's", found, "give another folder, or move it away")
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


def _strangers(path: Path) -> Iterator[Path]:
    """Yield what is in a folder of results, and was not written by a run."""
    if path.is_symlink() or not path.is_dir():
        return
    for item in path.iterdir():
        if item.name == _ROS_LOGS and item.is_dir() and not item.is_symlink():
            yield from _strangers(item)
        elif item.is_symlink() or not item.is_file() or not item.name.endswith(_WRITTEN):
            yield item


def _remove(path: Path) -> None:
    """Remove a file, or a folder with the files that runs write; of a link only the link."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for item in [*path.glob(f"{_ROS_LOGS}/*"), *path.iterdir()]:
        if item.is_file() and item.name.endswith(_WRITTEN):
            item.unlink()
    with suppress(OSError):
        (path / _ROS_LOGS).rmdir()
    path.rmdir()
