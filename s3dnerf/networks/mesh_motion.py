"""What is known of a moving face without learning: where the driving code puts the landmarks, and the skin between them."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.face import INNER_LIPS, LID_CREASES, LOWER_LIDS, UPPER_LIDS, FaceCode, metric_face
from s3dnerf.networks.deformation import FACE_CENTRE, FACE_HALF, face_window, to_face_box
from s3dnerf.networks.mesh_triangles import MeshTriangles
from s3dnerf.types import TensorRecord

SKIN = 468
"""Landmarks of the skin; those after it are the irises."""
SOFTNESS = 0.012
"""Width of the edge of the inside of the mouth, head units: about a pixel of a 256 pixel crop."""
NEUTRAL_WEIGHT = 0.05
"""Pull towards no motion, as a share of one landmark's own weight: what is far from all of them stays."""


@dataclass(frozen=True)
class MeshFlow(TensorRecord):
    """How the landmarks carry the face, as maps over the face box; see `MeshMotion`."""

    maps: Tensor
    """[B, T, 3, h, w] offset in x and y, and the distance from the inner lips' outline (negative inside), head units."""
    shown: Tensor
    """[B, T, 1] in [0, 1]: share of the inside of the mouth that the photo shows already, being open itself."""


class MeshMotion(nn.Module):
    """Moves the photo's landmarks by the driving code, and interpolates their motion over the face.

    What the driving code adds to the photo's own moves the landmarks through a linear basis; a point's offset is that of
    its triangle at lips and lids, and elsewhere the mean of the landmarks' offsets under Gaussian weights. The inside of the
    mouth is the polygon of the moved inner lips.

    Args:
        size: rows and columns of the maps.
    """

    def __init__(self, size: tuple[int, int] = (84, 80)):
        super().__init__()
        self.size, self.face_code = tuple(size), FaceCode()
        self.triangles = MeshTriangles(*(np.linspace(-1, 1, n) * FACE_HALF[axis] + FACE_CENTRE[axis]
                                         for n, axis in zip(self.size, (1, 0))))
        self.shown = nn.Parameter(torch.tensor([6.0, -4.0]))
        self.register_buffer("radius", torch.from_numpy(landmark_radii()), persistent=False)

    def forward(self, mesh: Tensor, code: Tensor) -> MeshFlow:
        """Maps [B, T] for a photo's landmarks `mesh` [B, 478, 3] and driving codes [B, T, K]."""
        change = code - self.face_code.own(mesh)[:, None]
        start = mesh[:, None, :, :2]
        target = meet(start + self.face_code.mesh_displacement(change))
        y, x = self.triangles.y, self.triangles.x
        offset, word = self.triangles(target[:, :, :SKIN], (start - target)[:, :, :SKIN])
        offset = torch.lerp(self._carry(y, x, with_lids(target), with_lids(start - target)), offset, word)
        points = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)
        distance = outline_distance(points, target[:, :, list(INNER_LIPS)]).transpose(2, 3).unflatten(-1, self.size)
        gap = lambda landmarks: (landmarks[..., 14, 1] - landmarks[..., 13, 1]).clamp_min(0.01)
        shown = torch.sigmoid((gap(start) / gap(target)).clamp_max(1.0) * self.shown[0] + self.shown[1])
        return MeshFlow(torch.cat([offset, distance], 2), shown[..., None])

    def _carry(self, y: Tensor, x: Tensor, landmarks: Tensor, offsets: Tensor) -> Tensor:
        """Maps [B, T, 2, h, w] of the offsets [B, T, P, 2] of landmarks [B, T, P, 2], averaged under Gaussian weights.

        A Gaussian of the distance is the product of one along x and one along y, so that the sum over landmarks is a
        product of matrices.
        """
        sharpness = 0.5 / self.radius ** 2
        along = lambda axis, index: (-sharpness * (axis[:, None] - landmarks[..., None, :, index]) ** 2).exp()
        rows, columns = along(y, 1), along(x, 0).transpose(-1, -2)
        summed = [(rows * values[..., None, :]) @ columns for values in (offsets[..., 0], offsets[..., 1])]
        return torch.stack(summed, 2) / (rows @ columns + NEUTRAL_WEIGHT)[:, :, None]

    @staticmethod
    def read(flow: MeshFlow, points: Tensor) -> tuple[Tensor, Tensor]:
        """Offset [B, T, N, 3] and inside of the mouth [B, T, N, 1] in [0, 1] at points [B, T, N, 3]; both fade out at the
        border of the face box."""
        unit = to_face_box(points)
        grid = unit[..., :2].flatten(0, 1)[:, :, None]
        read = F.grid_sample(flow.maps.flatten(0, 1), grid, padding_mode="border", align_corners=True)
        read = read.squeeze(-1).transpose(1, 2).unflatten(0, points.shape[:2])
        window = face_window(unit)
        offset = F.pad(read[..., :2] * window, (0, 1))
        return offset, torch.sigmoid(-read[..., 2:] / SOFTNESS) * window


