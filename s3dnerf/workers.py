"""Threads that render side by side: a frame is many small operations, whose parts are too small to share among cores."""
from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Callable, Iterable, Iterator, TypeVar

import torch

Part, Result = TypeVar("Part"), TypeVar("Result")

MOST = 8
"""threads that render side by side; where there are more cores each thread has several, because each takes memory"""


class Workers:
    """Does the parts of a long task in threads, and hands the results over in order, while it goes on with the next ones.

    Args:
        cores: to be used in all.
    """

    def __init__(self, cores: int):
        self.cores, self.count = cores, max(1, min(cores, MOST))

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """`function` of every part, without gradients; at most one part more than there are threads is begun before it is asked
        for, so that memory does not grow. What a part raises is raised here, and ends the others."""
        def work(part):
            with torch.inference_mode():
                return function(part)

        if self.count == 1:
            yield from map(work, parts)
            return
        pending: deque = deque()
        executor = ThreadPoolExecutor(self.count, "render", torch.set_num_threads, (self.cores // self.count,))
        try:
            for part in parts:
                pending.append(executor.submit(work, part))
                if len(pending) > self.count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            executor.shutdown(cancel_futures=True)
            torch.set_num_threads(self.cores)  # what later threads begin with


@contextmanager
def alone() -> Iterator[None]:
    """What is computed inside, in this thread, is not shared among cores: for what is done once and is made of small operators.

    Threads that share an operator wait for each other after each of them, spinning; where another program wants one of the
    cores, every wait lasts as long as that one's turn, and a second becomes many.
    """
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
