"""What lies between the landmarks of lips and lids moves with the triangle that it lies in."""
from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
from torch import Tensor, nn

from s3dnerf.face import EYE_RINGS, INNER_LIPS, LID_CREASES, LIPS, metric_face

REACH = 3
"""Edges of the mesh over which the triangles' word fades out, from lips and lids on."""
MARGIN = 0.12
"""Head units around the triangles of the mean face that are looked at, to leave room for other faces and for motion."""
FLAT = 1e-7
"""Twice the area, square head units, below which a triangle holds nothing."""


class MeshTriangles(nn.Module):
    """Offsets of lips, lids and the skin around them, linear within each triangle of the face mesh; mouth and eyes, holes of
    the mesh, are closed by triangles from rim to rim.

    Upper and lower lip, a pixel apart, thus move each with their own landmarks.

    Args:
        y: [h] ascending heights in the head frame, the rows at which offsets are told.
        x: [w] the same of columns.
    """

    def __init__(self, y: np.ndarray, x: np.ndarray):
        super().__init__()
        triangles = np.concatenate([np.load(files("s3dnerf") / "assets" / "face_triangles.npy").astype(np.int64),
                                    *(across(ring) for ring in (INNER_LIPS, *EYE_RINGS))])
        weights = closeness(triangles, (*LIPS, *LID_CREASES, *EYE_RINGS[0], *EYE_RINGS[1]))
        triangles = triangles[weights[triangles].max(1) > 0]
        face = metric_face()[:, :2]
        low = face[triangles, 1].mean(1) > face[list(LIPS), 1].min() - 0.3
        parts = [triangles[part] for part in (low, ~low)]
        self.cells = [tuple(within(axis, face[part, index]) for axis, index in ((y, 1), (x, 0))) for part in parts]
        for name, values in {"y": y, "x": x, "weights": weights}.items():
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)
        self.register_buffer("lower", torch.from_numpy(parts[0]), persistent=False)
        self.register_buffer("upper", torch.from_numpy(parts[1]), persistent=False)

    def forward(self, landmarks: Tensor, offsets: Tensor, mouth: bool = True) -> tuple[Tensor, Tensor]:
        """For landmarks [B, T, 468, 2] that move by `offsets`: the offsets [B, T, 2, h, w] at rows and columns of the head
        frame, and from 0 to 1 how much the triangles have to say there, [B, T, 1, h, w]: nothing around the mouth, where it is
        left out."""
        said = torch.cat([offsets, self.weights[:, None].expand(*offsets.shape[:2], -1, 1)], -1)
        read = said.new_zeros(*said.shape[:2], 3, len(self.y), len(self.x))
        for triangles, (rows, columns) in list(zip((self.lower, self.upper), self.cells))[not mouth:]:
            corners, values = landmarks[:, :, triangles], said[:, :, triangles]
            found, held = interpolate(self.y[rows], self.x[columns], corners, values)
            read[..., rows, columns] = torch.where(held, found, read[..., rows, columns])
        return read[:, :, :2], read[:, :, 2:].clamp(0, 1)


def across(ring: tuple[int, ...]) -> np.ndarray:
    """[N - 2, 3] triangles that close a ring of N landmarks, each between its two halves, which meet in landmarks 0 and
    N / 2."""
    half = len(ring) // 2
    one, other = ring[:half + 1], (ring[0], *ring[:half - 1:-1])
    return np.array([(one[i], one[i + 1], other[i]) for i in range(1, half)]
                    + [(one[i + 1], other[i], other[i + 1]) for i in range(half - 1)])


def closeness(triangles: np.ndarray, core: tuple[int, ...]) -> np.ndarray:
    """[468] float32: 1 at landmarks of the core, less by 1 / `REACH` with every edge of the mesh away from it, down to 0."""
    weights = np.zeros(triangles.max() + 1, np.float32)
    weights[list(core)] = 1
    for _ in range(REACH - 1):
        beside = np.zeros_like(weights)
        np.maximum.at(beside, triangles, weights[triangles].max(1)[:, None])
        weights = np.maximum(weights, beside - 1 / REACH)
    return weights.clip(0)


