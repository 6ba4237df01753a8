"""AD-NeRF: one person's head and torso as two implicit fields, learned from one recording (Guo et al. 2021)."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from s3dnerf.geometry import pixel_grid
from s3dnerf.models.person import Person
from s3dnerf.models.rad_nerf import CENTRE, RADII, pixel_rays
from s3dnerf.networks.implicit_field import ImplicitField
from s3dnerf.networks.regions import FaceRegions
from s3dnerf.networks.torso import encode_waves
from s3dnerf.rendering.compositing import LayerColours
from s3dnerf.rendering.renderer import CoarseToFineRenderer
from s3dnerf.types import Cameras, Condition, FieldSamples, PersonRendering, Rays

TORSO_FRONT, TORSO_BACK = 1.0, 0.6
"""The torso is looked for between these distances before and behind the plane of the head frame's origin, head units."""
BACK = 0.6
"""Depth, head frame, behind which no camera sees anything of the head."""
CHUNK = 4096
"""rays that are rendered at once"""
LIT = 1e-3
"""share of light that must pass the head for the torso behind it to be looked at"""


class ADNeRF(Person):
    """One person's talking head; see `Person`.

    The head's field lives in the head frame, the torso's in the frame of the recording's first camera, from which it is
    always seen; it is told the head's pose. Along every ray the last sample stands for what is behind: the torso behind the
    head, the background plate behind the torso.

    Args:
        image_size: see `Person`.
        features: see `Person`.
        readout: see `Person`.
        code_size: see `Person`.
        speech_width: see `Person`.
        dropout: see `Person`.
        token_channels: see `Person`.
        head: see `ImplicitField`; its arguments but `told`.
        torso: the same for the torso.
        coarse_samples: see `CoarseToFineRenderer`, of the head.
        fine_samples: see `CoarseToFineRenderer`, of the head.
        torso_samples: both numbers, of the torso.
        eyes: the head is told the eye opening (not in the paper).
        lower_face: see `FaceRegions`; False is the paper's way.
        eye_radius: see `FaceRegions`.
        pose_octaves: of the waves of the head's pose.
        half: the nets reckon in bfloat16 when whole frames are rendered, which is twice as fast.
        smoothing: see `Person`.
        mouth_gain: see `Person`.
    """

    def __init__(self, image_size: int = 256, features: str = "tokens", readout: str = "linear", code_size: int = 12,
                 speech_width: int = 64, dropout: float = 0.2, token_channels: int = 48, head: Optional[dict] = None,
                 torso: Optional[dict] = None, coarse_samples: int = 64, fine_samples: int = 128,
                 torso_samples: tuple[int, int] = (64, 128), eyes: bool = True, lower_face: bool = True,
                 eye_radius: Optional[float] = 0.45, pose_octaves: int = 10, half: bool = False, smoothing: int = 1,
                 mouth_gain: Optional[float] = None):
        self_arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(image_size, features, readout, code_size, speech_width, dropout, token_channels, smoothing,
                         mouth_gain)
        self.arguments = self_arguments
        self.eyes, self.pose_octaves, self.in_half = eyes, pose_octaves, half
        self.regions = FaceRegions(lower_face, eye_radius)
        self.head = ImplicitField(code_size + (1 if eyes else 0), **(head or {}))
        self.torso = ImplicitField(code_size + 6 * (1 + 2 * pose_octaves), **(torso or {}))
        self.renderer = CoarseToFineRenderer(coarse_samples, fine_samples)
        self.torso_renderer = CoarseToFineRenderer(*torso_samples)

    def head_layer(self, cameras: Cameras, condition: Condition, pixels: Tensor, owner: Tensor,
                   behind: Tensor) -> LayerColours:
        """The head at pixels [N, 2] of frames `owner` [N], over what is `behind` [N, 3] it; cameras and condition [F]."""
        rays = head_rays(single_rays(cameras[owner], pixels))
        met = torch.nonzero((rays.far > rays.near)[:, 0])[:, 0]
        whose, directions = owner[met], rays.directions[met]

        def field(points: Tensor) -> FieldSamples:
            speech, lids = self.regions(points)
            told = [condition.code[whose][:, None] * speech] + ([condition.eyes[whose][:, None] * lids] if self.eyes else [])
            return colour_samples(*self.head(points, torch.cat(told, -1), directions[:, None].expand_as(points)))

        return LayerColours.of(*self.renderer(rays[met], field, behind[met])).among(behind, met)

    def torso_layer(self, cameras: Cameras, condition: Condition, pixels: Tensor, owner: Tensor,
                    behind: Tensor) -> LayerColours:
        """The torso there, over what is `behind` [N, 3] it, always seen by the recording's first camera."""
        first = Cameras(self.path[:1], self.intrinsics[None])
        rays = torso_rays(single_rays(first[torch.zeros_like(owner)], pixels), self.path[0])
        with torch.autocast(pixels.device.type, enabled=False):
            pose = self.head_pose(cameras)
        told = torch.cat([condition.code, encode_waves(pose, self.pose_octaves)], -1)[owner]

        def field(points: Tensor) -> FieldSamples:
            size = points.shape[:2]
            return colour_samples(*self.torso(points, told[:, None].expand(*size, -1),
                                              rays.directions[:, None].expand_as(points)))

        return LayerColours.of(*self.torso_renderer(rays, field, behind))

    @torch.no_grad()
    def render(self, cameras: Cameras, condition: Condition, background: Optional[Tensor] = None) -> PersonRendering:
        """See `Person`. What speech does there is not known: `ambient` is 0."""
        size = self.image_size
        plate = (self.background if background is None else background.to(self.background)).flatten(1).T
        pixels = pixel_grid(size, size, self.background)
        frames = []
        for number in range(len(condition.code)):
            with torch.autocast(plate.device.type, torch.bfloat16, enabled=self.in_half):
                parts = [self._layers(cameras[number:number + 1], condition[number:number + 1], *part)
                         for part in zip(pixels.split(CHUNK), plate.split(CHUNK))]
            frames.append(torch.cat(parts))
        layers = torch.stack(frames).transpose(1, 2).unflatten(-1, (size, size))
        head, cover, depth, torso, below = layers.split([3, 1, 1, 3, 1], 1)
        image = head + (1 - cover) * (torso + (1 - below) * plate.T.unflatten(-1, (size, size)))
        return PersonRendering(image, head, cover, depth, torso, below, torch.zeros_like(cover))

    def _layers(self, cameras: Cameras, condition: Condition, pixels: Tensor, plate: Tensor) -> Tensor:
        """[N, 9] head and its opacity and depth, torso and its opacity, at pixels [N, 2] of one frame."""
        owner = torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)
        head = self.head_layer(cameras, condition, pixels, owner, torch.zeros_like(plate))
        seen = torch.nonzero(head.light[:, 0] > LIT)[:, 0]
        behind = torch.zeros_like(plate)
        torso = self.torso_layer(cameras, condition, pixels[seen], owner[seen], behind[seen])
        below = behind.new_zeros(len(pixels), 4).index_copy(0, seen, torch.cat([torso.colour, 1 - torso.light], -1))
        return torch.cat([head.colour, 1 - head.light, head.depth, below], -1)


