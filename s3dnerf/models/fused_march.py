"""The field of `S3DNeRF` and compositing in one kernel (`march_kernel.py`), with what the kernel reads laid out for it."""
from __future__ import annotations

from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from s3dnerf.device import kernels_work
from s3dnerf.geometry import rigid_inverse
from s3dnerf.networks.deformation import Deformation
from s3dnerf.networks.mesh_motion import MeshFlow, MeshMotion
from s3dnerf.networks.radiance import RadianceField
from s3dnerf.rendering.march import march_occupied, march_twice
from s3dnerf.types import Appearance, Cameras, RayColours, Rays, Samples

BLOCK, WARPS = 32, 8
"""rays that a program follows, and groups of 32 threads that it has"""
REST = 1e-4
"""share of light at which a block of rays ends"""
WIDEST = 128
"""channels of the decoder that fit a program"""


def fusable(model: nn.Module, appearance: Appearance) -> bool:
    """Whether the kernel knows a model's field, and would win: on a GPU, where nothing is learned from what it returns, and where
    nobody counts operators."""
    watched = torch.is_grad_enabled() or _get_current_dispatch_mode() is not None
    there = appearance.lattice
    return there.is_cuda and not watched and known(model, appearance) and kernels_work(there.device)


def known(model: nn.Module, appearance: Appearance) -> bool:
    """Whether the kernel knows a model's field: deformation on a lattice, landmarks that carry, square planes that halve."""
    sides = [plane.shape[-1] for plane in appearance.planes]
    halving = all(plane.shape[-2:] == (side, side) and side == sides[0] >> index
                  for index, (plane, side) in enumerate(zip(appearance.planes, sides)))
    return (model.evaluation == "lattice" and type(model.mesh_motion) is MeshMotion and type(model.radiance) is RadianceField
            and halving and model.radiance.hidden.out_features <= WIDEST)


def marched(model: nn.Module, appearance: Appearance, rays: Rays, flow) -> tuple[RayColours, RayColours]:
    """(coarse, fine) colours of rays [B, T, R] through a face that moves as `flow` [B, T] (`one_shot.FaceFlow`) says."""
    occupancy, renderer = appearance.occupancy, model.renderer
    march = FusedMarch(model, appearance, flow.lattice, flow.mesh)
    if occupancy is None:
        return march_twice(rays, march, renderer)
    found = march_occupied(rays, march, occupancy, renderer.coarse_samples, renderer.fine_samples)
    return found, found


