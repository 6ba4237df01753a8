"""Where on a face something is heard: speech in its lower half, the eye opening near the eyes."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from s3dnerf.face import EYELIDS, metric_face
from s3dnerf.networks.deformation import smooth

NOSE = (-0.05, 0.2)
"""heights, head frame (y down), between which speech begins to be heard: the tip of the nose, and below its base"""


class FaceRegions(nn.Module):
    """Says of points how much of the speech and of the eye opening concerns them.

    A short recording otherwise teaches the lips to tell frames apart, and brows and hair by them.

    Args:
        lower_face: speech is heard in the lower face alone, from the nose down; False: everywhere.
        eye_radius: head units around the eyes in which the eye opening is heard; None: everywhere.
    """

    def __init__(self, lower_face: bool = True, eye_radius: Optional[float] = 0.45):
        super().__init__()
        self.lower_face, self.eye_radius = lower_face, eye_radius
        lids = torch.from_numpy(metric_face())[list(EYELIDS)].unflatten(0, (2, -1)).mean(1)
        self.register_buffer("eyes", lids, persistent=False)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Shares [*, 1] in [0, 1] of speech and of the eye opening at points [*, 3], head frame."""
        everywhere = torch.ones_like(points[..., :1])
        speech = smooth((points[..., 1:2] - NOSE[0]) / (NOSE[1] - NOSE[0])) if self.lower_face else everywhere
        if self.eye_radius is None:
            return speech, everywhere
        offset = points[..., None, :2] - self.eyes[:, :2]
        distance = offset.norm(dim=-1).amin(-1, keepdim=True) / self.eye_radius
        return speech, smooth(1.5 * (1 - distance))
