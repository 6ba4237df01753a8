"""The cross-modal facial deformation field: speech attends to points of the face and moves them."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.device import constant
from s3dnerf.precision import single_precision
from s3dnerf.types import Motion, TensorRecord

FACE_CENTRE = (0.0, 0.3, -0.45)
FACE_HALF = (1.0, 1.05, 0.7)
"""The box, in the head frame, inside which speech and blinks may move anything: brows to chin, nose tip to cheeks."""
OCTAVES = 3
"""Of the positional encoding: its shortest wave must stay longer than two steps of the lattice."""


def positional_encoding(points: Tensor, octaves: int) -> Tensor:
    """[*, 3] -> [*, 3 + 6 * octaves]: the points, and sines and cosines of pi 2^k times them (NeRF, equation 4)."""
    angles = (points[..., None] * math.pi * 2.0 ** torch.arange(octaves, device=points.device)).flatten(-2)
    return torch.cat([points, angles.sin(), angles.cos()], -1)


@dataclass(frozen=True)
class Deformation(TensorRecord):
    """What speech does to points: [*] leading sizes."""

    offset: Tensor
    """[*, 3] add to a point to find where it was in the photo's face, head units; already scaled by `region`."""
    modulation: Tensor
    """[*, M] change of the point's features, already scaled by `region`."""
    region: Tensor
    """[*, 1] in [0, 1], the region score: one minus the attention on the null token, zero outside the face box."""


