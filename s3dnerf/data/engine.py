"""Many jobs at once: on the cores of this machine, or through Ray on those of many."""
from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Callable, Iterator, Literal, Optional, Sequence

from s3dnerf.errors import DependencyError, S3DNeRFError

Engine = Literal["local", "ray"]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""what tells libraries how many threads to start; a job has one core, and more threads would fight for it"""
KILLED = ("a worker was killed, as it is where memory runs out; the same command goes on where it stopped: give it fewer "
          "--workers")


def each_done(function: Callable, jobs: Sequence, engine: Engine = "local", workers: Optional[int] = None) -> Iterator[None]:
    """Calls `function` on every job, some at a time, and yields once after each, in no order; its result is dropped.

    Both must be such that they can be pickled. One worker is this process. With `ray` the jobs go to the cluster that
    RAY_ADDRESS names, or to one of so many workers that lasts as long as this call. What a job raises is raised here.
    """
    if jobs:
        yield from {"local": _local, "ray": _ray}[engine](function, jobs, workers)


def _local(function: Callable, jobs: Sequence, workers: Optional[int]) -> Iterator[None]:
    if workers == 1:
        for job in jobs:
            function(job)
            yield
        return
    with _one_thread_each():
        pool = ProcessPoolExecutor(min(workers or os.cpu_count() or 1, len(jobs)), mp_context=get_context("spawn"))
        try:
            for future in as_completed([pool.submit(function, job) for job in jobs]):
                future.result()
                yield
        except BrokenProcessPool:
            raise S3DNeRFError(KILLED) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ray(function: Callable, jobs: Sequence, workers: Optional[int]) -> Iterator[None]:
    try:
        import ray
    except ImportError:
        raise DependencyError("--engine ray needs Ray; run `pip install 's3dnerf[ray]'`") from None
    own, address = not ray.is_initialized(), os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if own:
        size = {} if address else {"num_cpus": workers, "include_dashboard": False}
        with _one_thread_each():
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, **size)
    try:
        call = ray.remote(num_cpus=1, max_retries=2)(function)
        waiting = [call.remote(job) for job in jobs]
        while waiting:
            done, waiting = ray.wait(waiting)
            ray.get(done)
            yield
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        raise S3DNeRFError(KILLED) from None
    finally:
        if own:
            ray.shutdown()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile compute on one thread, unless the user has said otherwise."""
    new = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(new, "1"))
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
