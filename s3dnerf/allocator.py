"""Makes the C library keep the memory that tensors free, because asking the system for it anew costs more than computing."""
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
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in
                                       ((MMAP_MAX, 0), (TRIM_THRESHOLD, KEEP), (TOP_PAD, GROW)))
