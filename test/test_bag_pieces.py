"""Writing a recording piece by piece: after a kill at any moment the next run gives the same bytes."""

from __future__ import annotations

import functools
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textdifuse_ros.bags import writer as writer_module
from textdifuse_ros.bags.segments import Pieces, count_messages, read_notes
from textdifuse_ros.errors import BagError

JOB = {"what": "two pieces"}
STRING = "std_msgs/msg/String"
DATA = b"\x00\x01\x00\x00\x03\x00\x00\x00hi\x00"
KILLED = 9


def _work(output: Path, job: dict[str, Any] = JOB, **options: Any) -> list[int]:
    """Write two pieces and the recording; returns the numbers of the pieces that this run has written."""
    written = []
    with Pieces(output, job, **options) as pieces:
        if output.exists():
            pieces.clear()
            return []
        while pieces.count < 2:
            written.append(pieces.count)
            with pieces.next_piece() as (writer, note):
                writer.add_topic("/note", STRING)
                for index in range(2):
                    writer.write_raw("/note", 100 * pieces.count + index, DATA)
                note["number"] = pieces.count
        assert [note["number"] for note in pieces.notes()] == [0, 1]
        with pieces.final() as writer:
            writer.add_topic("/note", STRING)
            for number in range(2):
                piece = pieces.piece(number)
                assert piece is not None
                with piece:
                    for message in piece.messages():
                        writer.write_raw("/note", message.stamp_ns, message.data)
            writer.note("made", "whole")
    return written


def _killed_at(step: int, output: Path) -> int:
    """Do the work in a process that is killed before its ``step``-th change on the disk."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        left = step

        def count(change: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(KILLED)
                return change(*arguments, **options)

            return counted

        for name in ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir"):
            setattr(os, name, count(getattr(os, name)))
        shutil.rmtree = count(_slow_rmtree)  # type: ignore[assignment]
        _work(output)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _slow_rmtree(path: Any, ignore_errors: bool = False) -> None:
    """Remove file by file through the counted functions, so that a folder may be left half removed."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in sorted(names):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the message types once instead of for each writer, which would take most of the time."""
    monkeypatch.setattr(writer_module, "common_types", functools.cache(writer_module.common_types))


@pytest.mark.usefixtures("quick")
def test_after_a_kill_at_any_step_the_next_run_gives_the_same_bytes(tmp_path: Path) -> None:
    assert _work(tmp_path / "a" / "whole") == [0, 1]
    expected = {item.name: item.read_bytes() for item in (tmp_path / "a" / "whole").iterdir()}
    for step in range(1000):
        output = tmp_path / str(step) / "whole"
        status = _killed_at(step, output)
        assert status in (0, KILLED), f"step {step}"
        _work(output)
        assert {item.name: item.read_bytes() for item in output.iterdir()} == expected, f"killed at step {step}"
        assert sorted(item.name for item in output.parent.iterdir()) == ["whole"], "nothing else is left"
        if status == 0:
            break
    assert status == 0 and step > 20, "every step was tried"


def test_complete_pieces_are_not_written_again(tmp_path: Path) -> None:
    with Pieces(tmp_path / "whole", JOB) as pieces, pieces.next_piece() as (writer, note):
        writer.add_topic("/note", STRING)
        for index in range(2):
            writer.write_raw("/note", index, DATA)
        note["number"] = 0
    with pytest.raises(RuntimeError), Pieces(tmp_path / "whole", JOB) as pieces, pieces.next_piece():
        raise RuntimeError("within a piece")
    assert _work(tmp_path / "whole") == [1]
    assert count_messages(tmp_path / "whole") == 4
    assert read_notes(tmp_path / "whole") == {"made": "whole"}


def test_another_job_is_refused_without_restart(tmp_path: Path) -> None:
    with Pieces(tmp_path / "whole", {"what": "another"}) as pieces, pieces.next_piece():
        pass
    with pytest.raises(BagError, match="--restart"):
        _work(tmp_path / "whole")
    assert (tmp_path / "whole.partial" / "000000").is_dir(), "its piece is kept"
    assert _work(tmp_path / "whole", restart=True) == [0, 1]


def test_a_full_disk_is_a_bag_error_and_leaves_nothing(tmp_path: Path) -> None:
    """With a limit on the size of files, which the system reports like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    try:
        with pytest.raises(BagError, match=r"whole\.partial must be a folder that can be written, got File too large"):
            _work(tmp_path / "whole")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    assert _work(tmp_path / "whole") == [0, 1]


def test_a_second_run_on_the_same_recording_is_refused(tmp_path: Path) -> None:
    with Pieces(tmp_path / "whole", JOB), pytest.raises(BagError, match="another active run"):
        _work(tmp_path / "whole")
    assert _work(tmp_path / "whole") == [0, 1]
