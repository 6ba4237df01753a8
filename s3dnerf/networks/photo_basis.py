"""How a photo changes with what is known of a frame."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REACH = 3.0
"""standard deviations beyond which a factor is taken for less: what was never seen is not guessed at"""
SHIFT, SHADE = 0.01, 0.3
"""What a map's unit is worth, in half photos and in colour; maps that learn at one rate then move alike."""


class PhotoBasis(nn.Module):
    """Shifts and shades of a photo, each linear in a few factors such as the head's pose.

    The shape and the texture of an active appearance model (Cootes et al. 2001), but along what is known of a frame in place
    of principal components. It starts from no change.

    Args:
        factors: how many factors there are; one that is always 1 is added.
        shift_cells: rows and columns of the maps of shifts.
        shade_cells: rows and columns of the maps of shades.
    """

    def __init__(self, factors: int, shift_cells: int = 32, shade_cells: int = 64):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1 + factors, 2, shift_cells, shift_cells))
        self.shade = nn.Parameter(torch.zeros(1 + factors, 3, shade_cells, shade_cells))
        self.register_buffer("mean", torch.zeros(factors))
        self.register_buffer("spread", torch.ones(factors))

    @torch.no_grad()
    def adopt(self, values: Tensor) -> None:
        """Takes mean and spread of the factors over a recording's frames [T, K]."""
        self.mean.copy_(values.mean(0))
        self.spread.copy_(values.std(0).clamp_min(1e-6))

    def bending(self) -> Tensor:
        """Mean squared second difference of the maps of shifts: 0 for shifts, turns and zooms of the whole photo."""
        across, down = (self.shift.diff(2, axis) for axis in (-1, -2))
        return across.square().mean() + down.square().mean()

    def forward(self, values: Tensor) -> Tensor:
        """The change of the photo [T, 5, h, w], see `types.Motion`, in frames with factors [T, K]."""
        factors = F.pad(((values - self.mean) / self.spread).clamp(-REACH, REACH), (1, 0), value=1.0)
        shift, shade = (torch.einsum("tk,kchw->tchw", factors, maps) for maps in (SHIFT * self.shift, SHADE * self.shade))
        return torch.cat([F.interpolate(shift, shade.shape[-2:], mode="bilinear", align_corners=False), shade], 1)
