"""Tri-planes: looking points up, and fusing what several scales say about a point."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.precision import single_precision

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""Each plane spans two of the axes x, y, z: xy, xz, yz."""


@single_precision
def sample_planes(planes: Tensor, points: Tensor) -> Tensor:
    """Features [B, N, C] of points [B, N, 3] in [-1, 1]^3: mean over the three planes [B, 3, C, h, w], bilinear.

    Points outside the cube take the value at its border.
    """
    total = 0
    for index, (across, down) in enumerate(PLANE_AXES):
        grid = torch.stack([points[..., across], points[..., down]], -1)[:, :, None]
        total = total + F.grid_sample(planes[:, index], grid, padding_mode="border", align_corners=False)
    return (total / 3).squeeze(-1).transpose(1, 2)


class SlotFusion(nn.Module):
    """Fuses the features of S scales at a point into one vector by slot attention (Locatello et al. 2020).

    The softmax runs over the slots, so each scale is divided among them; two slots or more are needed for the scales
    to be weighted at all. Slots start from learned vectors, so the result is deterministic.

    Args:
        channels: features per scale.
        width: size of the fused vector.
        slots: number of slots, at least 2.
        iterations: rounds of attention.
    """

    def __init__(self, channels: int, width: int = 32, slots: int = 2, iterations: int = 2, scales: int = 4):
        super().__init__()
        if slots < 2:
            raise ValueError(f"found slots={slots}; at least 2 are needed, one slot is a plain mean over the scales")
        self.iterations = iterations
        self.start = nn.Parameter(torch.randn(slots, width) * width ** -0.5)
        self.scale_embedding = nn.Parameter(torch.randn(scales, width) * 0.1)
        self.keys, self.values = nn.Linear(channels, width), nn.Linear(channels, width)
        self.queries = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.update = nn.GRUCell(width, width)
        self.merge = nn.Linear(slots * width, width)

    def forward(self, features: Tensor) -> Tensor:
        """[N, S, C] -> [N, width]."""
        fused, _ = self.attend(features)
        return fused

    def attend(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Fused vectors [N, width] and how each slot weighs the scales, [N, slots, S], rows summing to 1."""
        count = features.shape[0]
        keys, values = self.keys(features) + self.scale_embedding, self.values(features)
        slots = self.start.expand(count, -1, -1)
        for _ in range(self.iterations):
            logits = self.queries(self.norm(slots)) @ keys.transpose(1, 2) * keys.shape[-1] ** -0.5
            shares = logits.softmax(1) + 1e-6
            weights = shares / shares.sum(-1, keepdim=True)
            slots = self.update((weights @ values).flatten(0, 1), slots.flatten(0, 1)).unflatten(0, (count, -1))
        return self.merge(slots.flatten(1)), weights
