"""The metric face, which landmark is which, and the code that drives a face.

Landmarks are MediaPipe's 478 (468 of the face mesh, then two irises); those of the *metric face* lie in the head frame:
outer eye corners at x = -0.5 and +0.5. The metric face is the symmetrised mean of the tracked faces of 82 people.
"""
from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
from torch import Tensor, nn

from s3dnerf.device import indices
from s3dnerf.precision import single_precision

MESH_POINTS = 478
CROP_EXTENT = 3.0
"""Side of the square crop around a head, in outer eye-corner distances; the crop's centre is the head frame's origin."""
COLLAR = (0.5, 0.9)
"""Point of that crop about which a torso's own motion is told, from the left and the top, in sides of the crop."""

EYE_CORNERS = (33, 263)
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 45, 275, 151, 9, 8, 107, 336, 70, 300, 127, 356, 234, 454)
"""Landmarks that do not move with speech."""
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
        78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
"""Outer ring (20), then inner ring (20), each in order around the mouth."""
INNER_LIPS = LIPS[20:]
JAW = (58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 18, 200, 199, 175, 57, 287, 43, 273)
"""Chin, jaw line and the skin around the mouth: what speech moves beside the lips."""
EYELIDS = (159, 145, 158, 153, 160, 144, 386, 374, 385, 380, 387, 373)
"""Upper and lower lid in turn, three pairs for each eye."""
EYE_RINGS = ((33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
             (362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398))
"""Outline of each eye: a corner, the lower lid, the other corner, the upper lid."""
SHUT = 0.028
"""How far apart the landmarks of lids may lie (`eye_opening`) in eyes that are shut, head units: in three of four blinks they lie
no farther."""
NOSE_BASE = 2
UPPER_LIDS = (246, 161, 160, 159, 158, 157, 173, 466, 388, 387, 386, 385, 384, 398)
LOWER_LIDS = (7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382)
LID_CREASES = (247, 30, 29, 27, 28, 56, 190, 467, 260, 259, 257, 258, 286, 414)
"""Both eyes: edge of the upper lid, the lower lid's point that it meets, and where the upper lid's skin begins."""
MOVING = LIPS + JAW + EYELIDS
FACE_OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
             150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
LANDMARKS_68 = (127, 234, 93, 132, 172, 150, 149, 148, 152, 377, 378, 379, 397, 361, 323, 454, 356,
                70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 6, 195, 4, 98, 97, 2, 326, 327,
                33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
                61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
"""The mesh points nearest to the 68 points of the iBUG mark-up."""


def metric_face() -> np.ndarray:
    """[478, 3] float32, head frame."""
    return np.load(files("s3dnerf") / "assets" / "metric_face.npy")


def mouth_opening(mesh: Tensor) -> Tensor:
    """[*] distance between the inner lips (13, 14) in head units of landmarks [*, 478, 3 or 2]."""
    return (mesh[..., 13, :] - mesh[..., 14, :]).norm(dim=-1)


def eye_opening(mesh: Tensor) -> Tensor:
    """[*] mean distance between upper and lower lids, both eyes, in head units, of landmarks [*, 478, 3 or 2]."""
    lids = mesh[..., indices(EYELIDS, mesh), :]
    return (lids[..., 0::2, :] - lids[..., 1::2, :]).norm(dim=-1).mean(-1)


def shut_opening(usual: Tensor) -> Tensor:
    """`eye_opening` [*] at which eyes are shut that are `usual` [*] wide open: `SHUT`, of narrow eyes half of what is usual."""
    return (usual / 2).clamp_max(SHUT)


def opening_of(told: float) -> float:
    """Head units of an eye opening that is told as the last number of a `FaceCode`, absolutely."""
    return 0.12 + 0.1 * told


class FaceCode(nn.Module):
    """Turns landmarks into the code that drives a face, and back.

    The first `size - 1` numbers are coordinates of lips and jaw (x and y, head frame) in a fixed basis of principal
    components, in units of their standard deviation over the training people; the last is the eye opening, in units of
    0.1. Codes of frames are differences from the speaker's mean face, so that they carry speech and not identity.
    """

    size = 13
    points = LIPS + JAW

    def __init__(self):
        super().__init__()
        stored = np.load(files("s3dnerf") / "assets" / "face_basis.npz")
        self.register_buffer("mean", torch.from_numpy(stored["mean"]), persistent=False)
        self.register_buffer("basis", torch.from_numpy(stored["basis"]), persistent=False)
        self.register_buffer("spread", torch.from_numpy(stored["spread"]), persistent=False)
        self.register_buffer("own_map", torch.from_numpy(stored["own"]), persistent=False)
        self.register_buffer("mesh_basis", torch.from_numpy(stored["mesh"]).float(), persistent=False)

    @single_precision
    def absolute(self, mesh: Tensor) -> Tensor:
        """Codes [*, 13] of landmarks [*, 478, 3], relative to the mean of all people."""
        shape = mesh[..., indices(self.points, mesh), :2].flatten(-2) - self.mean
        eyes = (eye_opening(mesh) - 0.12) / 0.1
        return torch.cat([(shape @ self.basis.T) / self.spread, eyes[..., None]], -1)

    def relative(self, mesh: Tensor, mean_mesh: Tensor) -> Tensor:
        """Driving codes [*, 13]: landmarks [*, 478, 3] against the same person's mean face (broadcast)."""
        return self.absolute(mesh) - self.absolute(mean_mesh)

    def driving(self, mesh: Tensor, mean_mesh: Tensor) -> Tensor:
        """`relative`, but with lips as far apart as they are seen: closed is closed, whatever the mean face says, which a
        short recording tells badly."""
        return self.with_opening(self.relative(mesh, mean_mesh), self.gap(mesh))

    @single_precision
    def own(self, mesh: Tensor) -> Tensor:
        """Estimate [*, 13] of what `driving` would say of a photo's landmarks [*, 478, 3]: the speaker's mean face, which one
        photo does not show, is told by a ridge regression over the training people."""
        return self.with_opening(self.absolute(mesh) @ self.own_map[:-1] + self.own_map[-1], self.gap(mesh))

    def gap(self, mesh: Tensor) -> Tensor:
        """[*] how much farther apart the inner lips of landmarks [*, 478, 3] are than those of the mean of all people."""
        upper, lower = (2 * self.points.index(lip) + 1 for lip in (13, 14))
        return mesh[..., 14, 1] - mesh[..., 13, 1] - (self.mean[lower] - self.mean[upper])

    @single_precision
    def with_opening(self, code: Tensor, opening: Tensor) -> Tensor:
        """Driving codes [*, 13], changed as little as possible, whose `opening` is as given [*]."""
        opens = self.opening(torch.eye(self.size, device=code.device, dtype=code.dtype))
        return code + (opening - self.opening(code))[..., None] * opens / (opens @ opens)

    @single_precision
    def displacement(self, code: Tensor) -> Tensor:
        """[*, 63, 2] where a driving code [*, 13] moves lips and jaw, head units; inverse of `relative` up to the basis."""
        return ((code[..., :-1] * self.spread) @ self.basis).unflatten(-1, (-1, 2))

    @single_precision
    def mesh_displacement(self, code: Tensor) -> Tensor:
        """[*, 478, 2] where a driving code [*, 13] moves every landmark, x and y, head units (least squares on the
        training people: 97 % of the motion of the lips, 60 % of that of the face's outline, half of that of the lids)."""
        return torch.einsum("...k,kpc->...pc", code, self.mesh_basis)

    def opening(self, code: Tensor) -> Tensor:
        """[*] how much wider a driving code [*, 13] opens the inner lips than the mean face has them, head units."""
        moved = self.displacement(code)[..., 1]
        return moved[..., self.points.index(14)] - moved[..., self.points.index(13)]

    def closing(self, mean_mesh: Tensor) -> Tensor:
        """The smallest driving code [*, 13] that brings the inner lips of a mean face [*, 478, 3] together."""
        gap = (mean_mesh[..., 14, 1] - mean_mesh[..., 13, 1]).clamp_min(0)
        return self.with_opening(torch.zeros(*gap.shape, self.size, device=gap.device), -gap)
