"""How hair, neck and shoulders go with a head that moves."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.geometry import rigid_inverse
from s3dnerf.types import Cameras

ACROSS, ABOVE, BELOW = 2.0, 1.7, 1.9
"""What the table spans, head units: to either side, above and below the origin of the head frame."""
PACE = 10.0
"""How many times faster than other weights the table learns: what is kept is the table divided by it."""


ODD = (False, True, True, True, False, False)
"""Which of the numbers of `head_motion` change their sign in a mirror."""


def head_motion(photo: Cameras, cameras: Cameras) -> Tensor:
    """[B, T, 6] how a head has moved that `photo` [B] saw and `cameras` [B, T] see: its turn about the camera's axes
    (sine of the angle along the axis), its shift across the picture in head units at the photo's distance, and the change
    of its distance as a share of that."""
    then, now = rigid_inverse(photo.camera_to_world)[:, None], rigid_inverse(cameras.camera_to_world)
    turn = now[..., :3, :3] @ then[..., :3, :3].transpose(-1, -2)
    spin = (turn - turn.transpose(-1, -2)) / 2
    before, place = then[..., :3, 3], now[..., :3, 3]
    shift = place[..., :2] / place[..., 2:] * before[..., 2:] - before[..., :2]
    return torch.cat([torch.stack([spin[..., 2, 1], spin[..., 0, 2], spin[..., 1, 0]], -1), shift,
                      place[..., 2:] / before[..., 2:] - 1], -1)


class Surroundings(nn.Module):
    """How far back what is beside the head lies, which share of the head's shift and of its turn it takes part in, and what
    that leaves of the motion that recordings show.

    Learned tables over the plane through the head's middle, the same on both sides. The first starts from nothing but the
    notion that the farther from the face something is, the less it goes with it; the second, `response`, from nothing.

    Args:
        size: rows and columns of the table.
    """

    def __init__(self, size: tuple[int, int] = (13, 8)):
        super().__init__()
        y, x = torch.meshgrid(torch.linspace(-ABOVE, BELOW, size[0]), torch.linspace(0, ACROSS, size[1]), indexing="ij")
        far = (x - 0.8).clamp_min(0) + (y - 0.9).clamp_min(0)
        shares = [(1 - less * far).clamp_min(0) for less in (0.5, 0.8)]
        self.table = nn.Parameter(torch.stack([torch.zeros_like(far), *shares])[None] / PACE)
        self.response = nn.Parameter(torch.zeros(1, 2 * len(ODD), *size))
        odd = torch.tensor(ODD)[:, None]  # what each number does across the picture, and down
        self.register_buffer("mirrored", torch.cat([~odd, odd], 1), persistent=False)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Depth behind the plane, head units, share of the shift and share of the turn, each [*, 1], at points [*, 2 or
        more] of the head frame."""
        return self._read(self.table, points).split(1, -1)

    def remainder(self, points: Tensor, motion: Tensor) -> Tensor:
        """[B, T, R, 2] what is added to where points [B, T, R, 2 or more] of the head frame look in the photo, in halves of
        its side, when the head has moved by `motion` [B, T, 6] (`head_motion`): proportional to it."""
        cells = self.table.shape[-1] - 1
        side = (points[..., :1, None] * (cells / ACROSS)).clamp(-1, 1)  # to a mirrored motion the answer is the mirrored one
        answer = self._read(self.response, points).unflatten(-1, (len(ODD), 2))
        answer = torch.where(self.mirrored, side * answer, answer)
        return (motion[:, :, None, :, None] * answer).sum(-2)

    @staticmethod
    def _read(table: Tensor, points: Tensor) -> Tensor:
        """The table's channels [*, C] at points [*, 2 or more]."""
        x, y = 2 * points[..., 0].abs() / ACROSS - 1, 2 * (points[..., 1] + ABOVE) / (ABOVE + BELOW) - 1
        places = torch.stack([x, y], -1).reshape(1, 1, -1, 2)
        read = F.grid_sample(PACE * table, places, padding_mode="border", align_corners=True)[0, :, 0].transpose(0, 1)
        return read.reshape(*points.shape[:-1], -1)

    def _load_from_state_dict(self, state_dict, prefix, *others):
        """Weights from before there was a response have none."""
        state_dict.setdefault(prefix + "response", torch.zeros_like(self.response))
        super()._load_from_state_dict(state_dict, prefix, *others)
