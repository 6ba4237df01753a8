"""The volume rendering integral over intervals of constant density (Max 1995; NeRF, equation 3)."""
from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from s3dnerf.precision import single_precision
from s3dnerf.types import FieldSamples, RayColours, Samples, TensorRecord

OPAQUE = 64.0
"""optical depth through which no light passes in single precision; small, so that a sum with it stays exact"""


def interval_weights(density: Tensor, samples: Samples) -> Tensor:
    """Share [*, R, S, 1] of the light that each interval adds: T_i (1 - exp(-density_i * length_i)).

    T_i, what passes all intervals before i, is exp of minus their summed optical depth. Constant density over a length L
    gives a total of exactly 1 - exp(-density * L), however it is cut.
    """
    optical = density * (samples.ends - samples.starts)
    before = torch.cumsum(optical, -2) - optical
    return torch.exp(-before) * (1 - torch.exp(-optical))


@single_precision
def composite(samples: Samples, field: FieldSamples) -> RayColours:
    """Field samples summed along their rays, front to back; what is not opaque is left at zero."""
    weights = interval_weights(field.density, samples)
    total = lambda values: (weights * values).sum(-2)
    opacity = weights.sum(-2)
    depth = total(samples.middles) / opacity.clamp_min(1e-4)
    return RayColours(total(field.features), total(field.source), total(field.inside), total(field.motion),
                      opacity, depth, weights, samples)


@single_precision
def ended(samples: Samples, field: FieldSamples, behind: Tensor) -> FieldSamples:
    """The same samples, but the last of each ray is opaque and shows `behind` [*, R, C] (AD-NeRF, section 3.2): it takes up
    all the light that the others leave, so that a ray through empty space shows `behind` and nothing else."""
    length = (samples.ends - samples.starts)[..., -1:, :].clamp_min(1e-9)
    density = torch.cat([field.density[..., :-1, :], OPAQUE / length], -2)
    features = torch.cat([field.features[..., :-1, :], behind[..., None, :]], -2)
    return replace(field, density=density, features=features)


@dataclass(frozen=True)
class LayerColours(TensorRecord):
    """One layer of a person along rays, looked at twice, over what is behind it."""

    coarse: Tensor
    """[R, C] of the first look."""
    colour: Tensor
    """[R, C] of the second look."""
    light: Tensor
    """[R, 1] in [0, 1]: what passes the layer and shows what is behind it."""
    depth: Tensor
    """[R, 1] expected distance along the ray, of the part that is not empty; 0 where all is."""

    @classmethod
    def of(cls, coarse: RayColours, fine: RayColours) -> "LayerColours":
        """From both looks along rays whose last sample is what is behind (`ended`)."""
        light, middles = fine.weights[..., -1, :], fine.samples.middles
        depth = (fine.weights * middles)[..., :-1, :].sum(-2) / (1 - light).clamp_min(1e-4)
        return cls(coarse.features, fine.features, light, depth)

    def among(self, behind: Tensor, rays: Tensor) -> "LayerColours":
        """The same as the rays [R] of more, of which the others meet nothing but what is `behind` [N, C] them."""
        none = behind.new_zeros(len(behind), 1)
        put = lambda all_rays, found: all_rays.to(found.dtype).index_copy(0, rays, found)
        return LayerColours(put(behind, self.coarse), put(behind, self.colour), put(none + 1, self.light),
                            put(none, self.depth))
