"""Low-rank adapters: a trained layer learns something new through few numbers (LoRA, Hu et al. 2022)."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
ORIGINAL = "parametrizations.weight.original"
"""what a layer's own weight is called once it is adapted"""


class LowRank(nn.Module):
    """Adds to a weight [out, *], seen as a matrix of `out` rows, a matrix of low rank that starts at zero.

    Args:
        shape: of the weight.
        rank: of what is added, which has rank * (rows + columns) parameters.
    """

    def __init__(self, shape: torch.Size, rank: int):
        super().__init__()
        columns = shape[1:].numel()
        self.down = nn.Parameter(torch.randn(rank, columns) * columns ** -0.5)
        self.up = nn.Parameter(torch.zeros(shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def adapt(module: nn.Module, rank: int) -> None:
    """Gives the weight of every linear and convolutional layer of a module an adapter, and freezes everything else. Until
    the adapters have learned something the module computes what it did, bit for bit."""
    module.requires_grad_(False)
    for layer in [layer for layer in module.modules() if isinstance(layer, LAYERS)]:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight.shape, rank))


@torch.no_grad()
def load_adapted(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Copies the weights of a module without adapters into the same with them, which stay as they are. RuntimeError where
    the weights are not the same."""
    own = {name.replace(ORIGINAL, "weight"): value for name, value in module.state_dict().items()
           if ".parametrizations." not in name or name.endswith(".original")}
    if own.keys() != state.keys():
        raise RuntimeError(f"found weights that do not fit, such as {min(own.keys() ^ state.keys())}")
    for name, value in own.items():
        value.copy_(state[name])
