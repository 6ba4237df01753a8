"""Compiles all kernels for an NVIDIA GPU that need not be there, and says what they take of it: what Triton's interpreter, with which
they are tested elsewhere, does not see.

    python scripts/compile_kernels.py [kernel ...] [--target 90]
"""
from __future__ import annotations

import argparse
import time

NUMBERS = ("frames", "rays", "samples", "count", "whole")
"""arguments that are whole numbers; the others are places in memory, or known when a kernel is compiled"""
GRID = {"dimensions": 3, "channels": 4, "levels": 8, "entries": 2 ** 16, "hashed": True, "of_points": True, "block": 128}
MARCH = {"scales": 4, "side": 64, "channels": 16, "nx": 18, "ny": 20, "nz": 8, "modulations": 32, "rows": 84, "columns": 80,
         "size": 256, "width": 64, "out": 32}
"""sizes of the shipped weights"""


def compile_kernel(kernel, known: dict, warps: int, target: int):
    """What Triton makes of a kernel for a compute capability (90: H100)."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    known = {name: value for name, value in known.items() if name in kernel.arg_names}
    kinds = {"rest": "fp32", "cells": "*i32", "strides": "*i32", "starts": "*i32" if "strides" in kernel.arg_names else "*fp32"}
    signature = {name: "constexpr" if name in known else "i32" if name in NUMBERS else kinds.get(name, "*fp32")
                 for name in kernel.arg_names}
    aligned = {(index,): [["tt.divisibility", 16]] for index, kind in enumerate(signature.values()) if kind.startswith("*")}
    return build(ASTSource(kernel, signature, known, aligned), target=GPUTarget("cuda", target, 32), options={"num_warps": warps})


def main() -> None:
    from s3dnerf.models.fused_march import BLOCK, WARPS
    from s3dnerf.models.march_kernel import march_kernel
    from s3dnerf.networks.grid_kernel import gradient_kernel, look_up_kernel

    kernels = {"look_up": (look_up_kernel, GRID, 4), "gradient": (gradient_kernel, GRID, 4),
               "march": (march_kernel, MARCH | {"block": BLOCK}, WARPS)}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kernels", nargs="*", default=list(kernels), help=f"any of {', '.join(kernels)}")
    parser.add_argument("--target", type=int, default=90, help="compute capability: 80 A100, 86 RTX 30, 89 RTX 40, 90 H100")
    options = parser.parse_args()
    for name in options.kernels:
        begin = time.perf_counter()
        made = compile_kernel(*kernels[name], options.target)
        print(f"{name}: {made.metadata.num_warps} warps, {made.metadata.shared} bytes of shared memory, "
              f"{len(made.asm['cubin'])} bytes of code, compiled in {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
