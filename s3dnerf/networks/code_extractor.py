"""Reads identity, expression, albedo and illumination off a picture of a head; taught by contrast (Shen et al.)."""
from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACTORS = ("identity", "expression", "albedo", "illumination")


class CodeExtractor(nn.Module):
    """Convolutions, and four linear maps of what they find.

    Args:
        channels: of the layers, each of which halves the resolution.
        size: numbers of each of the four codes.
        resolution: side of the pictures that are looked at, pixels.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 48, 64), size: int = 16, resolution: int = 96):
        super().__init__()
        self.resolution = resolution
        sizes = (3, *channels)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(sizes, sizes[1:]))
        self.norms = nn.ModuleList(nn.GroupNorm(4, channel) for channel in channels[1:])
        side = resolution // 2 ** len(channels)
        self.squeeze = nn.Linear(channels[-1] * side * side, 128)
        self.codes = nn.Linear(128, len(FACTORS) * size)

    def forward(self, images: Tensor) -> Tensor:
        """Codes [N, 4, size] of unit length, in the order of `FACTORS`, of pictures [N, 3, H, W] of a head over black, in
        [0, 1]."""
        x = F.interpolate(images, size=(self.resolution, self.resolution), mode="bilinear", align_corners=False)
        x = F.silu(self.layers[0](x * 2 - 1))  # not normalised: illumination is in the mean
        for layer, norm in zip(self.layers[1:], self.norms):
            x = F.silu(norm(layer(x)))
        codes = self.codes(F.silu(self.squeeze(x.flatten(1)))).unflatten(1, (len(FACTORS), -1))
        return F.normalize(codes.float(), dim=-1)


def contrast(anchors: Tensor, partners: Tensor, others: Tensor, temperature: float = 0.2) -> Tensor:
    """[N, 1 + (N - 1) + M] cosines over `temperature`: of each anchor [N, K] with its partner [N, K], with the partners of
    the other anchors, and with others [N, M, K] of its own; the first is to be the largest."""
    count = len(anchors)
    among = anchors @ partners.T
    rest = among[~torch.eye(count, dtype=torch.bool, device=anchors.device)].view(count, count - 1)
    return torch.cat([among.diagonal()[:, None], rest, torch.einsum("nk,nmk->nm", anchors, others)], 1) / temperature
