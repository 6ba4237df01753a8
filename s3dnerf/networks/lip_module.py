"""From what lips do, tracked or heard, to an expression code (Shen et al., lip synchronisation module)."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LipModule(nn.Module):
    """A small net whose codes lie on a sphere, where their direction says all: the contrast that teaches it compares
    directions.

    Args:
        code_size: numbers of the speech or lip code.
        expression_size: numbers of the expression code.
        width: channels inside.
    """

    def __init__(self, code_size: int = 12, expression_size: int = 79, width: int = 64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(code_size, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                                 nn.Linear(width, expression_size))

    def forward(self, code: Tensor) -> Tensor:
        """Expression codes [*, E] of codes [*, K]."""
        return on_sphere(self.net(code))


def on_sphere(codes: Tensor) -> Tensor:
    """Codes [*, E] of the length that E numbers of variance 1 have."""
    return F.normalize(codes, dim=-1) * codes.shape[-1] ** 0.5
