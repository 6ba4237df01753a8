"""Many jobs at once: on the cores of this machine, or through Ray on those of many."""
from __future__ import annotations

import os
import pickle
import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Callable, Iterable, Iterator, Literal, Optional, Sequence

from s3dnerf.cores import one_thread_each, own_cores
from s3dnerf.errors import DependencyError, InputError, S3DNeRFError

Engine = Literal["local", "ray"]
KILLED = "a worker was killed, as it is where memory runs out"
AGAIN = f"{KILLED}; the same command goes on where it stopped: give it fewer --workers"
AHEAD = 2
"""jobs of each worker that are begun before their results are asked for"""


def each_done(function: Callable, jobs: Sequence, engine: Engine = "local", workers: Optional[int] = None) -> Iterator[None]:
    """Calls `function` on every job, some at a time, and yields once after each, in no order; its result is dropped.

    Both must be such that they can be pickled. One worker is this process, None as many as it has cores of its own. With
    `ray` the jobs go to the cluster that RAY_ADDRESS names, or to one of so many workers that lasts as long as this call. What a
    job raises is raised here.
    """
    if jobs:
        yield from {"local": _local, "ray": _ray}[engine](function, jobs, workers)


def _local(function: Callable, jobs: Sequence, workers: Optional[int]) -> Iterator[None]:
    if workers == 1:
        for job in jobs:
            function(job)
            yield
        return
    with one_thread_each():  # a job has one core, and more threads would fight for it
        pool = ProcessPoolExecutor(min(workers or own_cores(), len(jobs)), get_context("spawn"), end_with_parent)
        try:
            for future in as_completed([pool.submit(function, job) for job in jobs]):
                future.result()
                yield
        except BrokenProcessPool:
            raise S3DNeRFError(AGAIN) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def end_with_parent() -> None:
    """Has this process end when the one that started it is gone, killed too: it would wait for jobs for ever, with all its memory."""
    def watch():
        parent_process().join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _ray(function: Callable, jobs: Sequence, workers: Optional[int]) -> Iterator[None]:
    with _cluster(workers) as ray:
        call = ray.remote(num_cpus=1, max_retries=2)(function)
        waiting = [call.remote(job) for job in jobs]
        try:
            while waiting:
                done, waiting = ray.wait(waiting)
                ray.get(done)
                yield
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            raise S3DNeRFError(AGAIN) from None


def in_order(function: Callable, jobs: Iterable, engine: Engine = "local", workers: int = 1, cores: int = 1,
             devices: int = 0) -> Iterator[Any]:
    """The results of `function` on every job, in the order of the jobs, while the next ones are at work.

    Both must be such that they can be pickled; the function goes to each worker once. At most `AHEAD` jobs of each worker are
    begun before they are asked for, so that memory does not grow. What a job raises is raised here, and ends the others.

    Args:
        function: takes a job.
        jobs: one after another.
        engine: see `each_done`; a job of Ray's whose worker is killed is tried again elsewhere.
        workers: jobs at a time.
        cores: of each worker.
        devices: CUDA devices of this machine among which the workers are shared out, each of which sees one; 0 for work that
            needs none. Ray finds its own.

    Raises:
        S3DNeRFError: for a worker that was killed.
    """
    with (_called_by_ray if engine == "ray" else _called_here)(function, workers, cores, devices) as (call, result):
        begun: deque = deque()
        for job in jobs:
            begun.append(call(job))
            if len(begun) == AHEAD * workers:
                yield result(begun.popleft())
        while begun:
            yield result(begun.popleft())


@contextmanager
def _called_here(function: Callable, workers: int, _cores: int, devices: int) -> Iterator[tuple[Callable, Callable]]:
    """What begins a job in a process of this machine, and what waits for its result."""
    context = get_context("spawn")
    with one_thread_each():
        pool = ProcessPoolExecutor(workers, context, _begin, (pickle.dumps(function), context.Value("i", 0), devices))
        try:
            yield (lambda job: pool.submit(_do, job)), (lambda future: future.result())
        except BrokenProcessPool:
            raise S3DNeRFError(f"{KILLED}; nothing was kept: ask for fewer at a time") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(function: bytes, started, devices: int) -> None:
    """Makes a process ready for jobs; an interruption is the business of the one that waits for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if devices:  # of those that this process was left, which need not be the first
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(devices)))
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[number % devices]
    _do.function = pickle.loads(function)


def _do(job):
    """A job of a process that `_begin` made ready."""
    return _do.function(job)


@contextmanager
def _called_by_ray(function: Callable, workers: int, cores: int, devices: int) -> Iterator[tuple[Callable, Callable]]:
    """The same by Ray."""
    with _cluster(workers * cores) as ray:
        kept = ray.put(function)
        call = ray.remote(num_cpus=cores, num_gpus=int(devices > 0), max_retries=2)(_call)
        try:
            yield (lambda job: call.remote(kept, job)), ray.get
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            raise S3DNeRFError(f"{KILLED}; nothing was kept: ask for fewer at a time") from None


def _call(function: Callable, job):
    return function(job)


@contextmanager
def _cluster(cores: Optional[int]) -> Iterator[Any]:
    """Ray, connected to the cluster that RAY_ADDRESS names, or to one of so many cores that lasts as long as this. InputError
    where it names none."""
    try:
        import ray
    except ImportError:
        raise DependencyError("--engine ray needs Ray; run `pip install 's3dnerf[ray]'`") from None
    own, address = not ray.is_initialized(), os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if own:
        size = {} if address else {"num_cpus": cores, "include_dashboard": False}
        try:
            with one_thread_each():
                ray.init(address=address, logging_level="ERROR", log_to_driver=False, **size)
        except (ValueError, ConnectionError, RuntimeError) as error:
            if address is None:
                raise
            raise InputError(f"no Ray cluster at RAY_ADDRESS={address} ({' '.join(str(error).split())[:120]}); start one with `ray "
                             "start --head`, or unset it for one on this machine") from None
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()