def within(axis: np.ndarray, places: np.ndarray) -> slice:
    """The part of an ascending axis that lies around places, with a margin."""
    return slice(*np.searchsorted(axis, (places.min() - MARGIN, places.max() + MARGIN)).tolist())


def interpolate(y: Tensor, x: Tensor, corners: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Values [B, T, M, 3, C] at the corners of triangles [B, T, M, 3, 2], linear within each: [B, T, C, h, w] at rows `y` [h]
    and columns `x` [w], and [B, T, 1, h, w] whether any triangle holds the point. Barycentric coordinates are affine in x
    and y."""
    start, end = corners.roll(-1, 3), corners.roll(-2, 3)
    affine = torch.stack([start[..., 1] - end[..., 1], end[..., 0] - start[..., 0],
                          start[..., 0] * end[..., 1] - end[..., 0] * start[..., 1]], -1)
    area = affine[..., 2].sum(-1)[..., None, None]
    affine = affine / torch.where(area.abs() < FLAT, torch.full_like(area, FLAT), area)
    with torch.no_grad():
        search = among_near if x.device.type == "cpu" else among_all  # how many are near would have to be waited for
        depth, which = search(y, x, corners, affine, area.abs()[..., 0] >= FLAT)
    pick = lambda rows: rows.flatten(3).gather(2, which.flatten(2)[..., None].expand(-1, -1, -1, rows[0, 0, 0].numel()))
    place = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x)), x.new_ones(len(y), len(x))], -1).flatten(0, 1)
    shares = (pick(affine).unflatten(-1, (3, 3)) * place[:, None]).sum(-1)
    found = (shares[..., None] * pick(values).unflatten(-1, (3, -1))).sum(-2)
    held = (depth >= 0)[:, :, None]
    return found.transpose(2, 3).unflatten(-1, depth.shape[2:]) * held, held


def among_all(y: Tensor, x: Tensor, corners: Tensor, affine: Tensor, solid: Tensor) -> tuple[Tensor, Tensor]:
    """Which of M triangles holds a point best, [B, T, h, w], and its least barycentric coordinate there, negative where none
    holds it; `affine` [B, T, M, 3, 3] are the coordinates, `solid` [B, T, M, 1] says which triangles hold anything."""
    at = lambda corner: affine[..., corner, 0, None, None] * x + (
        affine[..., corner, 1, None, None] * y[:, None] + affine[..., corner, 2, None, None])
    least = torch.minimum(torch.minimum(at(0), at(1)), at(2))
    return least.masked_fill(~solid[..., None], -1).max(2)


def among_near(y: Tensor, x: Tensor, corners: Tensor, affine: Tensor, solid: Tensor) -> tuple[Tensor, Tensor]:
    """The same where a point is held by any, asking each triangle about the points in the box around its corners alone."""
    size, cells = corners.shape[:3], len(y) * len(x)
    low, high = corners.amin(3).flatten(0, 2), corners.amax(3).flatten(0, 2)
    left, top = torch.searchsorted(x, low[:, 0].contiguous()), torch.searchsorted(y, low[:, 1].contiguous())
    wide = torch.searchsorted(x, high[:, 0].contiguous(), right=True) - left
    tall = (torch.searchsorted(y, high[:, 1].contiguous(), right=True) - top) * solid.flatten()
    counts = wide * tall
    owner = torch.repeat_interleave(counts)
    place = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    row, column = top[owner] + place // wide[owner], left[owner] + place % wide[owner]
    a, b, c = affine.flatten(0, 2)[owner].unbind(-1)
    least = (a * x[column, None] + (b * y[row, None] + c)).amin(-1)
    cell = owner // size[2] * cells + row * len(x) + column
    depth = least.new_full((size[0] * size[1] * cells,), -1.0).scatter_reduce_(0, cell, least, "amax")
    best = least == depth[cell]
    which = torch.zeros_like(depth, dtype=torch.long).index_put_((cell[best],), owner[best] % size[2])
    return tuple(found.view(*size[:2], len(y), len(x)) for found in (depth, which))
