"""Parallel work on several processor cores."""

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
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_jobs(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    progress: Callable[[], object] = lambda: None,
) -> Iterator[Result]:
    """Yield ``function(job)`` for all jobs, in no particular order.

    Jobs are taken from the iterator while earlier ones run, so that the iterator itself may do slow work. With one
    worker everything runs in this process.

    :param function: a top-level function of a module, since other processes call it
    :param jobs: the arguments of ``function``
    :param workers: number of processes, 1 to 1024
    :param progress: called once per finished job
    :raises ConfigError: ``workers`` is out of range
    :raises Exception: the first exception of a job; jobs that have not started are dropped
    """
    check_number("--jobs", workers, 1, 1024, integer=True)
    if workers == 1:
        for job in jobs:
            result = function(job)
            progress()
            yield result
        return
    # spawn, not fork: forking a process with PyTorch threads may deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _init_worker)
    try:
        pending: list[Future[Result]] = []
        for job in jobs:
            pending.append(_submit(pool, function, job, progress))
            # Collect results while jobs are still being created, so that an error surfaces early.
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
    # A cancelled future also calls back.
    future.add_done_callback(lambda done: None if done.cancelled() else progress())
    return future


def _init_worker() -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole process group; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
