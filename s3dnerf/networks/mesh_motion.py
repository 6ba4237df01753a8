"""What is known of a moving face without learning: where the driving code puts the landmarks, and the skin between them."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.device import indices
from s3dnerf.face import EYE_RINGS, INNER_LIPS, LID_CREASES, LOWER_LIDS, UPPER_LIDS, FaceCode, metric_face, shut_opening
from s3dnerf.networks.deformation import FACE_CENTRE, FACE_HALF, face_window, to_face_box
from s3dnerf.networks.mesh_triangles import MeshTriangles
from s3dnerf.precision import single_precision
from s3dnerf.types import TensorRecord

SKIN = 468
"""Landmarks of the skin; those after it are the irises."""
SOFTNESS = 0.012
"""Width of the edge of the inside of the mouth, head units: about a pixel of a 256 pixel crop."""
LASHES, RAYS = 0.0001, 0.012
"""Width of the edge of an upper lid, head units, where every pixel is asked: within it a place is neither lid nor eye, and shows
what lies between; and along rays, whose points must agree with each other."""
OVERLAP = 0.03
"""By how much an upper lid that is shut goes below the lower one, head units, to cover its wet rim."""
RIM = 0.006
"""How much of the very edge of an upper lid, head units, is cut off by the time that it is shut: landmarks lie a little inside
the eye, and its white would come down with the lashes."""
EYE = (EYE_RINGS[0][0], *UPPER_LIDS[:7], EYE_RINGS[0][8], EYE_RINGS[1][0], *UPPER_LIDS[:6:-1], EYE_RINGS[1][8])
CREASE = (EYE_RINGS[0][0], *LID_CREASES[:7], EYE_RINGS[0][8], EYE_RINGS[1][0], *LID_CREASES[:6:-1], EYE_RINGS[1][8])
"""The edge of the upper lids from one side of the face to the other; and where their skin begins."""
NEUTRAL_WEIGHT = 0.05
"""Pull towards no motion, as a share of one landmark's own weight: what is far from all of them stays."""


@dataclass(frozen=True)
class MeshFlow(TensorRecord):
    """How the landmarks carry the face, as maps over the face box; see `MeshMotion`."""

    maps: Tensor
    """[B, T, 6, h, w] offset in x and y above the edge of the upper lids, and below it; how far below it a place lies, and
    how far from the inner lips' outline (negative inside), head units."""
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

    @single_precision
    def forward(self, mesh: Tensor, code: Tensor) -> MeshFlow:
        """Maps [B, T] for a photo's landmarks `mesh` [B, 478, 3] and driving codes [B, T, K]."""
        change = code - self.face_code.own(mesh)[:, None]
        start = mesh[:, None, :, :2]
        target = shut(start, meet(start + self.face_code.mesh_displacement(change)))
        y, x = self.triangles.y, self.triangles.x
        lids = self._lids(start, target)
        points = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)
        distance = outline_distance(points, target[:, :, indices(INNER_LIPS, target)]).transpose(2, 3).unflatten(-1, self.size)
        gap = lambda landmarks: (landmarks[..., 14, 1] - landmarks[..., 13, 1]).clamp_min(0.01)
        shown = torch.sigmoid((gap(start) / gap(target)).clamp_max(1.0) * self.shown[0] + self.shown[1])
        return MeshFlow(torch.cat([lids, distance], 2), shown[..., None])

    def _lids(self, start: Tensor, target: Tensor) -> Tensor:
        """Maps [B, T, 5, h, w] for landmarks [B, T, 478, 2] that went from `start` to `target`: offsets above the edge of the
        upper lids, offsets below it, how far below it.

        A lid slides over the eye, which stays. So there are two faces, each with eyes as open as the photo's: one in which they
        went along with the upper lids, one in which they stayed with the lower. Each is smooth across the edge, which is thus
        as sharp as one likes.
        """
        y, x = self.triangles.y, self.triangles.x
        carried = self._carry(y, x, with_lids(target), with_lids(start - target))
        upper, lower, edge, crease = (indices(places, target) for places in (UPPER_LIDS, LOWER_LIDS, EYE, CREASE))
        eye = start[..., lower, 1] - start[..., upper, 1]
        over, under = target.clone(), target.clone()
        over[..., lower, 1] = torch.maximum(target[..., lower, 1], target[..., upper, 1] + eye)
        under[..., upper, 1] = torch.minimum(target[..., upper, 1], target[..., lower, 1] - eye)
        above, beneath = (torch.lerp(carried, *self.triangles(points[:, :, :SKIN], (start - points)[:, :, :SKIN], mouth))
                          for points, mouth in ((over, False), (under, True)))
        rim = RIM * ((target - start)[..., edge, 1] / eye.mean(-1, keepdim=True).clamp_min(1e-3)).clamp(0, 1)
        tall = [points[..., edge, 1] - points[..., crease, 1] for points in (target, start.expand_as(target))]
        height, now, was = level(target[..., edge, 0], torch.stack([target[..., edge, 1] - rim, *tall], -2), x).unbind(-2)
        below = y[:, None] - height[..., None, :]
        drawn = torch.stack([torch.zeros_like(below), slide(-below, now, was)], 2)
        return torch.cat([above - drawn, beneath, below[:, :, None]], 2)

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
    @single_precision
    def read(flow: MeshFlow, points: Tensor, lashes: float = LASHES) -> tuple[Tensor, Tensor]:
        """Offset [B, T, N, 3] and inside of the mouth [B, T, N, 1] in [0, 1] at points [B, T, N, 3]; both fade out at the
        border of the face box. `lashes` is the width of the lids' edge, `LASHES` or `RAYS`."""
        unit = to_face_box(points)
        grid = unit[..., :2].flatten(0, 1)[:, None].contiguous()  # otherwise it is read point by point, five times as slowly
        read = F.grid_sample(flow.maps.flatten(0, 1), grid, padding_mode="border", align_corners=True)
        read = read.squeeze(2).transpose(1, 2).unflatten(0, points.shape[:2])
        window = face_window(unit)
        offset = torch.lerp(read[..., :2], read[..., 2:4], torch.sigmoid(read[..., 4:5] / lashes))
        return F.pad(offset * window, (0, 1)), torch.sigmoid(-read[..., 5:] / SOFTNESS) * window