class FusedMarch:
    """Follows rays through the field of one call of `S3DNeRF.render`; see `rendering.march.March`.

    Args:
        model: whose `known` field it is.
        appearance: [B] of the identities.
        lattice: [B, T, G] what speech does.
        mesh: [B, T] what landmarks do.
        rest: share of light at which a block of rays ends.
        block: rays that a program follows, a power of two.
    """

    def __init__(self, model: nn.Module, appearance: Appearance, lattice: Deformation, mesh: MeshFlow, rest: float = REST, block: int = BLOCK):
        self.model, self.rest, self.block = model, rest, block
        self.channels = padded(appearance.planes[0].shape[2])
        self.modulations = padded(lattice.modulation.shape[-1])
        self.width, self.out = padded(model.radiance.hidden.out_features), padded(model.radiance.out.out_features)
        self.scales, self.side = len(appearance.planes), appearance.planes[0].shape[-1]
        self.planes = torch.cat([widened(plane.permute(0, 1, 3, 4, 2), self.channels).flatten() for plane in appearance.planes])
        self.lattice = torch.cat([widened(lattice.modulation, self.modulations), lattice.offset, lattice.region], -1).float()
        self.maps, self.person = mesh.maps.float().contiguous(), appearance.portrait.person.float().contiguous()
        self.camera = camera_numbers(appearance.portrait.cameras, model.image_size).contiguous()
        self.decoder = decoder_numbers(model.radiance, self.scales, self.channels, self.modulations, self.width, self.out)

    def __call__(self, rays: Rays, samples: Samples, live: Optional[Tensor] = None) -> RayColours:
        """See `March`."""
        batch, frames, count = rays.origins.shape[:3]
        given = [rays.origins, rays.directions, samples.starts, samples.ends, samples.middles,
                 torch.ones_like(rays.near) if live is None else live]
        given = [values.expand(batch, frames, *values.shape[2:]).float().contiguous() for values in given]
        sums = rays.origins.new_empty(batch, frames, count, self.out + 9)
        weights = torch.zeros_like(given[2])
        self._launch(given, sums, weights)
        return self._colours(sums, weights, samples)

    def _launch(self, given: Sequence[Tensor], sums: Tensor, weights: Tensor) -> None:
        """Has the kernel fill `sums` [B, T, R, out + 9] and, where light comes to, `weights` [B, T, R, S, 1]."""
        from s3dnerf.models.march_kernel import march_kernel

        batch, frames, count, samples = weights.shape[:4]
        rows, columns = self.maps.shape[-2:]
        march_kernel[-(-count // self.block), batch * frames](
            *given, self.planes, self.lattice, self.maps, self.person, self.camera, self.decoder, sums, weights, frames, count,
            samples, self.rest, self.scales, self.side, self.channels, *self.model.deformation.lattice_size, self.modulations,
            rows, columns, self.person.shape[-1], self.width, self.out, self.block, num_warps=WARPS)

    def _colours(self, sums: Tensor, weights: Tensor, samples: Samples) -> RayColours:
        """What the kernel wrote, by name."""
        decoded, painted, source, inside, motion, opacity, depth = sums.split([self.out, 3, 2, 1, 1, 1, 1], -1)
        features = torch.cat([decoded[..., 1:self.model.radiance.out.out_features], painted], -1)
        return RayColours(features, source, inside, motion, opacity, depth / opacity.clamp_min(1e-4), weights, samples)


def padded(count: int) -> int:
    """The power of two, 16 or more, that holds so many: what a product of matrices in a kernel wants."""
    return max(16, 1 << (count - 1).bit_length())


def widened(values: Tensor, last: int, rows: Optional[int] = None) -> Tensor:
    """[*, last], or [rows, last]: the same with zeros behind."""
    pad = (0, last - values.shape[-1]) if rows is None else (0, last - values.shape[-1], 0, rows - values.shape[-2])
    return F.pad(values.float(), pad)


def camera_numbers(cameras: Cameras, size: int) -> Tensor:
    """[B, 19] what the kernel needs of the cameras [B] that took the photos: see `march_kernel.in_photo`."""
    pose = rigid_inverse(cameras.camera_to_world)
    project = cameras.intrinsics[:, :2] * (2 / size)
    parts = pose[:, :3, :3].flatten(1), pose[:, :3, 3], project.flatten(1), cameras.camera_to_world[:, :3, 3].norm(dim=-1)[:, None]
    return torch.cat(parts, 1).float()


def decoder_numbers(radiance: RadianceField, scales: int, channels: int, modulations: int, width: int, out: int) -> Tensor:
    """All weights of the decoder, matrices [in, out] with zeros behind, one after another: those that read the planes, scale by
    scale, the place (photo, inside), the modulation (photo, inside), then layer by layer, then biases."""
    first, mouth = radiance.features.weight.T, radiance.inside[0].weight.T
    own = (len(first) - 6) // scales
    parts = [widened(part, width, channels) for part in first[:-6].split(own)]
    parts += [widened(weight[-6:], width, 16) for weight in (first, mouth)]
    parts += [widened(weight, width, modulations) for weight in (radiance.modulate.weight.T, mouth[:-6])]
    parts += [widened(layer.weight.T, width, width) for layer in (radiance.inside[2], radiance.hidden)]
    parts.append(widened(radiance.out.weight.T, out, width))
    biases: Sequence[nn.Linear] = (radiance.features, radiance.inside[0], radiance.inside[2], radiance.hidden)
    parts += [widened(layer.bias, width) for layer in biases] + [widened(radiance.out.bias, out)]
    return torch.cat([part.flatten() for part in parts])
