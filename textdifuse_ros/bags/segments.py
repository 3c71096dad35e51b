"""A recording that is written piece by piece, so that a run that was killed goes on where it was.

Beside ``OUT``, the recording to be, lies the folder ``OUT.partial`` while there is work:

    job.json      what is being made; a run that makes something else does not go on with it
    lock          held by the run that is at work
    000000/ ...   complete pieces, each a recording whose note ``piece`` says what else came of it
    writing/      what is being written: a piece, or OUT itself

A piece is written in ``writing`` and renamed when it is whole; so is ``OUT`` at the end, after which ``OUT.partial``
goes. Whatever moment a run is killed at, there are complete pieces, perhaps ``OUT``, and something in ``writing`` that
the next run throws away.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.errors import BagError

JOB, LOCK, WRITING = "job.json", "lock", "writing"
PIECE = "piece"


class Pieces:
    """The work on one recording; a context manager that holds its lock.

    :param output: the recording to be made
    :param job: what it is made of and how: plain values; equal jobs give equal bytes
    :param storage: ``mcap`` or ``sqlite3``
    :param restart: throw away what another job has left
    :raises BagError: another run is at work on it; another job was begun; the folder cannot be made
    """

    def __init__(self, output: Path, job: dict[str, Any], storage: str = "mcap", *, restart: bool = False) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.partial")
        self.job = json.dumps(job, sort_keys=True)
        self.storage = storage
        self._restart = restart
        self._lock: Any = None
        self.count = 0

    def __enter__(self) -> Pieces:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / LOCK).open("w")
        except OSError as error:
            raise BagError(str(self.folder), "a folder that can be written to", error.strerror or error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise BagError(str(self.output), "made by one run at a time", "another one at work on it") from error
        try:
            with _disk(self.folder):
                self._take_up()
        except BaseException:
            if not (self.folder / JOB).exists():  # nothing was begun, and nothing is to be left
                with suppress(BagError):
                    self.clear()
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._lock.close()

    def _take_up(self) -> None:
        """Find what an earlier run has left of this job."""
        path = self.folder / JOB
        begun = path.read_text(encoding="utf-8") if path.is_file() else ""
        if begun and begun != self.job and not self._restart:
            remedy = f"repeat it as it was begun, or give --restart to throw its work away ({self.folder})"
            raise BagError(f"the unfinished {self.output}", "of this job", "of another", remedy)
        if begun != self.job:
            path.unlink(missing_ok=True)  # first: without it, whatever is left is nobody's
            for item in self.folder.iterdir():
                if item.is_dir():
                    shutil.rmtree(item)
            _write_whole(path, self.job)
        shutil.rmtree(self.folder / WRITING, ignore_errors=True)
        while self._piece(self.count).is_dir():
            self.count += 1

    def _piece(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def notes(self) -> list[Any]:
        """What was noted with each complete piece, in their order."""
        return [json.loads(read_notes(self._piece(number))[PIECE]) for number in range(self.count)]

    @contextmanager
    def next_piece(self) -> Iterator[tuple[BagWriter, dict[str, Any]]]:
        """A writer for the next piece, and a mapping for what is to be noted with it; whole if the block ends well."""
        folder = self.folder / WRITING / self._piece(self.count).name
        with self._written(folder, self._piece(self.count), "mcap") as writer:
            note: dict[str, Any] = {}
            yield writer, note
            writer.note(PIECE, json.dumps(note, sort_keys=True))
        self.count += 1

    @contextmanager
    def final(self) -> Iterator[BagWriter]:
        """A writer for the recording itself; when the block ends well it is in place, and the pieces are gone."""
        with self._written(self.folder / WRITING / self.output.name, self.output, self.storage) as writer:
            yield writer
        self.clear()

    def piece(self, number: int) -> BagReader | None:
        """A complete piece, open; None for one without a message."""
        if not count_messages(self._piece(number)):
            return None
        return BagReader(self._piece(number))

    def beside(self, number: int, name: str) -> Path:
        """Where a file lies that was written into the folder of a complete piece, beside its messages."""
        return self._piece(number) / name

    def clear(self) -> None:
        """Remove the folder of the pieces.

        :raises BagError: it cannot be removed
        """
        with _disk(self.folder):
            (self.folder / JOB).unlink(missing_ok=True)  # first: without it, whatever is left is nobody's
            for item in self.folder.iterdir():
                if item.is_dir():
                    shutil.rmtree(item)
            (self.folder / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # something of somebody else's
            self.folder.rmdir()

    @contextmanager
    def _written(self, folder: Path, target: Path, storage: str) -> Iterator[BagWriter]:
        """A writer in ``folder``, which becomes ``target`` when the block ends well and goes when it does not."""
        shutil.rmtree(folder.parent, ignore_errors=True)
        writer = BagWriter(folder, storage)
        try:
            with _disk(target):
                yield writer
                writer.close()
                for item in folder.iterdir():
                    _flush(item)
                _flush(folder)
                os.rename(folder, target)
                _flush(target.parent)
        finally:
            with suppress(Exception):
                writer.close()
            shutil.rmtree(folder.parent, ignore_errors=True)


def read_notes(recording: Path) -> dict[str, str]:
    """The notes in a recording's metadata; none where it is not one of ours."""
    return {str(name): str(text) for name, text in (_information(recording).get("custom_data") or {}).items()}


def count_messages(recording: Path) -> int:
    """How many messages its metadata tell of."""
    return int(_information(recording).get("message_count", 0))


def _information(recording: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load((recording / "metadata.yaml").read_text(encoding="utf-8"))
        return dict(content["rosbag2_bagfile_information"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, UnicodeDecodeError):
        return {}


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    new = path.with_suffix(".new")
    try:
        new.write_text(text, encoding="utf-8")
        _flush(new)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    os.replace(new, path)
    _flush(path.parent)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Errors of the disk as those of the project."""
    try:
        yield
    except OSError as error:
        raise BagError(str(folder), "a folder that can be written", error.strerror or error) from error


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
