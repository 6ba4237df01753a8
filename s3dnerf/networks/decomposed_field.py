"""Density and colour of a head, in a grid of space and a small one of speech (RAD-NeRF, sections 3.2 and 3.3)."""
from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.networks.grid_encoding import GridEncoding
from s3dnerf.networks.regions import FaceRegions
from s3dnerf.types import PointSamples

MODES = ("modulation", "deformation", "composed", "implicit")
SPEECH_START = 0.1
"""features of the grid of speech before anything is learned, at most"""
OFFSET = 0.15
"""largest offset of the deformation mode, as a share of the box"""


class DecomposedField(nn.Module):
    """What is at a point of the head while something is said.

    A net turns the point's grid features and the speech code into an *audio coordinate* of one to three numbers in
    [-1, 1]; a second, small grid holds what speech changes at that coordinate. The four ways of the paper's Table 5:

    * modulation: features of both grids, side by side;
    * deformation: the coordinate (of three numbers) moves the point, and there is no second grid;
    * composed: one grid over the point and the coordinate together;
    * implicit: no coordinate, the code goes straight to the density net.

    With 16 levels of 2 channels, `width` 64, `depth` 2, a code of 64, `view_degree` 4 and `appearance` 4 these are the
    paper's nets (10 368, 12 416 and 5 568 parameters beside the grids).

    Args:
        mode: one of the four.
        audio_dimensions: numbers of the audio coordinate, 1 to 3.
        code_size: numbers of the speech code.
        levels: of the grid of space.
        channels: per level.
        base: cells of its coarsest level.
        finest: cells of its finest level.
        entries: most rows of a level.
        audio_levels: of the grid of speech, with as many channels.
        audio_base: cells of its coarsest level.
        audio_finest: cells of its finest level.
        width: channels of the nets.
        depth: hidden layers of the audio and density nets.
        view_degree: degree of the spherical harmonics of the direction that colour may depend on; 0 leaves it out, the
            paper's code has 4.
        appearance: numbers of a frame's appearance code.
        lower_face: hear speech in the lower face alone, from the nose down: short recordings otherwise teach the lips to tell
            frames apart, and brows and hair by them. False lets it be heard everywhere, as in the paper, where only the
            dynamic loss keeps it in its place.
        eye_radius: head units around the eyes in which the eye opening is heard; None lets it be heard everywhere, as in
            the paper.
    """

    def __init__(self, mode: str = "modulation", audio_dimensions: int = 2, code_size: int = 64, levels: int = 8,
                 channels: int = 4, base: int = 16, finest: int = 256, entries: int = 2 ** 16, audio_levels: int = 4,
                 audio_base: int = 4, audio_finest: int = 32, width: int = 48, depth: int = 1, view_degree: int = 2,
                 appearance: int = 4, lower_face: bool = True, eye_radius: Optional[float] = 0.45):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"found mode={mode!r}; expected one of {', '.join(MODES)}")
        if not 1 <= audio_dimensions <= 3:
            raise ValueError(f"found audio_dimensions={audio_dimensions}; expected 1, 2 or 3")
        self.mode, self.view_degree = mode, view_degree
        self.space = GridEncoding(3, levels, channels, base, finest, entries)
        features, seen = self.space.out_channels, self.space.out_channels + 1
        coordinate = 3 if mode == "deformation" else audio_dimensions
        self.speech = None
        if mode == "modulation":
            self.speech = GridEncoding(coordinate, audio_levels, channels, audio_base, audio_finest, entries, "tiled")
            seen += self.speech.out_channels
        elif mode == "composed":
            self.speech = GridEncoding(3 + coordinate, audio_levels, channels, audio_base, audio_finest, entries)
            seen += self.speech.out_channels
        hears = width if mode != "implicit" else 0
        self.ambient = None if mode == "implicit" else plain_net(features, width, coordinate, depth)
        self.ambient_code = nn.Linear(code_size, hears or width, bias=False)
        self.density_net = plain_net(seen, width, 1 + width, depth)
        self.colour_net = plain_net(view_degree ** 2 + width + appearance, width, 3, 1)
        with torch.no_grad():  # a flat grid of speech gives its coordinate no gradient, and the coordinate would die out
            if mode == "modulation":
                self.speech.table.mul_(SPEECH_START / 1e-4)
        self.regions = FaceRegions(lower_face, eye_radius)

    def forward(self, points: Tensor, places: Tensor, directions: Tensor, code: Tensor, eyes: Tensor, appearance: Tensor,
                owner: Tensor) -> PointSamples:
        """Samples at points.

        Args:
            points: [N, 3] in the head frame.
            places: [N, 3] the same in the box, [0, 1].
            directions: [N, 3] that they are seen in, unit length.
            code: [F, K] speech code of each frame.
            eyes: [F, 1] eye opening of each frame.
            appearance: [F, A] appearance code of each frame.
            owner: [N] which frame a point belongs to.
        """
        density, geometry, ambient = self.density(points, places, code, eyes, owner)
        parts = [geometry, appearance[owner]]
        if self.view_degree:
            parts.append(spherical_harmonics(directions, self.view_degree))
        return PointSamples(density, torch.sigmoid(run(self.colour_net, torch.cat(parts, -1))), ambient)

    def density(self, points: Tensor, places: Tensor, code: Tensor, eyes: Tensor,
                owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Density [N, 1], what the colour net is told, [N, width], and the size of the audio coordinate, [N, 1]."""
        features, heard = self.space(places), self.ambient_code(code)[owner]
        here, near_eyes = self.regions(points)
        lids = eyes[owner] * near_eyes
        coordinate = None
        if self.ambient is not None:
            coordinate = torch.tanh(run(self.ambient, features, heard)) * here
        if self.mode == "modulation":
            features = torch.cat([features, self.speech((coordinate + 1) / 2)], -1)
        elif self.mode == "composed":
            features = torch.cat([features, self.speech(torch.cat([places, (coordinate + 1) / 2], -1))], -1)
        elif self.mode == "deformation":
            features = self.space(places + OFFSET * coordinate)
        found = run(self.density_net, torch.cat([features, lids], -1), heard * here if self.mode == "implicit" else None)
        size = torch.zeros_like(lids) if coordinate is None else coordinate.abs().sum(-1, keepdim=True)
        return truncated_exp(found[:, :1]), found[:, 1:], size


def plain_net(channels: int, width: int, out: int, depth: int) -> nn.ModuleList:
    """Linear layers without bias."""
    sizes = (channels, *[width] * depth, out)
    return nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(sizes, sizes[1:]))


def run(layers: nn.ModuleList, x: Tensor, more: Optional[Tensor] = None) -> Tensor:
    """Layers with ReLU between them; `more` is added to what comes out of the first, as if it had been part of the input."""
    x = layers[0](x)
    x = x if more is None else x + more
    for layer in layers[1:]:
        x = layer(F.relu(x))
    return x


class TruncatedExp(torch.autograd.Function):
    """exp whose gradient is bounded, so that a dense point can be thinned out again."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x.clamp(max=15))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * torch.exp(ctx.saved_tensors[0].clamp(-15, 15))


truncated_exp = TruncatedExp.apply


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """The first degree^2 real spherical harmonics [N, degree^2] of unit vectors [N, 3]; degree up to 4."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, 0.28209479)]
    if degree > 1:
        values += [-0.48860251 * y, 0.48860251 * z, -0.48860251 * x]
    if degree > 2:
        values += [1.09254843 * x * y, -1.09254843 * y * z, 0.31539157 * (3 * z * z - 1), -1.09254843 * x * z,
                   0.54627421 * (x * x - y * y)]
    if degree > 3:
        values += [-0.59004359 * y * (3 * x * x - y * y), 2.89061144 * x * y * z, -0.45704579 * y * (5 * z * z - 1),
                   0.37317633 * z * (5 * z * z - 3), -0.45704579 * x * (5 * z * z - 1), 1.44530572 * z * (x * x - y * y),
                   -0.59004359 * x * (x * x - 3 * y * y)]
    return torch.stack(values, -1)
