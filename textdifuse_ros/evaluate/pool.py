"""Work spread over processor cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import TypeVar

import cv2

from textdifuse_ros.checks import check_number

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    progress: Callable[[], object] = lambda: None,
) -> Iterator[Result]:
    """The results of all jobs, in no particular order.

    The jobs are taken one by one while earlier ones are under way, so that an iterator may take its time to make them.
    With one worker the jobs are done in this process.

    :param function: of a module's top level, as it is called in other processes
    :param progress: called once for each job done
    :raises Exception: the first that a job raises; jobs not begun are dropped
    """
    check_number("--jobs", workers, 1, 1024, integer=True)
    if workers == 1:
        for job in jobs:
            result = function(job)
            progress()
            yield result
        return
    # Not forked: a fork of a process whose PyTorch has threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start)
    try:
        pending: list[Future[Result]] = []
        for job in jobs:
            pending.append(_submit(pool, function, job, progress))
            # While jobs are still being made, so that an error is not found out at the very end.
            for future in [future for future in pending if future.done()]:
                pending.remove(future)
                yield future.result()
        for future in as_completed(pending):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[Job], Result], job: Job, progress: Callable[[], object]
) -> Future[Result]:
    future = pool.submit(function, job)
    # A job that is dropped is done, too, as its future sees it.
    future.add_done_callback(lambda done: None if done.cancelled() else progress())
    return future


def _start() -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole group; only the parent is to speak of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
