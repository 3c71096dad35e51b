"""Writing a recording piece by piece: killed at whatever moment, the next run ends with the same bytes."""

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
    """Two pieces and the whole, as a verb does it; returns the pieces that this run has made."""
    made = []
    with Pieces(output, job, **options) as pieces:
        if output.exists():
            pieces.clear()
            return []
        while pieces.count < 2:
            made.append(pieces.count)
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
    return made


def _killed_at(step: int, output: Path) -> int:
    """Do the work in a process that ends, as kill -9 ends it, before its ``step``-th change on the disk."""
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
    """File by file, through the counted functions: a folder may be left half removed."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in sorted(names):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Message types are read once, not by every writer anew: that is most of the time here."""
    monkeypatch.setattr(writer_module, "common_types", functools.cache(writer_module.common_types))


@pytest.mark.usefixtures("quick")
def test_killed_at_every_single_step_the_next_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    assert _work(tmp_path / "a" / "whole") == [0, 1]
    expected = {item.name: item.read_bytes() for item in (tmp_path / "a" / "whole").iterdir()}
    for step in range(1000):
        output = tmp_path / str(step) / "whole"
        status = _killed_at(step, output)
        assert status in (0, KILLED), f"step {step}"
        _work(output)
        assert {item.name: item.read_bytes() for item in output.iterdir()} == expected, f"killed at step {step}"
        assert sorted(item.name for item in output.parent.iterdir()) == ["whole"], "nothing is left lying"
        if status == 0:
            break
    assert status == 0 and step > 20, "each step was a moment to be killed at"


def test_complete_pieces_are_not_made_again(tmp_path: Path) -> None:
    with Pieces(tmp_path / "whole", JOB) as pieces, pieces.next_piece() as (writer, note):
        writer.add_topic("/note", STRING)
        for index in range(2):
            writer.write_raw("/note", index, DATA)
        note["number"] = 0
    with pytest.raises(RuntimeError), Pieces(tmp_path / "whole", JOB) as pieces, pieces.next_piece():
        raise RuntimeError("in the midst of a piece")
    assert _work(tmp_path / "whole") == [1]
    assert count_messages(tmp_path / "whole") == 4
    assert read_notes(tmp_path / "whole") == {"made": "whole"}


def test_another_job_is_refused_until_it_is_told_to_restart(tmp_path: Path) -> None:
    with Pieces(tmp_path / "whole", {"what": "another"}) as pieces, pieces.next_piece():
        pass
    with pytest.raises(BagError, match="--restart"):
        _work(tmp_path / "whole")
    assert (tmp_path / "whole.partial" / "000000").is_dir(), "its work is still there"
    assert _work(tmp_path / "whole", restart=True) == [0, 1]


def test_a_disk_that_is_full_from_the_start_is_an_error_of_the_project_and_nothing_is_left(tmp_path: Path) -> None:
    """By a limit on the size of a file, which the system reports where a full disk would be."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    try:
        with pytest.raises(BagError, match=r"whole\.partial must be a folder that can be written, got File too large"):
            _work(tmp_path / "whole")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    assert _work(tmp_path / "whole") == [0, 1]


def test_two_runs_do_not_work_on_one_recording(tmp_path: Path) -> None:
    with Pieces(tmp_path / "whole", JOB), pytest.raises(BagError, match="another active run"):
        _work(tmp_path / "whole")
    assert _work(tmp_path / "whole") == [0, 1]
