"""Writes a recording piece by piece, so that a run that was killed can be resumed.

While the work is unfinished, the folder ``OUT.partial`` lies beside ``OUT``, the recording to be written:

    job.json      description of the job; only a run of the same job resumes it
    lock          empty; locked by the active run
    000000/ ...   complete pieces, each a recording with metadata in its note ``piece``
    writing/      the piece being written, or OUT itself

A piece is written in ``writing`` and renamed when it is complete. At the end ``OUT`` is written the same way, and
``OUT.partial`` is removed. Whenever a run is killed, it leaves complete pieces, perhaps ``OUT``, and something in
``writing`` that the next run removes. A run that ends without a complete piece leaves nothing.

Only files of these names that a run has written are removed, never a folder with all that is in it, and links are not
followed: what others have put there stays.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from textdifuse_ros.bags.metadata import read_information
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.removal import is_real_folder, remove_empty, remove_recording
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.errors import BagError

JOB, NEW_JOB, LOCK, WRITING = "job.json", "job.new", "lock", "writing"
PIECE = "piece"
_MADE_BY = "textdifuse bag"
_JOB_START = f'{{"made_by": "{_MADE_BY}"'
_NUMBER = re.compile(r"\d{6}")


class Pieces:
    """The pieces of one recording; a context manager that holds its lock.

    :param output: the recording to write
    :param job: inputs and settings as plain values; equal jobs give equal bytes
    :param storage: ``mcap`` or ``sqlite3``
    :param restart: remove the pieces of another job
    :param beside: names of files that the caller writes into the pieces
    :ivar count: number of complete pieces
    :raises BagError: another run is active; another job was started; something else is at its place; the folder cannot
        be created
    """

    def __init__(
        self,
        output: Path,
        job: dict[str, Any],
        storage: str = "mcap",
        *,
        restart: bool = False,
        beside: tuple[str, ...] = (),
    ) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.partial")
        self.job = json.dumps(job, sort_keys=True)
        self.storage = storage
        self._restart = restart
        self._beside = beside
        self._lock: Any = None
        self._made: list[Path] = []
        self.count = 0

    def __enter__(self) -> Pieces:
        self._check_place()
        try:
            missing = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            self._made = missing
            handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            self._lock = os.fdopen(handle, "w")
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
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        """Unlock; without a complete piece there is no work to keep, and nothing stays."""
        if not any(self._is_complete(number) for number in self._numbers()):
            with suppress(BagError):
                self.clear()
        self._lock.close()

    def _check_place(self) -> None:
        """Refuse a folder in which a name of ours belongs to somebody else.

        :raises BagError: names what is there
        """
        remedy = "move it away, or choose another output"
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            found = "a symbolic link" if self.folder.is_symlink() else "a file"
            raise BagError(str(self.folder), "a folder of textdifuse bag", found, remedy)
        if not self.folder.exists():
            return
        taken = []
        if self._started() is None:
            names = sorted(item.name for item in self.folder.iterdir())
            taken = [name for name in names if name in (JOB, WRITING) or _NUMBER.fullmatch(name)]
        taken += [] if self._is_own_file(NEW_JOB, _JOB_START) else [NEW_JOB]
        taken += [] if self._is_own_file(LOCK, "") else [LOCK]
        if os.path.lexists(self.folder / WRITING) and not is_real_folder(self.folder / WRITING):
            taken.append(WRITING)
        if taken:
            found = f"one that holds {taken[0]}, which it has not written"
            raise BagError(str(self.folder), "a folder of textdifuse bag", found, remedy)

    def _is_own_file(self, name: str, start: str) -> bool:
        """Return whether a file is missing, or begins with ``start`` as far as a killed run has written it."""
        path = self.folder / name
        if not os.path.lexists(path):
            return True
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as content:
            return start.encode().startswith(content.read(max(len(start), 1)))

    def _write_job(self) -> None:
        """Write the description of the job atomically."""
        new = self.folder / NEW_JOB
        new.unlink(missing_ok=True)
        try:
            with new.open("x", encoding="utf-8") as content:
                content.write(json.dumps({"made_by": _MADE_BY, "job": json.loads(self.job)}))
            _flush(new)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        os.replace(new, self.folder / JOB)
        _flush(self.folder)

    def _started(self) -> str | None:
        """Return the description of the job that was started here; None if none was."""
        path = self.folder / JOB
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8")) if not path.is_symlink() else None
            return json.dumps(content["job"], sort_keys=True) if content["made_by"] == _MADE_BY else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _resume(self) -> None:
        """Find the complete pieces of an earlier run of this job, and remove what is not complete."""
        started = self._started()
        if started != self.job:
            if any(self._is_complete(number) for number in self._numbers()) and not self._restart:
                remedy = f"repeat it with the same arguments, or give --restart to remove its pieces ({self.folder})"
                raise BagError(f"the unfinished {self.output}", "of this job", "of another", remedy)
            self._remove_pieces()
            self._write_job()
        self._remove_writing()
        while self._is_complete(self.count):
            self.count += 1
        self._remove_pieces(self.count)

    def _numbers(self) -> list[int]:
        names = [item.name for item in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name))

    def _is_complete(self, number: int) -> bool:
        return is_real_folder(self._piece(number)) and PIECE in read_notes(self._piece(number))

    def _remove_pieces(self, first: int = 0) -> None:
        """Remove the pieces from the number ``first`` on, the last one first: those that are left stay in order."""
        for number in reversed(self._numbers()):
            if number >= first:
                remove_recording(self._piece(number), self._beside)
                if os.path.lexists(self._piece(number)):
                    remedy = "move it away"
                    found = "one with something that it has not written"
                    raise BagError(str(self._piece(number)), "a piece of textdifuse bag", found, remedy)

    def _remove_writing(self) -> None:
        writing = self.folder / WRITING
        if is_real_folder(writing):
            for item in writing.iterdir():
                if _NUMBER.fullmatch(item.name) or item.name == self.output.name:
                    remove_recording(item, self._beside)
            remove_empty(writing)

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
        """Remove the pieces, and their folder if nothing else is in it.

        :raises BagError: they cannot be removed
        """
        with _disk(self.folder):
            for number in reversed(self._numbers()):
                remove_recording(self._piece(number), self._beside)
            self._remove_writing()
            if self._started() is not None:
                (self.folder / JOB).unlink()
            (self.folder / NEW_JOB).unlink(missing_ok=True)
            if self._lock is not None:
                (self.folder / LOCK).unlink(missing_ok=True)
        for folder in dict.fromkeys([self.folder, *self._made]):
            remove_empty(folder)

    @contextmanager
    def _written(self, folder: Path, target: Path, storage: str) -> Iterator[BagWriter]:
        """Yield a writer in ``folder``, which is renamed to ``target``, or removed if the block raises."""
        self._remove_writing()
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
            with suppress(OSError):
                self._remove_writing()


def read_notes(recording: Path) -> dict[str, str]:
    """Return the notes in the metadata of ``recording``; empty if there are none."""
    notes = _information(recording).get("custom_data")
    found = notes.items() if isinstance(notes, dict) else ()
    return {name: text for name, text in found if isinstance(name, str) and isinstance(text, str)}


def count_messages(recording: Path) -> int:
    """Return the number of messages in the metadata of ``recording``."""
    count = _information(recording).get("message_count")
    return count if isinstance(count, int) else 0


def _information(recording: Path) -> dict[str, Any]:
    try:
        return read_information(recording)
    except (OSError, ValueError):
        return {}


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
