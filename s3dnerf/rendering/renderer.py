"""Coarse-to-fine volume rendering of any field."""
from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor, nn

from s3dnerf.rendering.compositing import composite, ended
from s3dnerf.rendering.sampling import importance_distances, merge_samples, stratified_samples
from s3dnerf.types import FieldSamples, RayColours, Rays

Field = Callable[[Tensor], FieldSamples]
"""points [*, R, S, 3] in the head frame -> what is there."""


class CoarseToFineRenderer(nn.Module):
    """Looks along rays twice: evenly, then where the first look found something.

    The second look adds its points to those of the first, sorted into one row of intervals; both looks are returned, so
    that both can be supervised. While training, points are placed at random within their intervals.

    Args:
        coarse_samples: points per ray of the first look.
        fine_samples: points per ray that the second look adds; 0 leaves it out.
        importance: place the second look's points by the first look's weights; otherwise evenly (an ablation).
    """

    def __init__(self, coarse_samples: int = 8, fine_samples: int = 8, importance: bool = True):
        super().__init__()
        self.coarse_samples, self.fine_samples, self.importance = coarse_samples, fine_samples, importance

    def forward(self, rays: Rays, field: Field, behind: Optional[Tensor] = None) -> tuple[RayColours, RayColours]:
        """(coarse, fine) colours of rays [*, R]; `field` is called once per look. With `behind` [*, R, C] the last sample of
        each ray is what is there; see `compositing.ended`."""
        end = (lambda samples, found: found) if behind is None else (lambda samples, found: ended(samples, found, behind))
        samples = stratified_samples(rays, self.coarse_samples, self.training)
        found = field(points_on(rays, samples.middles))
        coarse = composite(samples, end(samples, found))
        if not self.fine_samples:
            return coarse, coarse
        if self.importance:
            weights = coarse.weights
            if behind is not None:  # nobody looks for what is known
                weights = torch.cat([weights[..., :-1, :], torch.zeros_like(weights[..., -1:, :])], -2)
            distances = importance_distances(samples, weights, self.fine_samples, self.training)
        else:
            even = stratified_samples(rays, self.fine_samples, self.training)
            distances = even.middles if self.training else even.starts  # their middles may be the first look's own
        more = field(points_on(rays, distances))
        merged, order = merge_samples(samples, distances)
        return coarse, composite(merged, end(merged, reorder(found, more, order)))


def points_on(rays: Rays, distances: Tensor) -> Tensor:
    """Points [*, R, S, 3] at distances [*, R, S, 1] along rays [*, R]."""
    return rays.origins[..., None, :] + rays.directions[..., None, :] * distances


def reorder(first: FieldSamples, second: FieldSamples, order: Tensor) -> FieldSamples:
    """The samples of both looks in the order [*, R, S, 1] that sorts them by distance."""

    def pick(name):
        both = torch.cat([getattr(first, name), getattr(second, name)], -2)
        return both.gather(-2, order.expand(*order.shape[:-1], both.shape[-1]))

    return FieldSamples(*(pick(name) for name in ("density", "features", "source", "inside", "motion")))
