"""Pictures on their way from a device: fetched by the device itself while it and the program go on."""
from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterable, Iterator, Optional, TypeVar

import numpy as np
import torch
from torch import Tensor

from s3dnerf.workers import Workers

DEPTH = 2
"""batches that may be on their way: one that is computed, and one that is fetched"""
Part = TypeVar("Part")


class Download:
    """One batch of pictures on its way."""

    def __init__(self, values: Tensor, event: Optional["torch.cuda.Event"] = None):
        self.values, self.event = values, event

    def wait(self) -> Tensor:
        """The pictures, the caller's own."""
        if self.event is None:
            return self.values
        self.event.synchronize()
        return self.values.clone()  # its place is soon the next one's


class Downloads:
    """A ring of places in memory that a GPU can write to by itself (page-locked); on a CPU it is copied at once."""

    def __init__(self, depth: int = DEPTH):
        self.places: deque[Optional[Tensor]] = deque([None] * depth)

    def begin(self, values: Tensor) -> Download:
        """Sends for pictures [T, *], of which there are never more than of the first."""
        if values.device.type != "cuda":
            return Download(values.clone())
        place = self.places.popleft()
        if place is None or place.shape[1:] != values.shape[1:] or len(place) < len(values):
            place = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self.places.append(place)
        place[:len(values)].copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return Download(place[:len(values)], event)


class Ahead(Workers):
    """Takes the place of `Workers` where a GPU renders: one thread, which begins a part before it waits for the one before, and
    stays one ahead of whoever takes the results."""

    def __init__(self):
        super().__init__(1)

    def stream(self, begin: Callable[[Part], Callable[[], np.ndarray]], parts: Iterable[Part]) -> Iterator[np.ndarray]:
        """What `begin` of each part says when it is asked, in order; asked once the next part has been begun."""
        def results():
            pending: deque = deque()
            for part in parts:
                pending.append(begin(part))
                if len(pending) > 1:
                    yield pending.popleft()()
            while pending:
                yield pending.popleft()()

        source, end = results(), object()

        def following():
            with torch.inference_mode():
                return next(source, end)

        with ThreadPoolExecutor(1, "render") as executor:
            coming = executor.submit(following)
            while (found := coming.result()) is not end:
                coming = executor.submit(following)
                yield found
