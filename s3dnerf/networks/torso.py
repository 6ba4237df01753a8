"""The torso: a picture that a small net deforms as the head's pose asks for (RAD-NeRF, section 3.3, "pseudo-3D")."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from s3dnerf.networks.decomposed_field import plain_net, run
from s3dnerf.networks.grid_encoding import GridEncoding

SHRINK = 0.8
"""share of the grid that the frame takes up, so that points may move beyond its edge"""
PLACE_WAVES, POSE_WAVES = 10, 4


class PseudoTorso(nn.Module):
    """Colour and opacity of a pixel of the frame, given the head's pose.

    With 16 levels of 2 channels and the paper's other sizes its nets have 10 880 and 5 504 parameters beside the grid's
    1 111 040.

    Args:
        levels: of the grid.
        channels: per level.
        base: cells of its coarsest level.
        finest: cells of its finest level.
        entries: most rows of a level.
        appearance: numbers of a frame's appearance code.
    """

    def __init__(self, levels: int = 8, channels: int = 4, base: int = 16, finest: int = 320, entries: int = 2 ** 16,
                 appearance: int = 8):
        super().__init__()
        self.grid = GridEncoding(2, levels, channels, base, finest, entries, "tiled")
        place, pose = 2 + 4 * PLACE_WAVES, 6 + 12 * POSE_WAVES
        self.deform = plain_net(place, 64, 2, 2)
        self.deform_pose = nn.Linear(pose + appearance, 64, bias=False)
        self.colour = plain_net(self.grid.out_channels + place, 32, 4, 2)
        self.colour_pose = nn.Linear(pose + appearance, 32, bias=False)
        with torch.no_grad():
            self.deform[-1].weight.mul_(0.1)

    def forward(self, places: Tensor, pose: Tensor, appearance: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Opacity [N, 1], colour [N, 3] and offset [N, 2] at places of the frame.

        Args:
            places: [N, 2] in [-1, 1] across the frame.
            pose: [F, 6] of the head: three angles in radians and a shift in head units, from the recording's mean pose.
            appearance: [F, A] appearance code of each frame.
            owner: [N] which frame a place belongs to.
        """
        where = places * SHRINK
        waves = encode_waves(where, PLACE_WAVES)
        told = torch.cat([encode_waves(pose, POSE_WAVES), appearance], -1)
        offset = run(self.deform, waves, self.deform_pose(told)[owner])
        features = self.grid(((where + offset).clamp(-1, 1) + 1) / 2)
        found = run(self.colour, torch.cat([features, waves], -1), self.colour_pose(told)[owner])
        return torch.sigmoid(found[:, :1]), torch.sigmoid(found[:, 1:]), offset / SHRINK


def encode_waves(values: Tensor, waves: int) -> Tensor:
    """[*, C * (1 + 2 * waves)]: the values, and sines and cosines of them at frequencies pi, 2 pi, 4 pi ..."""
    turned = values[..., None] * (math.pi * 2.0 ** torch.arange(waves, device=values.device))
    return torch.cat([values, turned.sin().flatten(-2), turned.cos().flatten(-2)], -1)
