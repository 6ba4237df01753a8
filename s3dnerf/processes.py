"""Processes that work on one thing together (DDP)."""
from __future__ import annotations

from typing import TypeVar

import torch

Value = TypeVar("Value")


def processes() -> int:
    """How many there are."""
    return torch.distributed.get_world_size() if torch.distributed.is_available() and torch.distributed.is_initialized() else 1


def everybody(value: Value) -> list[Value]:
    """What each of them has in place of `value`, in order, in all of them."""
    found: list = [value] * processes()
    if len(found) > 1:
        torch.distributed.all_gather_object(found, value)
    return found
