"""What a computing device must not be made to wait for: numbers that never change, and what is sent to it.

A GPU works behind the program's back. Whatever copies from ordinary memory waits until all that was begun is done, and cannot be
recorded into a graph either (`replay.py`).
"""
from __future__ import annotations

import os
import sys
import warnings
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Optional, Sequence

import torch
from torch import Tensor, nn


def constant(values: Sequence, like: Tensor) -> Tensor:
    """Numbers as a tensor of the type and on the device of another one; sent to a GPU once in a process."""
    if like.device.type == "cpu":
        return like.new_tensor(values)
    return _kept(values, like.dtype, like.device)


def indices(values: Sequence[int], like: Tensor) -> Tensor:
    """Places [N] on the device of a tensor that is to be read there."""
    if like.device.type == "cpu":
        return torch.tensor(values)
    return _kept(tuple(values), torch.int64, like.device)


@lru_cache(maxsize=4)
def kernels_work(device: torch.device) -> bool:
    """Whether Triton's kernels can be compiled and begun on a device. It comes with torch for Linux and CUDA, and wants a C compiler
    once; where it does not work, one warning says so, and what is slower is done in its place."""
    if find_spec("triton") is None:
        return False
    try:
        from s3dnerf.trial_kernel import double_kernel

        values = torch.ones(16, device=device)
        double_kernel[(1,)](values, 16)
        return float(values.sum()) == 32
    except Exception as error:  # compilers raise many types
        warnings.warn(f"kernels of Triton do not work here, and rendering is slower without ({_first_line(error)})", stacklevel=2)
        return False


@lru_cache(maxsize=256)
def _kept(values: Sequence, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training may use it too
        return torch.tensor(values, dtype=dtype, device=device)


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the processor on a device; a GPU fetches it by itself, from memory that stays where it is."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def cache_folder() -> Optional[Path]:
    """Where the platform keeps what programs can make again: $XDG_CACHE_HOME or ~/.cache, ~/Library/Caches, or %LOCALAPPDATA%;
    None for a user without a home, as a container's may be."""
    home = Path(os.path.expanduser("~"))
    usual = {"darwin": home / "Library" / "Caches", "win32": Path(os.environ.get("LOCALAPPDATA") or home)}
    folder = Path(os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, home / ".cache"))
    return folder / "s3dnerf" if folder.is_absolute() else None


def settled(model: nn.Module) -> nn.Module:
    """A model that stays where it is, for inference: on a GPU its convolutions keep channels last, which its matrix units want, and
    the fastest way of each is searched for when a shape is first seen. What is compiled is kept for the next process."""
    if next(model.parameters()).is_cuda:
        kept = cache_folder()
        for name, folder in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
            if kept is not None:
                os.environ.setdefault(name, str(kept / folder))
        torch.backends.cudnn.benchmark = True
        for part in model.modules():
            if isinstance(part, nn.Conv2d):
                part.to(memory_format=torch.channels_last)
    return model


def compiled(part: nn.Module, trial: Callable[[], object], remark: Callable[[str], None], backend: str = "inductor") -> bool:
    """Has torch compile a part of a model, as a whole and for the shapes it sees, and tries it; whether that went well. Where it did
    not, the part is as it was, and `remark` takes one line."""
    part.compile(fullgraph=True, dynamic=False, backend=backend)
    try:
        trial()
    except Exception as error:  # compilers raise many types
        part._compiled_call_impl = None
        remark(f"{type(part).__name__} could not be compiled, and is slower without ({_first_line(error)})")
        return False
    return True


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}"
