"""Freed memory is reused."""
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from s3dnerf.allocator import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(10):
    torch.ones(12_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(12_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    return int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout)


HELD = """
import sys
import numpy as np
from s3dnerf.allocator import give_back_freed_memory, keep_freed_memory
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
assert keep_freed_memory()
blocks = [np.ones(2 ** 17) for _ in range(200)]
last, blocks = blocks[-1], None
print(resident(), give_back_freed_memory() and resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_big_blocks_are_not_asked_for_again():
    assert page_faults("keep") < page_faults("leave") / 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_what_is_kept_is_given_back_when_it_is_asked_for():
    kept, left = map(int, subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True).stdout.split())
    assert kept - left > 150  # MB, of 200
