"""The two ways of looking along rays, where one call both asks the field and composites: a kernel that writes nothing in between
(`models.fused_march`). As `renderer` and `occupied`, but for inference alone, and no step waits for a GPU."""
from __future__ import annotations

from dataclasses import replace
from typing import Callable, Optional

import torch
from torch import Tensor

from s3dnerf.rendering.compositing import interval_weights
from s3dnerf.rendering.occupied import EMPTY, Occupancy, visible, whole
from s3dnerf.rendering.renderer import CoarseToFineRenderer, points_on
from s3dnerf.rendering.sampling import importance_distances, merge_samples, stratified_samples
from s3dnerf.types import RayColours, Rays, Samples

March = Callable[[Rays, Samples, Optional[Tensor]], RayColours]
"""rays [B, T, R], where to look along them, and which of them are looked along, [B, T, R, 1] bool (None: all) -> what they
gather; the others gather nothing."""


def march_twice(rays: Rays, march: March, renderer: CoarseToFineRenderer) -> tuple[RayColours, RayColours]:
    """(coarse, fine) colours of rays [B, T, R], as of `renderer` in eval mode. The points of the first look are looked at again
    in the second: dearer in operations, and nothing has to be kept."""
    samples = stratified_samples(rays, renderer.coarse_samples, False)
    coarse = march(rays, samples, None)
    if not renderer.fine_samples:
        return coarse, coarse
    if renderer.importance:
        distances = importance_distances(samples, coarse.weights, renderer.fine_samples, False)
    else:
        distances = stratified_samples(rays, renderer.fine_samples, False).starts
    return coarse, march(rays, merge_samples(samples, distances)[0], None)


def march_occupied(rays: Rays, march: March, occupancy: Occupancy, coarse: int, fine: int) -> RayColours:
    """Colours of rays [B, T, R]; see `occupied.render_occupied`. Rays that meet nothing are left out where they are, so that
    shapes do not depend on what is seen."""
    samples = stratified_samples(rays, coarse, False)
    weights = interval_weights(occupancy.at(points_on(rays, samples.middles)), samples)
    light = weights.sum(-2)
    met = light > EMPTY
    near, share = visible(rays, samples, weights, occupancy, fine)
    found = whole(march(rays, near, met), share)
    depth = (weights * samples.middles).sum(-2) / light.clamp_min(1e-4)
    return replace(found, depth=torch.where(met, found.depth, depth), weights=weights, samples=samples)
