"""S3D-NeRF: one photo and speech in, frames from any camera out."""
from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.face import LIPS, FaceCode
from s3dnerf.geometry import HEAD_BACK, HEAD_FRONT, cast_rays, pixel_grid, project
from s3dnerf.networks.appearance import HierarchicalAppearanceEncoder
from s3dnerf.networks.deformation import CrossModalDeformationField, Deformation
from s3dnerf.networks.radiance import RadianceField
from s3dnerf.networks.speech import TOKENS, SpeechEncoder
from s3dnerf.networks.speech_features import MelFeatures, TransformerFeatures
from s3dnerf.networks.super_resolution import SuperResolution, resize
from s3dnerf.networks.triplane import SlotFusion, sample_planes
from s3dnerf.rendering.renderer import CoarseToFineRenderer
from s3dnerf.types import (Appearance, Cameras, Clip, FieldSamples, Motion, Portrait, RayColours, Rendering, Window)

BORDER = 0.06
"""The outer share of the frame over which the head fades into the photo, so that a crop can be put back unseen."""


class S3DNeRF(nn.Module):
    """The one-shot talking head.

    The photo becomes tri-planes at several scales, once. For every frame, speech attends to points of the face and says
    where each point was in the photo (offset), how its features change (modulation) and what of it is the inside of
    the mouth. Rays are composited in two passes; the rendered *source coordinate* looks the photo's own pixels up, and
    super-resolution adds the rest. Where nothing is opaque a pixel looks at its own place: the photo's own background.

    Args:
        image_size: side of the square photo and of the frames, pixels; a multiple of 32.
        encoder_channels: width of the encoder per scale, finest first; as many tri-planes as numbers.
        encoder_blocks: residual blocks per scale.
        backbone: timm model for the encoder's features; None is the built-in net.
        backbone_weights: file of weights for the backbone.
        plane_channels: channels of each plane.
        width: channels of the deformation field and the decoder.
        heads: attention heads.
        modulation_channels: channels of the feature modulation.
        lattice: points along x, y, z of the lattice that carries the deformation.
        evaluation: "lattice", or "point" to evaluate the deformation at every sample (the paper's way, slow).
        mode: "both", "deform" or "modulate".
        attention: False replaces cross attention by plain concatenation.
        token_channels: size of a speech token.
        coarse_samples: points per ray of the first pass.
        fine_samples: points per ray added by the second.
        importance: place the second pass by the first one's weights.
        feature_channels: rendered channels, the first three are colour.
        super_resolution_channels: channels at a quarter and at half of the output's resolution; None leaves the
            super-resolution head out.
        stride: pixels of the frame per ray.
        speech: "mel", or hub name or folder of a wav2vec2 / HuBERT encoder.
        mouth_gain: factor on the lip code regressed from speech, which undoes its regression to the mean.
    """

    def __init__(self, image_size: int = 256, encoder_channels: Sequence[int] = (24, 48, 64, 96), encoder_blocks: int = 1,
                 backbone: Optional[str] = None, backbone_weights: Optional[str] = None, plane_channels: int = 12,
                 width: int = 48, heads: int = 2, modulation_channels: int = 24,
                 lattice: tuple[int, int, int] = (18, 20, 8), evaluation: str = "lattice", mode: str = "both",
                 attention: bool = True, token_channels: int = 48, coarse_samples: int = 8, fine_samples: int = 8,
                 importance: bool = True, feature_channels: int = 16,
                 super_resolution_channels: Optional[tuple[int, int]] = (48, 32), stride: int = 4, speech: str = "mel",
                 mouth_gain: float = 1.0):
        self_arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if evaluation not in ("lattice", "point"):
            raise ValueError(f"found evaluation={evaluation!r}; expected lattice or point")
        self.arguments = self_arguments
        self.image_size, self.stride, self.evaluation, self.mouth_gain = image_size, stride, evaluation, mouth_gain
        scales = len(encoder_channels)
        self.face_code = FaceCode()
        self.encoder = HierarchicalAppearanceEncoder(encoder_channels, plane_channels, encoder_blocks, backbone,
                                                     backbone_weights)
        self.fusion = SlotFusion(plane_channels, 32, scales=scales)
        self.speech = SpeechEncoder(self.features.channels, token_channels=token_channels, code_size=FaceCode.size - 1)
        self.no_speech = nn.Parameter(torch.randn(TOKENS, token_channels) * 0.1)
        self.deformation = CrossModalDeformationField(32, token_channels, FaceCode.size, width, heads, modulation_channels,
                                                      lattice, mode=mode, attention=attention)
        self.radiance = RadianceField(scales * plane_channels, modulation_channels, width, feature_channels)
        self.renderer = CoarseToFineRenderer(coarse_samples, fine_samples, importance)
        self.super_resolution = None
        if super_resolution_channels is not None:
            self.super_resolution = SuperResolution(feature_channels, *super_resolution_channels)

    @cached_property
    def features(self):
        """The speech features that this model was built for (`SpeechFeatures`); they have no weights of this model's own."""
        name = self.arguments["speech"]
        return MelFeatures() if name == "mel" else TransformerFeatures(name)

    def encode(self, portrait: Portrait) -> Appearance:
        """Everything that does not change from frame to frame, of portraits [B]."""
        planes = self.encoder(portrait.image, portrait.mask)
        lattice = self.deformation.lattice_points(portrait.image).expand(len(portrait.image), -1, -1)
        code = self.face_code.absolute(portrait.mesh)
        appearance = Appearance(planes, lattice, portrait, code)
        return replace(appearance, lattice=self._fuse(appearance, lattice))

    def drive(self, speech: Tensor, gain: float | None = None) -> Motion:
        """Motion [B, T] from speech features [B, T, C, W]; `gain` None takes the model's own `mouth_gain`."""
        tokens, code = self.speech(speech.flatten(0, 1))
        code = code * (self.mouth_gain if gain is None else gain)
        code = torch.cat([code, torch.zeros_like(code[:, :1])], -1)
        return Motion(code, tokens).map(lambda x: x.unflatten(0, speech.shape[:2]))

    def drive_face(self, code: Tensor) -> Motion:
        """Motion [B, T] from the codes [B, T, K] of a tracked face (`FaceCode.relative`)."""
        return Motion(code, self.no_speech.expand(*code.shape[:2], -1, -1))

    def forward(self, clip: Clip) -> Rendering:
        """Frames of a clip, driven by its speech, seen by its cameras."""
        return self.render(self.encode(clip.portrait), self.drive(clip.speech), clip.cameras)

    def deform(self, appearance: Appearance, motion: Motion) -> Deformation:
        """The deformation on the lattice, [B, T, G]."""
        points = self.deformation.lattice_points(motion.code)[None, None]
        return self.deformation(points, appearance.lattice[:, None], motion, appearance.source_code)

    def deform_points(self, appearance: Appearance, motion: Motion, points: Tensor) -> Deformation:
        """The deformation evaluated at points [B, T, N, 3] themselves."""
        fused = self._fuse(appearance, points.flatten(1, 2)).unflatten(1, points.shape[1:3])
        return self.deformation(points, fused, motion, appearance.source_code)

    def render(self, appearance: Appearance, motion: Motion, cameras: Cameras, window: Window | None = None,
               stride: int | None = None) -> Rendering:
        """Frames [B, T], or windows of them, seen by cameras [B, T]; repeatable in eval mode.

        `stride` is the number of pixels per ray, None for the model's own.
        """
        size, stride = self.image_size, stride or self.stride
        batch, frames = cameras.camera_to_world.shape[:2]
        if window is None:
            zero = torch.zeros(batch, device=cameras.intrinsics.device)
            window = Window(zero, zero, size, size)
        height, width = window.height // stride, window.width // stride
        rays = cast_rays(cameras.cropped(window.left[:, None], window.top[:, None]).resized(1 / stride), height, width)
        lattice = self.deform(appearance, motion) if self.evaluation == "lattice" else None
        coarse, fine = self.renderer(rays, lambda points: self.field(appearance, motion, points, lattice))
        return self._finish(appearance.portrait, coarse, fine, window, (batch, frames, height, width))

    def field(self, appearance: Appearance, motion: Motion, points: Tensor, lattice: Deformation | None) -> FieldSamples:
        """The field at points [B, T, R, S, 3] of the observed, moving face."""
        shape = points.shape[2:4]
        points = points.flatten(2, 3)
        if lattice is None:
            moved = self.deform_points(appearance, motion, points)
        else:
            moved = self.deformation.interpolate(lattice, points)
        place = points + moved.offset
        flat = place.flatten(1, 2)
        source, cube = self._to_source(appearance.portrait.cameras, flat)
        features = torch.cat([sample_planes(plane, cube) for plane in appearance.planes], -1).unflatten(1, points.shape[1:3])
        gate = self.gate(appearance, points, place, moved.modulation)
        density, colours = self.radiance(features, place, moved.modulation, gate)
        colours = torch.cat([colours, gate * colours[..., :3]], -1)
        samples = FieldSamples(density, colours, source.unflatten(1, points.shape[1:3]), gate, moved.region)
        return samples.map(lambda x: x.unflatten(2, shape))

    def gate(self, appearance: Appearance, points: Tensor, place: Tensor, modulation: Tensor) -> Tensor:
        """Share [B, T, N, 1] of inside-of-the-mouth at `points` [B, T, N, 3] that deform to `place`."""
        lips = appearance.portrait.mesh[:, list(LIPS)]
        centre = lips.mean(1)[:, None, None]
        half_width = ((lips[..., 0].amax(1) - lips[..., 0].amin(1)) / 2).clamp_min(0.1)[:, None, None, None]
        return self.radiance.gate_value(modulation, (points - centre) / half_width, (place - centre) / half_width)

    def _fuse(self, appearance: Appearance, points: Tensor) -> Tensor:
        """Fused features [B, N, F] of points [B, N, 3] of the photo's face."""
        _, cube = self._to_source(appearance.portrait.cameras, points)
        scales = torch.stack([sample_planes(plane, cube) for plane in appearance.planes], 2)
        return self.fusion(scales.flatten(0, 1)).unflatten(0, points.shape[:2])

    def _to_source(self, cameras: Cameras, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where points [B, N, 3] lie in the photo, [B, N, 2], and in the cube of the tri-planes, [B, N, 3]."""
        pixels, depth = project(points, cameras)
        source = pixels * (2 / self.image_size) - 1
        head_depth = cameras.camera_to_world[:, :3, 3].norm(dim=-1)[:, None, None]
        through = (2 * (depth - head_depth) + HEAD_FRONT - HEAD_BACK) / (HEAD_FRONT + HEAD_BACK)
        return source, torch.cat([source, through], -1)

    def _finish(self, portrait: Portrait, coarse: RayColours, fine: RayColours, window: Window,
                shape: tuple[int, int, int, int]) -> Rendering:
        """Rays to images: look the photo up, put the rendered inside of the mouth in, add super-resolution."""
        batch, frames, height, width = shape
        image = lambda rows: rows.transpose(-1, -2).unflatten(-1, (height, width)).flatten(0, 1)
        small = self._own_place(window, height, width).repeat_interleave(frames, 0)
        large = self._own_place(window, window.height, window.width).repeat_interleave(frames, 0)
        photo = portrait.image.repeat_interleave(frames, 0)
        behind = look_up(photo, small)
        fade = border_fade(small)
        opacity, inside = image(fine.opacity) * fade, image(fine.inside) * fade
        source = image(fine.source) * fade + (1 - opacity) * small
        shift = resize(source - small, window.height, window.width)
        warped = look_up(photo, large + shift)
        features = image(fine.features) * fade
        raw = features[:, :3] + (1 - opacity) * behind
        base = self._with_inside(warped, inside, features[:, -3:])
        if self.super_resolution is not None:
            base = base + self.super_resolution(features[:, :-3], inside, opacity, image(fine.motion), base,
                                                look_up(photo, large)) * border_fade(large)
        first = image(coarse.features)[:, :3] * fade + (1 - image(coarse.opacity) * fade) * behind
        images = (base, warped, raw, first, opacity, image(fine.depth), source, inside, image(fine.motion))
        return Rendering(*(x.unflatten(0, (batch, frames)) for x in images))

    @staticmethod
    def _with_inside(warped: Tensor, inside: Tensor, colour: Tensor) -> Tensor:
        """The inside of the mouth, `colour` already weighted by `inside`, over the warped photo."""
        height, width = warped.shape[-2:]
        return warped * (1 - resize(inside, height, width)) + resize(colour, height, width)

    def _own_place(self, window: Window, height: int, width: int) -> Tensor:
        """Where each pixel of a window lies in the frame, [B, 2, height, width] in [-1, 1]."""
        grid = pixel_grid(height, width, window.left)
        pixels = grid * grid.new_tensor([window.width / width, window.height / height])
        pixels = pixels + torch.stack([window.left, window.top], -1)[:, None]
        return (pixels * (2 / self.image_size) - 1).transpose(1, 2).unflatten(-1, (height, width))


def look_up(images: Tensor, places: Tensor) -> Tensor:
    """Images [N, 3, H, W] read at places [N, 2, h, w] in [-1, 1], bilinear; outside the border it repeats."""
    return F.grid_sample(images, places.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def border_fade(places: Tensor) -> Tensor:
    """[N, 1, h, w]: 1 inside the frame, falling smoothly to 0 over its outer `BORDER`; `places` [N, 2, h, w] in [-1, 1]."""
    rise = ((1 - places.abs()) / (2 * BORDER)).clamp(0, 1)
    return (rise * rise * (3 - 2 * rise)).prod(1, keepdim=True)