def single_rays(cameras: Cameras, pixels: Tensor) -> Rays:
    """Rays [N] through pixels [N, 2] of cameras [N], in single precision whatever the nets reckon in: half of it would move
    the head by pixels."""
    with torch.autocast(pixels.device.type, enabled=False):
        return pixel_rays(cameras, pixels[:, None])[:, 0]


def head_rays(rays: Rays) -> Rays:
    """Rays [N] between where they enter the ellipsoid that holds the head and where they leave it, or its front part;
    equal for those that miss it."""
    centre, radii = rays.origins.new_tensor(CENTRE), rays.origins.new_tensor(RADII)
    start, along = (rays.origins - centre) / radii, rays.directions / radii
    square, product = (along ** 2).sum(-1, keepdim=True), (start * along).sum(-1, keepdim=True)
    inside = product ** 2 - square * ((start ** 2).sum(-1, keepdim=True) - 1)
    half = inside.clamp_min(0).sqrt()
    near, far = (-product - half) / square, (-product + half) / square
    back = (BACK - rays.origins[:, 2:]) / rays.directions[:, 2:].clamp_min(1e-3)
    return Rays(rays.origins, rays.directions, near, torch.minimum(far, back).clamp_min(near))


def torso_rays(rays: Rays, pose: Tensor) -> Rays:
    """Rays [N] of the camera of pose [4, 4] between two planes, perpendicular to its axis, around the head's origin."""
    axis = pose[:3, 2]
    depth = -(pose[:3, 3] * axis).sum()
    slant = (rays.directions * axis).sum(-1, keepdim=True)
    return Rays(rays.origins, rays.directions, (depth - TORSO_FRONT) / slant, (depth + TORSO_BACK) / slant)


def colour_samples(density: Tensor, colour: Tensor) -> FieldSamples:
    """Samples that have density [*, 1] and features [*, C] alone."""
    none = density.new_zeros(*density.shape[:-1], 0)
    return FieldSamples(density, colour, none, none, none)
