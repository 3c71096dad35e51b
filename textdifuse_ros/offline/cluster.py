"""Fuses many recordings: one after another in this process, or several in parallel by Ray, one task per recording.

Ray runs on this machine unless an address names a cluster, on which every machine needs the package with its weights,
and the recordings under the same paths. Tasks stream their progress pair by pair. The finished pieces of a task that is
killed remain, so that a new run continues with them.
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
"""Size of Ray's shared memory on this machine [bytes]: it holds only progress, never an image."""

STARTS = 3
"""Attempts to start Ray."""

News = RecordingProgress | TextDifuseError


def fuse_recordings(
    jobs: Sequence[RecordingJob], workers: int = 1, address: str = ""
) -> Generator[tuple[int, News], None, None]:
    """Run all jobs. Yields the index of a job and its progress, or the error that ended it; close it to stop early.

    A job that fails does not stop the others.

    :param jobs: the recordings to fuse
    :param workers: number of jobs in parallel
    :param address: of a Ray cluster; empty for this machine
    :raises InputError: Ray is needed (more than one worker, or an address) but not installed, or cannot be reached
    """
    check_number("--workers", workers, 1, 1024, integer=True)
    if workers > 1 or address:
        yield from _by_ray(jobs, workers, address)
        return
    for number, job in enumerate(jobs):
        with closing(_news(job)) as source:  # closed with this generator, which saves the finished pairs
            for news in source:
                yield number, news


def _news(job: RecordingJob) -> Generator[News, None, None]:
    """Yield the progress of a job; an error is yielded, not raised, since Ray would change its type."""
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
        # A task that requests no share of a GPU cannot use one.
        if resources.get("GPU") and jobs[0].config.device != "cpu":
            options["num_gpus"] = min(1.0, resources["GPU"] / workers)
        task = ray.remote(_news).options(**options)
        waiting = list(enumerate(jobs))[::-1]
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                number, job = waiting.pop()
                running[task.remote(job)] = number
            (ready,), _ = ray.wait(list(running), num_returns=1)
            try:
                yield running[ready], ray.get(next(ready))
            except StopIteration:
                del running[ready]
            except ray.exceptions.RayError as error:
                text = " ".join(str(error).split()) or type(error).__name__
                remedy = "run it again: it continues where it stopped"
                yield running.pop(ready), InputError("the worker", "alive to the end", text, remedy)


@contextmanager
def _started(workers: int, address: str) -> Iterator[Any]:
    """Connect to Ray, or start it; disconnects, or stops it, at the end.

    :raises InputError: Ray is not installed, or cannot be reached
    """
    # Ray sends usage statistics over the network unless this is set.
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
    # Ray's processes have a few seconds to start, which may not be enough on a busy machine.
    for attempt in range(STARTS):
        try:
            ray.init(address or "local", **quiet)
            break
        except Exception as error:  # ConnectionError, RuntimeError or ValueError
            ray.shutdown()
            if address or attempt == STARTS - 1:
                text = " ".join(str(error).split())
                raise InputError("Ray", "ready", text, "see --ray-address and /tmp/ray") from error
    try:
        yield ray
    finally:
        ray.shutdown()