class CrossModalDeformationField(nn.Module):
    """Points attend to speech tokens and one learned null token; an hourglass net turns that into motion.

    The share of attention that is *not* on the null token is the region score: it says how much the speech concerns a
    point, scales both offset and modulation, and is the heat map of the S3D-NeRF paper's figure 3.

    Args:
        feature_channels: fused appearance features per point.
        token_channels: size of a speech token.
        code_size: numbers of the driving code.
        width: channels inside.
        heads: attention heads.
        modulation_channels: size of the feature modulation.
        lattice: points along x, y, z of the lattice on which the field is evaluated.
        reach: largest offset, head units.
        mode: "both"; "deform" (the paper's) or "modulate" alone; "none" lets speech reach nothing (ablations).
        attention: False replaces cross attention by one layer over place, features and mean token side by side, and the
            region score by 1 (the paper's feature-concatenation ablation).
        cross_modal: False hides the photo, its features and its code, from the field; without attention, what is left is
            place and speech (the paper's naive deformation).
    """

    def __init__(self, feature_channels: int = 32, token_channels: int = 48, code_size: int = 13, width: int = 48,
                 heads: int = 2, modulation_channels: int = 24, lattice: tuple[int, int, int] = (18, 20, 8),
                 reach: float = 0.4, mode: str = "both", attention: bool = True, cross_modal: bool = True):
        super().__init__()
        if mode not in ("both", "deform", "modulate", "none"):
            raise ValueError(f"found mode={mode!r}; expected both, deform, modulate or none")
        self.mode, self.heads, self.reach, self.attention, self.cross_modal = mode, heads, reach, attention, cross_modal
        self.lattice_size = tuple(lattice)
        self.modulation_channels = modulation_channels
        encoded = 3 + 6 * OCTAVES
        self.query = nn.Linear(feature_channels + encoded, width)
        self.mix = nn.Sequential(nn.Linear(code_size + token_channels, width), nn.SiLU(), nn.Linear(width, width))
        self.keys, self.values = nn.Linear(width, width), nn.Linear(width, width)
        self.null = nn.Parameter(torch.randn(width) * 0.1)
        self.global_code = nn.Sequential(nn.Linear(2 * code_size, width), nn.SiLU(), nn.Linear(width, width // 2))
        sizes = (encoded + width + width // 2, 2 * width, width, width)
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.up = nn.Linear(2 * width, 2 * width)
        self.out = nn.Linear(2 * 2 * width, 3 + modulation_channels)
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)

    def lattice_points(self, like: Tensor) -> Tensor:
        """The lattice [G, 3] in the head frame, x fastest."""
        axes = [torch.linspace(-1, 1, n, device=like.device, dtype=like.dtype) for n in self.lattice_size]
        z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        unit = torch.stack([x, y, z], -1).flatten(0, 2)
        return unit * constant(FACE_HALF, unit) + constant(FACE_CENTRE, unit)

    def on_lattice(self, features: Tensor, motion: Motion, source_code: Tensor) -> Deformation:
        """Deformation [B, T, G] of the lattice, whose points have the fused features [B, G, F]; see `forward`. Its outermost points
        lie on the border of the face box, where nothing moves: they are not asked."""
        points = self.lattice_points(features)
        numbers = torch.arange(len(points), device=points.device).reshape(self.lattice_size[::-1])
        inner = numbers[1:-1, 1:-1, 1:-1].flatten()
        found = self(points[inner][None, None], features[:, None, inner], motion, source_code)
        whole = lambda values: values.new_zeros(*values.shape[:2], len(points), values.shape[-1]).index_copy(2, inner, values)
        return found.map(whole)

    def forward(self, points: Tensor, features: Tensor, motion: Motion, source_code: Tensor) -> Deformation:
        """Deformation [B, T, N] of points [B or 1, T or 1, N, 3] with fused features [B, T or 1, N, F].

        `motion` is [B, T]; `source_code` [B, K] is the absolute code of the photo, which tells what its mouth does.
        """
        unit = to_face_box(points)
        place = positional_encoding(unit, OCTAVES)
        batch, frames = motion.code.shape[:2]
        if not self.cross_modal:
            features, source_code = torch.zeros_like(features), torch.zeros_like(source_code)
        attended, region = self._attend(torch.cat([features, place.expand(*features.shape[:3], -1)], -1), motion)
        codes = torch.cat([motion.code, source_code[:, None].expand(-1, frames, -1)], -1)
        summary = self.global_code(codes)[:, :, None].expand(-1, -1, points.shape[2], -1)
        place = place.expand(batch, frames, -1, -1)
        first = F.silu(self.down[0](torch.cat([place, attended, summary], -1)))
        second = F.silu(self.down[1](first))
        third = F.silu(self.down[2](second))
        wide = F.silu(self.up(torch.cat([third, second], -1)))
        offset, modulation = self.out(torch.cat([wide, first], -1)).split([3, self.modulation_channels], -1)
        region = region * face_window(unit).expand(batch, frames, -1, -1) * float(self.mode != "none")
        deform, modulate = float(self.mode != "modulate"), float(self.mode != "deform")
        return Deformation(torch.tanh(offset) * self.reach * region * deform, modulation * region * modulate, region)

    def _attend(self, queries: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
        """Cross attention: values [B, T, N, width], and the attention that is not on the null token [B, T, N, 1]."""
        batch, frames, count = motion.tokens.shape[:3]
        code = motion.code[:, :, None].expand(-1, -1, count, -1)
        tokens = self.mix(torch.cat([code, motion.tokens], -1))
        if not self.attention:
            joined = self.query(queries) + self.values(tokens.mean(2))[:, :, None]  # a layer over both is the sum of two
            return joined, torch.ones_like(joined[..., :1])
        tokens = torch.cat([tokens, self.null.expand(batch, frames, 1, -1)], 2)
        split = lambda x: x.unflatten(-1, (self.heads, -1)).transpose(2, 3)
        q, k, v = split(self.query(queries)), split(self.keys(tokens)), split(self.values(tokens))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        region = 1 - weights[..., -1].mean(2)[..., None]
        return (weights @ v).transpose(2, 3).flatten(-2), region

    @single_precision
    def interpolate(self, lattice: Deformation, points: Tensor) -> Deformation:
        """A lattice's deformation [B, T, G] read, trilinearly, at points [B, T, N, 3]; nothing moves outside the box."""
        batch, frames, count = points.shape[:3]
        values = torch.cat([lattice.offset, lattice.modulation, lattice.region], -1).flatten(0, 1)
        nx, ny, nz = self.lattice_size
        volume = values.transpose(1, 2).unflatten(-1, (nz, ny, nx))
        grid = to_face_box(points).reshape(batch * frames, count, 1, 1, 3)
        read = F.grid_sample(volume, grid, padding_mode="zeros", align_corners=True)
        read = read.reshape(batch, frames, -1, count).transpose(2, 3)
        return Deformation(*read.split([3, self.modulation_channels, 1], -1))


def to_face_box(points: Tensor) -> Tensor:
    """Head-frame points [*, 3] in coordinates that run from -1 to 1 across the face box."""
    return (points - constant(FACE_CENTRE, points)) / constant(FACE_HALF, points)


def face_window(unit: Tensor) -> Tensor:
    """[*, 1]: 1 inside the face box, falling smoothly to 0 over its outer tenth, 0 outside; `unit` [*, 3] in [-1, 1]."""
    return smooth((1 - unit.abs()) / 0.1).prod(-1, keepdim=True)


def smooth(rise: Tensor) -> Tensor:
    """0 up to 0, 1 from 1 on, rising between them and level at both ends; the shape of `rise`."""
    rise = rise.clamp(0, 1)
    return rise * rise * (3 - 2 * rise)