class NoMeshMotion(nn.Module):
    """Takes the place of `MeshMotion` where landmarks shall carry nothing: no offset, and no inside of the mouth."""

    def forward(self, mesh: Tensor, code: Tensor) -> MeshFlow:
        """As in `MeshMotion`, of the smallest size."""
        return MeshFlow(code.new_zeros(*code.shape[:2], 3, 1, 1), code.new_zeros(*code.shape[:2], 1))

    @staticmethod
    def read(flow: MeshFlow, points: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros, shaped as in `MeshMotion`."""
        return torch.zeros_like(points), torch.zeros_like(points[..., :1])


def landmark_radii() -> np.ndarray:
    """[468 + 42] float32: how far each landmark's word carries, head units: the mean distance of its four nearest
    neighbours; the least for the skin of the lids (see `with_lids`), and half of it for the lower lids, which stay while
    the upper ones come close."""
    face = metric_face()[:SKIN, :2]
    distance = np.sort(np.linalg.norm(face[:, None] - face[None], axis=-1), axis=1)[:, 1:5].mean(1)
    radii = np.pad(np.maximum(0.7 * distance, 0.03), (0, 3 * len(UPPER_LIDS)), constant_values=0.03)
    radii[list(LOWER_LIDS)] = 0.015
    return radii.astype(np.float32)


def with_lids(landmarks: Tensor) -> Tensor:
    """Landmarks [*, 478, 2] of the skin, and three more on each line across an upper lid [*, 468 + 42, 2].

    The skin of a lid is hardly seen on an open eye and covers all of a closed one, where no landmark would speak for it.
    """
    edge, crease = landmarks[..., list(UPPER_LIDS), :], landmarks[..., list(LID_CREASES), :]
    return torch.cat([landmarks[..., :SKIN, :], *(torch.lerp(edge, crease, share) for share in (0.25, 0.5, 0.75))], -2)


def meet(landmarks: Tensor) -> Tensor:
    """Landmarks [*, 478, 2] with lips and lids that touch where they had crossed: both lips give way, and the upper lid."""
    lower, upper = list(INNER_LIPS[1:10]), list(INNER_LIPS[:10:-1])
    low, high = landmarks[..., lower, 1], landmarks[..., upper, 1]
    middle = (low + high) / 2
    met = landmarks.clone()
    met[..., lower, 1], met[..., upper, 1] = torch.maximum(low, middle), torch.minimum(high, middle)
    lids = list(UPPER_LIDS)
    met[..., lids, 1] = torch.minimum(landmarks[..., lids, 1], landmarks[..., list(LOWER_LIDS), 1])
    return met


def outline_distance(points: Tensor, polygon: Tensor) -> Tensor:
    """Distance [*, N, 1] of points [N, 2] from the outline of polygons [*, P, 2], negative inside (even-odd rule)."""
    start, end = polygon[..., None, :, :], polygon.roll(-1, -2)[..., None, :, :]
    edge, reach = end - start, points[:, None] - start
    along = ((reach * edge).sum(-1) / (edge * edge).sum(-1).clamp_min(1e-9)).clamp(0, 1)
    distance = (reach - along[..., None] * edge).norm(dim=-1).amin(-1)
    y = points[:, None, 1]
    crosses = (start[..., 1] > y) != (end[..., 1] > y)
    slope = edge[..., 0] / torch.where(edge[..., 1].abs() < 1e-9, 1e-9, edge[..., 1])
    left_of = points[:, None, 0] < start[..., 0] + (y - start[..., 1]) * slope
    inside = (crosses & left_of).sum(-1) % 2 == 1
    return torch.where(inside, -distance, distance)[..., None]
