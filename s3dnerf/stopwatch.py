"""Where the time goes: seconds of named stages, in whichever threads they run."""
from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import Callable, Iterator, Optional

_THREAD = threading.local()


class Stopwatch:
    """Adds up the seconds of stages. A stage inside another one is taken off it, so that they sum up to what was measured.

    Args:
        settle: waits until what was begun is done, before a stage ends; a GPU works behind the program's back.
        clock: what is read before and after; anything that only grows can be told by stages.
    """

    def __init__(self, settle: Optional[Callable[[], None]] = None, clock: Callable[[], float] = time.perf_counter):
        self.settle, self.clock, self._lock = settle, clock, threading.Lock()
        self.seconds: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        """Adds to a stage, which may be new."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @contextmanager
    def stage(self, name: str, whole: bool = False) -> Iterator[None]:
        """Times what happens inside, in this thread; `stage` of this module, called inside, belongs to this stopwatch, unless
        this one is to be told as a `whole`."""
        outer = getattr(_THREAD, "inner", None)
        _THREAD.watch, _THREAD.inner = None if whole else self, 0.0
        begin = self.clock()
        try:
            yield
        finally:
            if self.settle is not None:
                self.settle()
            seconds = self.clock() - begin
            self.add(name, seconds - _THREAD.inner)
            _THREAD.watch, _THREAD.inner = (None, None) if outer is None else (self, outer + seconds)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A stage of whatever is being timed in this thread; costs nothing where nothing is."""
    watch = getattr(_THREAD, "watch", None)
    if watch is None:
        yield
        return
    with watch.stage(name):
        yield
