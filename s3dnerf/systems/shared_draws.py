"""Random numbers of one step, shared among the processes that take it together."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

SIZED = {torch.rand, torch.randn, torch.randint}
LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
DROPOUT = {F.dropout, F.dropout1d}


class SharedDraws(TorchFunctionMode):
    """While it is active, PyTorch draws what one process with the whole batch would draw, and gives this process its rows.

    All processes must be in the same random state. A number without size is then the same in all of them, so that they take
    the same kind of step; an array is drawn for all of them, its first size being the batch (or beginning with it), and
    differs from one to the next. Draws from a generator of their own are left alone.

    Args:
        rank: which process this is.
        processes: how many there are.
    """

    def __init__(self, rank: int, processes: int):
        super().__init__()
        self.rank, self.processes = rank, processes

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in SIZED and kwargs.get("generator") is None:
            before, size = split_size(function, args)
            if size:
                return self.own(function(*before, (self.processes * size[0], *size[1:]), **kwargs), size[0])
        elif function in LIKE and args[0].ndim:
            like = {"dtype": args[0].dtype, "device": args[0].device} | kwargs
            return self.own(LIKE[function](self.processes * len(args[0]), *args[0].shape[1:], **like), len(args[0]))
        elif function in DROPOUT:
            return self.dropped(function, *args, **kwargs)
        return function(*args, **kwargs)

    def own(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """This process's `count` rows of all."""
        return rows[self.rank * count:(self.rank + 1) * count]

    def dropped(self, function, input, p=0.5, training=True, inplace=False):
        """Dropout of this process's rows."""
        if not training or not p or not input.ndim:
            return function(input, p, training, inplace)
        kept = function(input.new_ones(self.processes * len(input), *input.shape[1:]), p, True)
        return input * self.own(kept, len(input))


def split_size(function, args: tuple) -> tuple[tuple, tuple]:
    """The arguments before the size, and the size, of a call of `torch.rand`, `randn` or `randint`."""
    if args and isinstance(args[-1], (tuple, list)):
        return args[:-1], tuple(args[-1])
    return ((), args) if function is not torch.randint else (args, ())


def share_draws(system: nn.Module, draws: SharedDraws) -> None:
    """Has every call of the module, while it is in training, made with `draws`."""

    def begin(module, _inputs):
        if module.training:
            draws.__enter__()

    def end(module, _inputs, _outputs):
        if module.training:
            draws.__exit__(None, None, None)

    system.register_forward_pre_hook(begin)
    system.register_forward_hook(end, always_call=True)
