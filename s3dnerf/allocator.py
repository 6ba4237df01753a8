"""The C library keeps the memory that tensors free, because asking the system for it anew costs more than computing; and gives
it back where a process has grown too large."""
from __future__ import annotations

import ctypes
import sys

# Names and numbers of glibc's malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
KEEP, GROW = 2**31 - 1, 64 * 2**20
"""Free memory above which some is given back, and by how much the heap grows at once; bytes."""


def keep_freed_memory() -> bool:
    """Tells malloc to reuse big freed blocks instead of returning them to the system; whether it could be told.

    By default glibc maps every block of 32 MB or more anew, and the system clears each of its pages again: half of the
    time of a training step on the CPU. It holds for the process, so that it is the program's to call, not a library's.
    """
    mallopt = _glibc("mallopt")
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in
                                       ((MMAP_MAX, 0), (TRIM_THRESHOLD, KEEP), (TOP_PAD, GROW)))


def give_back_freed_memory() -> bool:
    """Hands memory that is free, but kept for reuse, back to the system; whether there was any.

    What is kept has holes, so that a process which makes many different videos takes more and more for the same work. It
    costs milliseconds, and each page that is wanted again.
    """
    trim = _glibc("malloc_trim")
    return trim is not None and trim(0) == 1


def _glibc(name: str):
    """A function of the C library; None where it is another (musl has neither)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
