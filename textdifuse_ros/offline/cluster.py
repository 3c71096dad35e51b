"""Many recordings: one after the other here, or several at once by Ray, one recording a task.

Ray starts on this machine alone unless an address names a cluster. There every machine needs the package with its
weights, and the recordings under the same paths. What a task yields comes back while it runs, so that progress is shown
by pairs; what a killed task had finished stays, as it does for a killed run.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from textdifuse_ros.checks import check_number
from textdifuse_ros.errors import InputError, TextDifuseError
from textdifuse_ros.offline.plan import RecordingJob
from textdifuse_ros.offline.recording import RecordingProgress, fuse_recording

OBJECT_STORE = 100_000_000
"""Bytes of Ray's shared memory on this machine: only progress goes through it, never an image."""

STARTS = 3
"""Attempts to start it."""

News = RecordingProgress | TextDifuseError


def fuse_recordings(
    jobs: Sequence[RecordingJob], workers: int = 1, address: str = ""
) -> Generator[tuple[int, News], None, None]:
    """Do all jobs; yields the number of a job and how far it is, or why it has ended. Close it to stop in order.

    A job that fails does not stop the others.

    :param workers: jobs at work at the same time
    :param address: of a Ray cluster; empty: this machine
    :raises InputError: more than one worker or an address, and Ray is not installed or cannot be reached
    """
    check_number("--workers", workers, 1, 1024, integer=True)
    if workers > 1 or address:
        yield from _by_ray(jobs, workers, address)
        return
    for number, job in enumerate(jobs):
        with closing(_news(job)) as source:  # closed at once if this is: what is done is kept
            for news in source:
                yield number, news


def _news(job: RecordingJob) -> Generator[News, None, None]:
    """Progress, and at last the summary or the error, as a value so that its type survives."""
    try:
        yield from fuse_recording(job)
    except TextDifuseError as error:
        yield error


def _by_ray(jobs: Sequence[RecordingJob], workers: int, address: str) -> Iterator[tuple[int, News]]:
    with _started(workers, address) as ray:
        resources = ray.cluster_resources()
        options: dict[str, Any] = {"max_retries": 0, "num_returns": "streaming"}
        if address:
            options["num_cpus"] = jobs[0].config.threads or 1
        else:
            options["num_cpus"] = max(1, int(resources["CPU"]) // workers)
        # Without a share of one, a task does not see a GPU at all.
        if resources.get("GPU") and jobs[0].config.device != "cpu":
            options["num_gpus"] = min(1.0, resources["GPU"] / workers)
        task = ray.remote(_news).options(**options)
        waiting = list(enumerate(jobs))[::-1]
        at_work: dict[Any, int] = {}
        while waiting or at_work:
            while waiting and len(at_work) < workers:
                number, job = waiting.pop()
                at_work[task.remote(job)] = number
            (ready,), _ = ray.wait(list(at_work), num_returns=1)
            try:
                yield at_work[ready], ray.get(next(ready))
            except StopIteration:
                del at_work[ready]
            except ray.exceptions.RayError as error:
                text = " ".join(str(error).split()) or type(error).__name__
                remedy = "run it again: it goes on where it was"
                yield at_work.pop(ready), InputError("the worker", "alive to the end", text, remedy)


@contextmanager
def _started(workers: int, address: str) -> Iterator[Any]:
    """Ray, connected; stopped, or left, at the end.

    :raises InputError: not installed, or not reached
    """
    # Ray reports its use over the network unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        remedy = "install the package with its extra [ray], or take one worker"
        raise InputError("Ray", "installed for more than one worker", "no module of that name", remedy) from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if not address:
        cores = max(workers, len(os.sched_getaffinity(0)))
        quiet.update(num_cpus=cores, object_store_memory=OBJECT_STORE, include_dashboard=False)
    # Its own processes give one another some seconds to start; on a busy machine that may do only the second time.
    for attempt in range(STARTS):
        try:
            ray.init(address or "local", **quiet)
            break
        except Exception as error:  # ConnectionError, RuntimeError, ValueError, by what it stumbles over
            ray.shutdown()
            if address or attempt == STARTS - 1:
                text = " ".join(str(error).split())
                raise InputError("Ray", "ready", text, "see --ray-address and /tmp/ray") from error
    try:
        yield ray
    finally:
        ray.shutdown()
