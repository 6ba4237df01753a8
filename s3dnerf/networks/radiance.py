"""What is at a point: density, colour and features, and whether it is the inside of the mouth."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.device import constant

DENSITY_SCALE = 8.0
HEAD_CENTRE, HEAD_RADII = (0.0, -0.1, 0.25), (1.0, 1.4, 1.1)
"""An ellipsoid, head frame, that a head fills: where density starts from before anything is learned."""
SEEN = 1e-6
"""Less of the inside of the mouth than this is none: it changes less than rounding does."""
BACK = 0.4
"""Depth, head units, behind which there is nothing: there the ears end. What lies farther back no photo of a face shows, and
from the side it would be the ear again, drawn out along the camera's rays."""


class RadianceField(nn.Module):
    """Decodes the features of a point, with gated modulation by speech.

    Where a point is the *inside of the mouth*, features that speech has produced replace those of the photo, which may
    have been taken with the mouth closed; elsewhere speech only adds to them.

    Args:
        feature_channels: features per point, all scales side by side.
        modulation_channels: size of the modulation.
        width: channels inside.
        out_channels: features per point that are rendered; the first three are colour.
    """

    def __init__(self, feature_channels: int = 48, modulation_channels: int = 24, width: int = 48, out_channels: int = 16):
        super().__init__()
        self.features = nn.Linear(feature_channels + 6, width)
        self.modulate = nn.Linear(modulation_channels, width, bias=False)
        self.inside = nn.Sequential(nn.Linear(modulation_channels + 6, width), nn.SiLU(), nn.Linear(width, width))
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 1 + out_channels)

    def forward(self, features: Tensor, place: Tensor, modulation: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Density [*, 1] and features [*, out] of points.

        `features` [*, F] from the tri-planes, `place` [*, 3] the point in the photo's face (head frame), `modulation`
        [*, M], `inside` [*, 1] in [0, 1].
        """
        where = torch.cat([place, place ** 2], -1)
        photo = self.features(torch.cat([features, where], -1)) + self.modulate(modulation)
        mixed = self._with_inside(photo, modulation, where, inside)
        raw = self.out(F.silu(self.hidden(F.silu(mixed))))
        density = F.softplus(raw[..., :1] + head_prior(place)) * DENSITY_SCALE
        colour = torch.sigmoid(raw[..., 1:4]) * 1.002 - 0.001
        return density, torch.cat([colour, raw[..., 4:]], -1)

    def _with_inside(self, photo: Tensor, modulation: Tensor, where: Tensor, inside: Tensor) -> Tensor:
        """What speech says of the inside of the mouth in place of what the photo says; one point in ten is asked, unless that
        would have to be waited for."""
        spoken = lambda *of: self.inside(torch.cat(of, -1))
        if photo.device.type != "cpu" or torch.is_grad_enabled():
            return torch.lerp(photo, spoken(modulation, where), inside.to(photo.dtype))
        near = inside[..., 0] > SEEN
        photo[near] = torch.lerp(photo[near], spoken(modulation[near], where[near]), inside[near].to(photo.dtype))
        return photo


def head_prior(place: Tensor) -> Tensor:
    """[*, 1] large inside the front of the head's ellipsoid, very negative elsewhere; `place` [*, 3] in the head frame."""
    radius = ((place - constant(HEAD_CENTRE, place)) / constant(HEAD_RADII, place)).norm(dim=-1, keepdim=True)
    return 8 * torch.tanh(6 * (1 - radius)) - 3 - 12 * torch.sigmoid((place[..., 2:] - BACK) / 0.03)
