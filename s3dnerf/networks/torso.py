"""The torso: a picture that a small net deforms as the head's pose asks for (RAD-NeRF, section 3.3, "pseudo-3D")."""
from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor, nn

from s3dnerf.face import COLLAR
from s3dnerf.networks.decomposed_field import plain_net, run
from s3dnerf.networks.grid_encoding import GridEncoding

SHRINK = 0.8
"""share of the grid that the frame takes up, so that points may move beyond its edge"""
PLACE_WAVES = 10
FAR = 3.0
"""standard deviations beyond which a pose counts as no farther: nothing was learned there"""


class PseudoTorso(nn.Module):
    """Colour and opacity of a pixel of the frame, given the head's pose and, with `body`, the torso's own motion.

    A minute tells little of how shoulders follow a head, so here the pose moves the picture, smoothly in place and pose, and
    changes nothing else. With 16 levels of 2 channels, 10 and 4 waves, `colour_by_pose` and an appearance code of 8 it is
    the paper's torso: nets of 10 880 and 5 504 parameters beside the grid's 1 111 040. Collars move on their own, too: with
    `body`, where the torso's own motion is given, the picture is first moved as a whole, as `data.body.track_body` has found it,
    and a second net, which is told of that, moves it the rest of the way.

    Args:
        levels: of the grid.
        channels: per level.
        base: cells of its coarsest level.
        finest: cells of its finest level.
        entries: most rows of a level.
        appearance: numbers of a frame's appearance code; with one, learned frames lay it down where shoulders are, and
            others do not know.
        deform_waves: waves that the net which moves the picture is told a place by.
        pose_waves: waves that a pose is told by.
        colour_by_pose: let the pose change colours and opacity as well.
        body: move with the torso's own motion where it is given.
    """

    def __init__(self, levels: int = 8, channels: int = 4, base: int = 16, finest: int = 320, entries: int = 2 ** 16,
                 appearance: int = 0, deform_waves: int = 1, pose_waves: int = 0, colour_by_pose: bool = False,
                 body: bool = False):
        super().__init__()
        self.grid = GridEncoding(2, levels, channels, base, finest, entries, "tiled")
        self.deform_waves, self.pose_waves = deform_waves, pose_waves
        told = 6 + 12 * pose_waves + appearance
        self.deform = plain_net(2 + 4 * deform_waves, 64, 2, 2)
        self.deform_pose = nn.Linear(told, 64, bias=False)
        self.colour = plain_net(self.grid.out_channels + 2 + 4 * PLACE_WAVES, 32, 4, 2)
        self.colour_pose = nn.Linear(told, 32, bias=False) if colour_by_pose else None
        self.register_buffer("middle", torch.zeros(6))
        self.register_buffer("spread", torch.ones(6))
        self.body = body
        if body:
            self.deform_body = plain_net(2 + 4 * deform_waves, 64, 2, 2)
            self.deform_body_pose = nn.Linear(told + 4, 64, bias=False)
            with torch.no_grad():
                self.deform_body[-1].weight.mul_(0.1)
            self.register_buffer("body_middle", torch.zeros(4))
            self.register_buffer("body_spread", torch.ones(4))
        with torch.no_grad():
            self.deform[-1].weight.mul_(0.1)

    @torch.no_grad()
    def adopt(self, pose: Tensor, body: Optional[Tensor] = None) -> None:
        """Takes over the poses [T, 6] of a recording, and the torso's motion [T, 4] in it: they are told as what is usual in
        it."""
        self.middle.copy_(pose.mean(0))
        self.spread.copy_(pose.std(0).clamp_min(1e-4))
        if self.body:
            self.body_middle.copy_(body.mean(0))
            self.body_spread.copy_(body.std(0).clamp_min(1e-4))

    def forward(self, places: Tensor, pose: Tensor, appearance: Tensor, owner: Tensor,
                body: Optional[Tensor] = None) -> tuple[Tensor, Tensor, Tensor]:
        """Opacity [N, 1], colour [N, 3] and offset [N, 2] at places of the frame.

        Args:
            places: [N, 2] in [-1, 1] across the frame.
            pose: [F, 6] of the head: three angles in radians and a shift in head units, from the recording's first pose.
            appearance: [F, A] appearance code of each frame.
            owner: [N] which frame a place belongs to.
            body: [F, 4] the torso's motion about `COLLAR`, as in `data.body.BodyTrack`; where None, it goes by the pose.
        """
        usual = ((pose - self.middle) / self.spread).clamp(-FAR, FAR)
        told = torch.cat([usual, encode_waves(pose, self.pose_waves)[:, 6:], appearance], -1)
        where = places * SHRINK
        if self.body and body is not None:
            moved = body - self.body_middle
            where = taken_back(places, moved[owner], 2 * (self.body_middle[:2] + places.new_tensor(COLLAR)) - 1) * SHRINK
            more = self.deform_body_pose(torch.cat([told, (moved / self.body_spread).clamp(-FAR, FAR)], -1))
            offset = run(self.deform_body, encode_waves(where, self.deform_waves), more[owner])
        else:
            offset = run(self.deform, encode_waves(where, self.deform_waves), self.deform_pose(told)[owner])
        features = self.grid(((where + offset).clamp(-1, 1) + 1) / 2)
        more = None if self.colour_pose is None else self.colour_pose(told)[owner]
        found = run(self.colour, torch.cat([features, encode_waves(where, PLACE_WAVES)], -1), more)
        return torch.sigmoid(found[:, :1]), torch.sigmoid(found[:, 1:]), (where + offset) / SHRINK - places


def taken_back(places: Tensor, moved: Tensor, pivot: Tensor) -> Tensor:
    """Where places [N, 2] were, in halves of the frame, before they moved by [N, 4] (shift in sides, turn, log scale) about a
    pivot [2]."""
    x, y = (places - pivot - 2 * moved[:, :2]).unbind(-1)
    turn, scale = moved[:, 2], torch.exp(-moved[:, 3])
    cos, sin = scale * turn.cos(), scale * turn.sin()
    return torch.stack([cos * x + sin * y, cos * y - sin * x], -1) + pivot


def encode_waves(values: Tensor, waves: int) -> Tensor:
    """[*, C * (1 + 2 * waves)]: the values, and sines and cosines of them at frequencies pi, 2 pi, 4 pi ..."""
    turned = values[..., None] * (math.pi * 2.0 ** torch.arange(waves, device=values.device))
    return torch.cat([values, turned.sin().flatten(-2), turned.cos().flatten(-2)], -1)
