"""How many operations and bytes each stage takes, counted while it runs: the timers of the real path, with another clock."""
from __future__ import annotations

from typing import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from s3dnerf.benchmark.operations import LOOK_UPS
from s3dnerf.statistics import Statistics
from s3dnerf.stopwatch import Stopwatch


class ByteCounter(TorchDispatchMode):
    """Counts what operators read and write, each by itself; a view moves nothing."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        read, written = _tensors((arguments, options)), _tensors(result)
        if not function.is_view:
            self.total += sum(map(_size, read)) + sum(map(_size, written))
        return result


def _tensors(values) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def _size(tensor: torch.Tensor) -> int:
    """Bytes that a tensor has in memory; what is only repeated is there once."""
    count = 1
    for side, stride in zip(tensor.shape, tensor.stride()):
        count *= side if stride or side == 0 else 1
    return count * tensor.element_size()


def operations_of(statistics: Statistics, task: Callable[[], object]) -> dict[str, float]:
    """Floating point operations of every stage of a task that `statistics` times."""
    with FlopCounterMode(display=False, custom_mapping=LOOK_UPS) as counter:
        return _counted(statistics, task, counter.get_total_flops)


def bytes_of(statistics: Statistics, task: Callable[[], object]) -> dict[str, float]:
    """Bytes moved, likewise."""
    with ByteCounter() as counter:
        return _counted(statistics, task, lambda: counter.total)


def _counted(statistics: Statistics, task: Callable[[], object], clock: Callable[[], float]) -> dict[str, float]:
    watch, statistics.stopwatch = statistics.stopwatch, Stopwatch(clock=clock)
    try:
        with torch.no_grad():
            task()
        return statistics.seconds
    finally:
        statistics.stopwatch = watch
