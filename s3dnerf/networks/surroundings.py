"""How hair, neck and shoulders go with a head that moves."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACROSS, ABOVE, BELOW = 2.0, 1.7, 1.9
"""What the table spans, head units: to either side, above and below the origin of the head frame."""
PACE = 10.0
"""How many times faster than other weights the table learns: what is kept is the table divided by it."""


class Surroundings(nn.Module):
    """How far back what is beside the head lies, and which share of the head's shift and of its turn it takes part in.

    A learned table over the plane through the head's middle, the same on both sides. It starts from nothing but the
    notion that the farther from the face something is, the less it goes with it.

    Args:
        size: rows and columns of the table.
    """

    def __init__(self, size: tuple[int, int] = (13, 8)):
        super().__init__()
        y, x = torch.meshgrid(torch.linspace(-ABOVE, BELOW, size[0]), torch.linspace(0, ACROSS, size[1]), indexing="ij")
        far = (x - 0.8).clamp_min(0) + (y - 0.9).clamp_min(0)
        shares = [(1 - less * far).clamp_min(0) for less in (0.5, 0.8)]
        self.table = nn.Parameter(torch.stack([torch.zeros_like(far), *shares])[None] / PACE)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Depth behind the plane, head units, share of the shift and share of the turn, each [*, 1], at points [*, 2 or
        more] of the head frame."""
        x, y = 2 * points[..., 0].abs() / ACROSS - 1, 2 * (points[..., 1] + ABOVE) / (ABOVE + BELOW) - 1
        places = torch.stack([x, y], -1).reshape(1, 1, -1, 2)
        read = F.grid_sample(PACE * self.table, places, padding_mode="border", align_corners=True)[0, :, 0].transpose(0, 1)
        return read.reshape(*points.shape[:-1], 3).split(1, -1)
