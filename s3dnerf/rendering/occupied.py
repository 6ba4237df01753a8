"""Volume rendering at inference that asks a field only where a head is known to be: an occupancy grid in place of the coarse
pass (RAD-NeRF, section 3.4), rays that meet nothing left out, and each ray followed only while it gathers light."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.device import constant
from s3dnerf.rendering.compositing import composite, interval_weights
from s3dnerf.rendering.renderer import Field, points_on
from s3dnerf.rendering.sampling import importance_distances, merge_samples, stratified_samples
from s3dnerf.types import FieldSamples, RayColours, Rays, Samples, TensorRecord

LOW, HIGH = (-1.5, -2.1, -1.25), (1.5, 2.0, 0.6)
"""The box, head frame, that a head's density fills: see `networks.radiance.head_prior`."""
CELL = 0.065
"""Length of the side of a cell, head units."""
EMPTY = 0.02
"""A ray that gathers less light than this meets nothing, and a sample that adds less than this to its ray is not worth asking
the field about."""


@dataclass(frozen=True)
class Occupancy(TensorRecord):
    """How dense a head is, whatever it says, and how closely it is looked at."""

    density: Tensor
    """[B, 1, D, H, W] on a grid over the box from `LOW` to `HIGH`, along z, y, x."""
    samples: int
    """points per ray that the field is asked about"""
    half: bool = False
    """super-resolution in bfloat16"""

    @staticmethod
    def points(like: Tensor) -> Tensor:
        """[D, H, W, 3] points of the grid, head frame."""
        axes = [torch.linspace(low, high, round((high - low) / CELL) + 1, device=like.device, dtype=like.dtype)
                for low, high in zip(LOW, HIGH)]
        z, y, x = torch.meshgrid(*axes[::-1], indexing="ij")
        return torch.stack([x, y, z], -1)

    def at(self, points: Tensor) -> Tensor:
        """Density [B, T, R, S, 1] at points [B, T, R, S, 3], trilinear; nothing lies outside the box."""
        low, high = constant(LOW, points), constant(HIGH, points)
        unit = (points - low) * (2 / (high - low)) - 1
        read = F.grid_sample(self.density, unit.flatten(1, 2)[:, None], align_corners=True)
        return read.reshape(*points.shape[:-1], 1)


def render_occupied(rays: Rays, field: Field, occupancy: Occupancy, coarse: int, fine: int) -> RayColours:
    """Colours of rays [B, T, R], as of the second look of `CoarseToFineRenderer` with `coarse` and `fine` samples; `field` is
    called once, with the rays that meet something and `occupancy.samples` points on each.

    The grid says where the coarse pass would have found something, hence where its samples would lie, and which of them add to
    the colour. Of a camera that rests it is asked once: from rays [B, 1, R] come the colours of as many frames as `field` gives.
    """
    samples = stratified_samples(rays, coarse, False)
    weights = interval_weights(occupancy.at(points_on(rays, samples.middles)), samples)
    light = weights.sum(-2)
    met = light[..., 0] > EMPTY
    # every frame has as many rays as the one with the most; what those that are too many find is not put back
    order = met.to(torch.uint8).argsort(stable=True, dim=-1, descending=True)[..., :max(1, int(met.sum(-1).max()))]
    chosen, kept = take(rays, order), take(samples, order)
    near, share = visible(chosen, kept, take(weights, order), occupancy, fine)
    found = field(points_on(chosen, near.middles))
    part = whole(composite(near, found), share)
    depth = (weights * samples.middles).sum(-2) / light.clamp_min(1e-4)
    order, met, depth = (x.expand(-1, found.density.shape[1], *x.shape[2:]) for x in (order, met, depth))
    real = take(met, order)[..., None]

    def put(values: Tensor, rest: Tensor) -> Tensor:
        return rest.scatter(2, order[..., None].expand_as(values), torch.where(real, values, take(rest, order)))

    empty = lambda values: put(values, values.new_zeros(*met.shape, values.shape[-1]))
    return RayColours(empty(part.features), empty(part.source), empty(part.inside), empty(part.motion), empty(part.opacity),
                      put(part.depth, depth), weights, samples)


def ask_resting(field: Field, still: Field, frames: int, moves: Callable[[Tensor], Tensor], points: Tensor) -> FieldSamples:
    """What is at points [B, 1, R, S, 3] in so many frames: rays with a point that `moves` [B, 1, R, S] may name are asked of
    `field` in every frame, the others of `still`, which is the first frame's, once."""
    moving = moves(points).any(-1).flatten(0, 1).any(0)
    order, count = moving.to(torch.uint8).argsort(descending=True, stable=True), int(moving.sum())
    some = field(points[:, :, order[:count]].expand(-1, frames, -1, -1, -1))
    rest = still(points[:, :, order[count:]]).map(lambda x: x.expand(-1, frames, -1, -1, -1))
    back = order.argsort()
    return FieldSamples(*(torch.cat([getattr(part, name) for part in (some, rest)], 2)[:, :, back]
                          for name in ("density", "features", "source", "inside", "motion")))


def visible(rays: Rays, samples: Samples, weights: Tensor, occupancy: Occupancy, fine: int) -> tuple[Samples, Tensor]:
    """Of the even intervals and `fine` more by importance, the `occupancy.samples` neighbours [B, T, R, samples] that add most
    to the colour, and the share [B, T, R, 1] of it that they add, as the grid has it."""
    distances = importance_distances(samples, weights, fine, False)
    merged, _ = merge_samples(samples, distances)
    count = merged.middles.shape[-2]
    if occupancy.samples >= count:
        return merged, torch.ones_like(merged.starts[..., 0, :])
    weights = interval_weights(occupancy.at(points_on(rays, merged.middles)), merged)[..., 0]
    total = F.pad(weights.cumsum(-1), (1, 0))
    most, first = (total[..., occupancy.samples:] - total[..., :-occupancy.samples]).max(-1, keepdim=True)
    window = first + torch.arange(occupancy.samples, device=first.device)
    return merged.map(lambda values: values.gather(-2, window[..., None])), most / total[..., -1:].clamp_min(1e-4)


def whole(part: RayColours, share: Tensor) -> RayColours:
    """Colours to which `share` [B, T, R, 1] of the samples were added up, as if the others were like them."""
    factor = torch.minimum(1 / share.clamp_min(0.1), 1 / part.opacity.clamp_min(1e-4)).clamp_min(1)
    return replace(part, features=part.features * factor, source=part.source * factor, inside=part.inside * factor,
                   motion=part.motion * factor, opacity=part.opacity * factor)


def take(record, order: Tensor):
    """Of a tensor or record [B, T, R, *], the rays `order` [B, T, M]."""
    if isinstance(record, TensorRecord):
        return record.map(lambda values: take(values, order))
    index = order.reshape(*order.shape, *[1] * (record.dim() - 3))
    return record.gather(2, index.expand(*order.shape, *record.shape[3:]))
