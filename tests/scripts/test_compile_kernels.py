"""Kernels pass the compiler, not the interpreter alone; one of them here, all by hand (docs/performance.md)."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_kernel_is_compiled_for_a_gpu_that_is_not_there(tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed; it comes with torch for Linux and CUDA")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "compile_kernels.py"), "look_up"], env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("look_up: 4 warps") and len(done.stdout.splitlines()) == 1
