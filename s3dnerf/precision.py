"""What is computed in single precision when training runs in half: places, distances and sums along rays.

A half-precision number has 8 bits (bfloat16): at 200 pixels it steps by one.
"""
from __future__ import annotations

from contextlib import ExitStack, nullcontext
from functools import wraps

import torch


def single_precision(function):
    """Has a function leave autocast, with tensors and records of half precision converted first; without autocast it is as it
    was."""

    @wraps(function)
    def computed(*args, **kwargs):
        kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        if not kinds:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in kinds:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*map(raised, args), **{name: raised(value) for name, value in kwargs.items()})

    return computed


def half_on_gpu(appearance):
    """Has networks reckon in bfloat16 inside, where an identity (`types.Appearance`) is rendered in half the precision on a GPU; what
    is `single_precision` stays so. Nothing elsewhere: on a CPU converting costs more than it saves for networks so small."""
    if appearance.occupancy is None or not appearance.occupancy.half or not appearance.lattice.is_cuda:
        return nullcontext()
    return torch.autocast("cuda", dtype=torch.bfloat16)


def raised(value):
    """Tensors of half precision, and records of them, in single precision; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    return value.map(raised) if hasattr(value, "map") else value
