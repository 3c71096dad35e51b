"""Writes a recording piece by piece, so that a run that was killed can be resumed.

While the work is unfinished, the folder ``OUT.partial`` lies beside ``OUT``, the recording to be written:

    job.json      description of the job; only a run of the same job resumes it
    lock          locked by the active run
    000000/ ...   complete pieces, each a recording with metadata in its note ``piece``
    writing/      the piece being written, or OUT itself

A piece is written in ``writing`` and renamed when it is complete. At the end ``OUT`` is written the same way, and
``OUT.partial`` is removed. Whenever a run is killed, it leaves complete pieces, perhaps ``OUT``, and something in
``writing`` that the next run removes.
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
    """The pieces of one recording; a context manager that holds its lock.

    :param output: the recording to write
    :param job: inputs and settings as plain values; equal jobs give equal bytes
    :param storage: ``mcap`` or ``sqlite3``
    :param restart: remove the pieces of another job
    :ivar count: number of complete pieces
    :raises BagError: another run is active; another job was started; the folder cannot be created
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
            raise BagError(str(self.output), "written by one run at a time", "another active run") from error
        try:
            with _disk(self.folder):
                self._resume()
        except BaseException:
            if not (self.folder / JOB).exists():  # nothing was started: leave nothing behind
                with suppress(BagError):
                    self.clear()
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._lock.close()

    def _resume(self) -> None:
        """Find the complete pieces of an earlier run of this job."""
        path = self.folder / JOB
        started = path.read_text(encoding="utf-8") if path.is_file() else ""
        if started and started != self.job and not self._restart:
            remedy = f"repeat it with the same arguments, or give --restart to remove its pieces ({self.folder})"
            raise BagError(f"the unfinished {self.output}", "of this job", "of another", remedy)
        if started != self.job:
            path.unlink(missing_ok=True)  # first: pieces without a job belong to nobody
            for item in self.folder.iterdir():
                if item.is_dir():
                    shutil.rmtree(item)
            _write_atomically(path, self.job)
        shutil.rmtree(self.folder / WRITING, ignore_errors=True)
        while self._piece(self.count).is_dir():
            self.count += 1

    def _piece(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def notes(self) -> list[Any]:
        """Return the metadata of each complete piece, in order."""
        return [json.loads(read_notes(self._piece(number))[PIECE]) for number in range(self.count)]

    @contextmanager
    def next_piece(self) -> Iterator[tuple[BagWriter, dict[str, Any]]]:
        """Yield a writer for the next piece and a mapping for its metadata; complete if the block raises nothing."""
        folder = self.folder / WRITING / self._piece(self.count).name
        with self._written(folder, self._piece(self.count), "mcap") as writer:
            note: dict[str, Any] = {}
            yield writer, note
            writer.note(PIECE, json.dumps(note, sort_keys=True))
        self.count += 1

    @contextmanager
    def final(self) -> Iterator[BagWriter]:
        """Yield a writer for the recording; if the block raises nothing, it is put in place and the pieces removed."""
        with self._written(self.folder / WRITING / self.output.name, self.output, self.storage) as writer:
            yield writer
        self.clear()

    def piece(self, number: int) -> BagReader | None:
        """Open the complete piece ``number``; None if it has no messages."""
        if not count_messages(self._piece(number)):
            return None
        return BagReader(self._piece(number))

    def beside(self, number: int, name: str) -> Path:
        """Return the path of the file ``name`` in the folder of the complete piece ``number``."""
        return self._piece(number) / name

    def clear(self) -> None:
        """Remove the folder of the pieces.

        :raises BagError: it cannot be removed
        """
        with _disk(self.folder):
            (self.folder / JOB).unlink(missing_ok=True)  # first: pieces without a job belong to nobody
            for item in self.folder.iterdir():
                if item.is_dir():
                    shutil.rmtree(item)
            (self.folder / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # not empty: it holds files of others
            self.folder.rmdir()

    @contextmanager
    def _written(self, folder: Path, target: Path, storage: str) -> Iterator[BagWriter]:
        """Yield a writer in ``folder``, which is renamed to ``target``, or removed if the block raises."""
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
    """Return the notes in the metadata of ``recording``; empty if there are none."""
    return {str(name): str(text) for name, text in (_information(recording).get("custom_data") or {}).items()}


def count_messages(recording: Path) -> int:
    """Return the number of messages in the metadata of ``recording``."""
    return int(_information(recording).get("message_count", 0))


def _information(recording: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load((recording / "metadata.yaml").read_text(encoding="utf-8"))
        return dict(content["rosbag2_bagfile_information"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, UnicodeDecodeError):
        return {}


def _write_atomically(path: Path, text: str) -> None:
    """Write a file atomically."""
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
    """Raise errors of the disk as BagError."""
    try:
        yield
    except OSError as error:
        raise BagError(str(folder), "a folder that can be written", error.strerror or error) from error


def _flush(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
