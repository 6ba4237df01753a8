"""What a machine can do at most, measured: products of matrices, and copying."""
from __future__ import annotations

import platform
import resource
import sys
import time
from dataclasses import dataclass
from typing import Callable

import torch

from s3dnerf.workers import Workers

SIDE, COPIED = 1024, 1 << 24
"""of the matrices that are multiplied; numbers that are copied, 64 MB, more than caches hold"""


@dataclass(frozen=True)
class Machine:
    """A machine, and what each of the threads that render reaches while all of them are at work."""

    device: str
    name: str
    """of the processor or GPU"""
    threads: int
    """that render side by side"""
    product: float
    """operations per second and thread of a product of matrices, single precision"""
    copy: float
    """bytes per second and thread, read and written, of a copy"""

    @classmethod
    def measured(cls, device: torch.device, workers: Workers) -> "Machine":
        """Takes about a second."""
        parts = list(workers.map(lambda _: _ceilings(device), range(workers.count)))
        product, copy = (sum(column) / len(parts) for column in zip(*parts))
        return cls(str(device), _name(device), workers.count, product, copy)

    def least_seconds(self, operations: float, moved: float) -> float:
        """The roofline (Williams, Waterman, Patterson 2009): seconds that so many operations and bytes take one thread at
        least, were each done at its ceiling."""
        return max(operations / self.product, moved / self.copy)


def _ceilings(device: torch.device) -> tuple[float, float]:
    """Operations and bytes per second."""
    left, right = torch.rand(2, SIDE, SIDE, device=device)
    numbers, place = torch.rand(COPIED, device=device), torch.empty(COPIED, device=device)
    product = 2 * SIDE ** 3 / _best(lambda: left @ right, device)
    return product, 2 * 4 * COPIED / _best(lambda: place.copy_(numbers), device)


def _best(task: Callable[[], object], device: torch.device, seconds: float = 0.3) -> float:
    """Seconds of the fastest of as many tries as there is time for."""
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        begin = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return best


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most that the process, and on it the device, ever took, in MB."""
    unit = 2 ** 20 if sys.platform == "darwin" else 2 ** 10  # ru_maxrss is in bytes there, in kB elsewhere
    peak = {"process_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}
    if device.type == "cuda":
        peak["device_mb"] = round(torch.cuda.max_memory_allocated(device) / 2 ** 20, 1)
    return peak