class NoMeshMotion(nn.Module):
    """Takes the place of `MeshMotion` where landmarks shall carry nothing: no offset, and no inside of the mouth."""

    def forward(self, mesh: Tensor, code: Tensor) -> MeshFlow:
        """As in `MeshMotion`, of the smallest size."""
        return MeshFlow(code.new_zeros(*code.shape[:2], 6, 1, 1), code.new_zeros(*code.shape[:2], 1))

    @staticmethod
    def read(flow: MeshFlow, points: Tensor, lashes: float = LASHES) -> tuple[Tensor, Tensor]:
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
    edge, crease = (landmarks[..., indices(places, landmarks), :] for places in (UPPER_LIDS, LID_CREASES))
    return torch.cat([landmarks[..., :SKIN, :], *(torch.lerp(edge, crease, share) for share in (0.25, 0.5, 0.75))], -2)


def meet(landmarks: Tensor) -> Tensor:
    """Landmarks [*, 478, 2] with lips that touch where they had crossed."""
    lower, upper = (indices(places, landmarks) for places in (INNER_LIPS[1:10], INNER_LIPS[:10:-1]))
    low, high = landmarks[..., lower, 1], landmarks[..., upper, 1]
    middle = (low + high) / 2
    met = landmarks.clone()
    met[..., lower, 1], met[..., upper, 1] = torch.maximum(low, middle), torch.minimum(high, middle)
    return met


def shut(start: Tensor, target: Tensor) -> Tensor:
    """Landmarks [*, 478, 2] where the lids of an eye that is narrower than in the photo, `start` [*, 478, 2], close evenly, and
    the upper one is down (`OVERLAP`) where landmarks of the middle of the eye are
    `shut_opening` apart."""
    upper, lower = (indices(places, target) for places in (UPPER_LIDS, LOWER_LIDS))
    gap = lambda points: (points[..., lower, 1] - points[..., upper, 1]).unflatten(-1, (2, -1))
    middle = lambda gaps: gaps[..., 2:5].mean(-1, keepdim=True)
    was, wanted = gap(start), gap(target)
    usual = middle(was).clamp_min(1e-3)
    least = shut_opening(usual)
    share = ((middle(wanted) - least) / (usual - least)).clamp_min(0)
    gaps = torch.where(share < 1, share * (was + OVERLAP) - OVERLAP, wanted).flatten(-2)
    closed = target.clone()
    closed[..., upper, 1] = target[..., lower, 1] - gaps
    return closed


def level(along: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """Values [*, K, w] at columns `x` [w] of curves that run from left to right through values [*, K, P] at `along` [*, P];
    constant beyond their ends."""
    start, width = along[..., :-1, None], along.diff(dim=-1)[..., None].clamp_min(1e-6)
    share = ((x - start) / width).clamp(0, 1)
    return values[..., :1] + values.diff(dim=-1) @ share


def slide(above: Tensor, now: Tensor, was: Tensor) -> Tensor:
    """[*, h, w] how much farther up a lid's skin has to be looked for than if it were stretched evenly, at places `above` [*, h,
    w] its edge, of lids that are `now` [*, w] tall and were `was` [*, w]: lashes at the edge keep their size, the skin at the
    crease is drawn out."""
    now, was = now.clamp_min(1e-3)[..., None, :], was.clamp_min(1e-3)[..., None, :]
    place, power = (above / now).clamp(0, 1), (now / was).clamp(1, 4) ** 0.5
    return was * (1 - (1 - place) ** power - place)


def outline_distance(points: Tensor, polygon: Tensor) -> Tensor:
    """Distance [*, N, 1] of points [N, 2] from the outline of polygons [*, P, 2], negative inside (even-odd rule)."""
    start, end = polygon[..., None, :, :], polygon.roll(-1, -2)[..., None, :, :]
    edge, (reach_x, reach_y) = end - start, ((points[:, axis, None] - start[..., axis]) for axis in (0, 1))
    edge_x, edge_y = edge.unbind(-1)
    along = ((reach_x * edge_x + reach_y * edge_y) / (edge * edge).sum(-1).clamp_min(1e-9)).clamp(0, 1)
    square = (reach_x - along * edge_x).square() + (reach_y - along * edge_y).square()
    distance = square.amin(-1).clamp_min(1e-12).sqrt()
    y = points[:, None, 1]
    crosses = (start[..., 1] > y) != (end[..., 1] > y)
    slope = edge[..., 0] / torch.where(edge[..., 1].abs() < 1e-9, 1e-9, edge[..., 1])
    left_of = points[:, None, 0] < start[..., 0] + (y - start[..., 1]) * slope
    inside = (crosses & left_of).sum(-1) % 2 == 1
    return torch.where(inside, -distance, distance)[..., None]
