"""What is at a point, from encoded coordinates by one deep net (NeRF, appendix A; AD-NeRF, section 3.2)."""
from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.networks.decomposed_field import truncated_exp
from s3dnerf.networks.torso import encode_waves

DENSITY_START = -1.0
"""logarithm of the density, per head unit, before anything is learned"""


class ImplicitField(nn.Module):
    """Layers of one width over a point's waves and what the field is told; the input comes in once more half-way.

    With its defaults and 64 numbers that are told these are AD-NeRF's nets, of 661 636 parameters.

    Args:
        told: numbers that the field is told about every point: codes.
        width: channels of the layers.
        depth: layers.
        octaves: of the waves of a point.
        view_octaves: of the waves of the direction that it is seen in; None: colour does not depend on it.
        colour_width: channels of the layers behind the direction.
        colour_depth: layers behind the direction.
        scale: head units that make up half of the longest wave.
        out_channels: 3 for a colour in [0, 1]; None leaves the last layer out: what is found are its inputs.
    """

    def __init__(self, told: int = 64, width: int = 256, depth: int = 8, octaves: int = 10, view_octaves: Optional[int] = 4,
                 colour_width: int = 128, colour_depth: int = 3, scale: float = 2.0, out_channels: Optional[int] = 3):
        super().__init__()
        self.octaves, self.view_octaves, self.scale = octaves, view_octaves, scale
        self.again = (depth + 1) // 2
        seen = 3 + 6 * octaves + told
        sizes = [seen] + [width] * (depth - 1)
        self.layers = nn.ModuleList(nn.Linear(size + (seen if number == self.again else 0), width)
                                    for number, size in enumerate(sizes))
        self.density = nn.Linear(width, 1)
        self.features = nn.Linear(width, width)
        behind = width + (0 if view_octaves is None else 3 + 6 * view_octaves)
        colour = [behind] + [colour_width] * (colour_depth - 1)
        self.colour = nn.ModuleList(nn.Linear(size, colour_width) for size in colour)
        self.out = None if out_channels is None else nn.Linear(colour_width, out_channels)
        nn.init.constant_(self.density.bias, DENSITY_START)

    def forward(self, points: Tensor, told: Tensor, directions: Tensor,
                late: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """Density [*, 1] and colour [*, 3], or the last inner channels, of points [*, 3] that are seen in directions
        [*, 3], while the field is told [*, K]. `late` [*, colour_width] is added before the second net's first ReLU: what
        it is told about colour alone."""
        seen = torch.cat([encode_waves(points / self.scale, self.octaves), told], -1)
        x = seen
        for number, layer in enumerate(self.layers):
            x = F.relu(layer(torch.cat([seen, x], -1) if number == self.again else x))
        density = truncated_exp(self.density(x).float())
        x = self.features(x)
        if self.view_octaves is not None:
            x = torch.cat([x, encode_waves(directions, self.view_octaves)], -1)
        for number, layer in enumerate(self.colour):
            x = layer(x)
            x = F.relu(x if number or late is None else x + late)
        return density, x.float() if self.out is None else torch.sigmoid(self.out(x).float())
