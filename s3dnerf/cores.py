"""The cores that are this job's own, and libraries that keep to one of them."""
from __future__ import annotations

import math
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""what tells libraries how many threads to start, where they are loaded later"""
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""microseconds of processors that a container may take in a period, and the period (cgroup v2)"""


def own_cores() -> int:
    """How many there are: those that the job may run on, of all that the machine has, and no more than a container's quota allows
    (`docker run --cpus 4` shows all cores, and stops whoever uses them)."""
    return min(_allowed(), _quota())


def keep_to_quota() -> None:
    """Has libraries that are loaded later start as many threads as there are `own_cores`, unless the user has said how many. They
    know by themselves which cores they may run on, but nothing of a quota."""
    if _quota() < _allowed():
        for name in THREADS:
            os.environ.setdefault(name, str(_quota()))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile, and libraries that are loaded meanwhile, compute on one thread, unless the user has said
    otherwise."""
    new = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(new, "1"))
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _allowed() -> int:
    own = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(own(0)) if own else os.cpu_count() or 1


def _quota() -> float:
    """Whole cores, infinite where there is none."""
    try:
        most, period = QUOTA.read_text(encoding="utf-8").split()
        return max(1, math.ceil(int(most) / int(period)))
    except (OSError, ValueError):  # another system, or "max"
        return math.inf
