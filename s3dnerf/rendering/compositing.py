"""The volume rendering integral over intervals of constant density (Max 1995; NeRF, equation 3)."""
from __future__ import annotations

import torch
from torch import Tensor

from s3dnerf.types import FieldSamples, RayColours, Samples


def interval_weights(density: Tensor, samples: Samples) -> Tensor:
    """Share [*, R, S, 1] of the light that each interval adds: T_i (1 - exp(-density_i * length_i)).

    T_i, what passes all intervals before i, is exp of minus their summed optical depth. Constant density over a length L
    gives a total of exactly 1 - exp(-density * L), however it is cut.
    """
    optical = density * (samples.ends - samples.starts)
    before = torch.cumsum(optical, -2) - optical
    return torch.exp(-before) * (1 - torch.exp(-optical))


def composite(samples: Samples, field: FieldSamples) -> RayColours:
    """Field samples summed along their rays, front to back; what is not opaque is left at zero."""
    weights = interval_weights(field.density, samples)
    total = lambda values: (weights * values).sum(-2)
    opacity = weights.sum(-2)
    depth = total(samples.middles) / opacity.clamp_min(1e-4)
    return RayColours(total(field.features), total(field.source), total(field.inside), total(field.motion),
                      opacity, depth, weights, samples)
