"""How far a long task is: a line that is rewritten on a terminal, plain lines elsewhere; nothing within two seconds of the first."""
from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import Callable, Iterator, Optional, TextIO


class Progress:
    """Counts what is done and says, on stderr, how fast it goes and how long it will still take. The first takes longest to come,
    and others come with it: by itself it tells no rate.

    Args:
        task: what is being done, a present participle.
        total: how many there are.
        unit: what is counted.
        quiet: seconds after the first before anything is said.
        stream: where to; None is stderr.
    """

    def __init__(self, task: str, total: int, unit: str, quiet: float = 2.0, stream: Optional[TextIO] = None):
        self.task, self.total, self.unit, self.quiet = task, total, unit, quiet
        self.stream = stream or sys.stderr
        self.done, self.begin, self.first, self.said = 0, time.monotonic(), None, 0.0

    def advance(self, count: int = 1) -> None:
        """Notes that `count` more are done."""
        self.done += count
        now = time.monotonic()
        self.first = now if self.first is None else self.first
        every = 0.2 if self.stream.isatty() else 10.0
        if now - self.first > self.quiet and (now - self.said > every):
            self.said = now
            self._say(now)

    def finish(self) -> None:
        """Ends the line."""
        if self.said and self.stream.isatty():
            self._say(time.monotonic())
            self.stream.write("\n")

    def _say(self, now: float) -> None:
        rate = self.done / max(now - self.begin, 1e-6)
        left = (self.total - self.done) / max(rate, 1e-6)
        text = f"{self.task}: {self.done}/{self.total} {self.unit}, {rate:.1f} per second, {left:.0f} s left"
        self.stream.write(f"\r{text:<78}" if self.stream.isatty() else text + "\n")
        self.stream.flush()


@contextmanager
def counting(task: str, total: int, shown: bool = True) -> Iterator[Callable[[], None]]:
    """What is to be called after each of `total` frames; says how far they are, unless it is not to be `shown`."""
    if not shown:
        yield lambda: None
        return
    with os.fdopen(os.dup(2), "w") as stream:  # its own, because tracking keeps the libraries' stderr from being seen
        progress = Progress(task, total, "frames", stream=stream)
        try:
            yield progress.advance
        finally:
            progress.finish()
