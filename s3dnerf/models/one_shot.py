"""S3D-NeRF: one photo and speech in, frames from any camera out."""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s3dnerf.device import constant
from s3dnerf.face import FaceCode
from s3dnerf.geometry import HEAD_BACK, HEAD_FRONT, cast_rays, pixel_grid, project, seen_shift
from s3dnerf.models.fused_march import fusable, marched
from s3dnerf.models.places import border_fade, face_window_of, look_up, part, person_at, repeated, rests, with_inside
from s3dnerf.networks.appearance import HierarchicalAppearanceEncoder
from s3dnerf.networks.deformation import CrossModalDeformationField, Deformation, smooth, to_face_box
from s3dnerf.networks.mesh_motion import LASHES, RAYS, MeshFlow, MeshMotion, NoMeshMotion
from s3dnerf.networks.radiance import RadianceField
from s3dnerf.networks.speech import TOKENS, SpeechEncoder
from s3dnerf.networks.speech_features import MelFeatures, TransformerFeatures
from s3dnerf.networks.super_resolution import HalfSuperResolution, SuperResolution, resize
from s3dnerf.networks.surroundings import Surroundings, head_motion
from s3dnerf.networks.triplane import SlotFusion, sample_planes
from s3dnerf.precision import half_on_gpu, raised
from s3dnerf.rendering.occupied import Occupancy, ask_resting, render_occupied
from s3dnerf.rendering.renderer import CoarseToFineRenderer
from s3dnerf.stopwatch import stage
from s3dnerf.types import (Appearance, Cameras, Clip, FieldSamples, Motion, Portrait, RayColours, Rays, Rendering,
                           TensorRecord, Window)

JAW = (0.8, 1.0)
"""Between these heights, head frame, what is rendered passes from the jaw, which goes with the head, to the neck."""


@dataclass(frozen=True)
class FaceFlow(TensorRecord):
    """What moves a face: the landmarks' share and the learned one."""

    mesh: MeshFlow
    """[B, T]"""
    lattice: Optional[Deformation]
    """[B, T, G] on the lattice; None where the field is evaluated at the points themselves."""


@dataclass(frozen=True)
class Surface(TensorRecord):
    """Where a rendered surface is looked at again, at full resolution."""

    cameras: Cameras
    """[B, T] of whole frames."""
    rays: Rays
    """[B, T, R] that were rendered."""
    seen: Cameras
    """[B, T] of the windows."""
    flow: MeshFlow
    """[B, T]"""


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
        plane_stride: pixels of the photo per cell of the finest tri-plane, 2 or 4.
        fused_channels: size of the vector into which a point's features are fused for the deformation field.
        width: channels of the deformation field, and of the decoder.
        decoder_width: channels of the decoder where they are not `width`.
        heads: attention heads.
        modulation_channels: channels of the feature modulation.
        lattice: points along x, y, z of the lattice that carries the deformation.
        evaluation: "lattice", or "point" to evaluate the deformation at every sample (the paper's way, slow).
        mode: "both", "deform", "modulate" or "none".
        attention: False replaces cross attention by plain concatenation.
        cross_modal: False hides the photo from the deformation field.
        mesh_motion: landmarks carry the face; False leaves all motion to the deformation field, as in the paper.
        token_channels: size of a speech token.
        speech_width: channels of the speech encoder.
        coarse_samples: points per ray of the first pass.
        fine_samples: points per ray added by the second.
        importance: place the second pass by the first one's weights.
        feature_channels: rendered channels, the first three are colour.
        super_resolution_channels: channels at a quarter and at half of the output's resolution, and, where there is a third
            number, at all of it; None leaves the super-resolution head out.
        warp: look the photo's pixels up at the rendered source coordinate; False takes the rendered colour over the photo in
            their place, as in the paper.
        stride: pixels of the frame per ray.
        speech: "mel", or hub name or folder of a wav2vec2 / HuBERT encoder.
        mouth_gain: factor on the lip code regressed from speech, which undoes its regression to the mean.
        detail: share, of what a rendering of the photo itself lacks of it, that is added to every frame (`with_detail`).
    """

    def __init__(self, image_size: int = 256, encoder_channels: Sequence[int] = (24, 48, 64, 96), encoder_blocks: int = 1,
                 backbone: Optional[str] = None, backbone_weights: Optional[str] = None, plane_channels: int = 12,
                 plane_stride: int = 4, fused_channels: int = 32, width: int = 48, decoder_width: Optional[int] = None,
                 heads: int = 2, modulation_channels: int = 24, lattice: tuple[int, int, int] = (18, 20, 8),
                 evaluation: str = "lattice", mode: str = "both", attention: bool = True, cross_modal: bool = True,
                 mesh_motion: bool = True, token_channels: int = 48, speech_width: int = 128, coarse_samples: int = 8,
                 fine_samples: int = 8, importance: bool = True, feature_channels: int = 16,
                 super_resolution_channels: Optional[tuple[int, ...]] = (48, 32), warp: bool = True, stride: int = 4,
                 speech: str = "mel", mouth_gain: float = 1.0,
                 detail: float = 0.2):
        self_arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if evaluation not in ("lattice", "point"):
            raise ValueError(f"found evaluation={evaluation!r}; expected lattice or point")
        self.arguments = self_arguments
        self.image_size, self.stride, self.evaluation, self.mouth_gain = image_size, stride, evaluation, mouth_gain
        self.warp, self.detail, self.recompute = warp, detail, False
        scales = len(encoder_channels)
        self.face_code = FaceCode()
        self.encoder = HierarchicalAppearanceEncoder(encoder_channels, plane_channels, encoder_blocks, backbone,
                                                     backbone_weights, plane_stride)
        self.fusion = SlotFusion(plane_channels, fused_channels, scales=scales)
        self.speech = SpeechEncoder(self.features.channels, speech_width, token_channels, FaceCode.size - 1)
        self.no_speech = nn.Parameter(torch.randn(TOKENS, token_channels) * 0.1)
        self.deformation = CrossModalDeformationField(fused_channels, token_channels, FaceCode.size, width, heads,
                                                      modulation_channels, lattice, mode=mode, attention=attention,
                                                      cross_modal=cross_modal)
        self.mesh_motion = MeshMotion() if mesh_motion else NoMeshMotion()
        self.surroundings = Surroundings()
        self.radiance = RadianceField(scales * plane_channels, modulation_channels, decoder_width or width, feature_channels)
        self.renderer = CoarseToFineRenderer(coarse_samples, fine_samples, importance)
        self.super_resolution = None
        if super_resolution_channels is not None:
            self.super_resolution = SuperResolution(feature_channels, *super_resolution_channels)

    @cached_property
    def features(self):
        """The speech features that this model was built for (`SpeechFeatures`); they have no weights of this model's own."""
        name = self.arguments["speech"]
        return MelFeatures() if name == "mel" else TransformerFeatures(name)

    @cached_property
    def half_super_resolution(self) -> HalfSuperResolution:
        """A copy for inference, of the weights as they are when it is first asked for; it has none of its own."""
        return HalfSuperResolution(self.super_resolution).requires_grad_(False)

    def encode(self, portrait: Portrait) -> Appearance:
        """Everything that does not change from frame to frame, of portraits [B]."""
        return self.appearance(self.encoder(portrait.image, portrait.mask), portrait)

    def appearance(self, planes: Sequence[Tensor], portrait: Portrait, detail: Optional[Tensor] = None) -> Appearance:
        """The same, of portraits whose tri-planes are given, one per scale, each [B, 3, C, h, w]."""
        lattice = self.deformation.lattice_points(portrait.image).expand(len(portrait.image), -1, -1)
        code = self.face_code.absolute(portrait.mesh)
        appearance = Appearance(planes, lattice, portrait, code, detail)
        return replace(appearance, lattice=self._fuse(appearance, lattice))

    def with_detail(self, appearance: Appearance) -> Appearance:
        """The same, with what a rendering of the photo's own face, seen by its own camera, lacks of the photo: grain and
        marks that no network has to know. Costs the rendering of one frame."""
        if not self.warp:
            return appearance
        portrait = appearance.portrait
        motion = self.drive_face(self.face_code.own(portrait.mesh)[:, None])
        shown = self.render(replace(appearance, detail=None), motion, portrait.cameras.map(lambda x: x[:, None]))
        return replace(appearance, detail=(portrait.image - shown.image[:, 0]) * (1 - shown.painted[:, 0]))

    def with_occupancy(self, appearance: Appearance, samples: int, half: bool = False) -> Appearance:
        """The same, with a grid that says where the head is, so that `render` asks the field about no more than `samples`
        points per ray, where something is; with super-resolution in `half` the precision. Faster, and not quite the same
        picture; costs the rendering of one frame."""
        motion = self.drive_face(self.face_code.own(appearance.portrait.mesh)[:, None])
        points = Occupancy.points(appearance.lattice)
        spread = points.flatten(0, 2)[None, None, :, None].expand(len(motion.code), -1, -1, -1, -1)
        found = self.field(appearance, motion, spread, self.flow(appearance, motion))
        density = found.density.reshape(-1, 1, *points.shape[:3])
        return replace(appearance, occupancy=Occupancy(density, samples, half))

    def drive(self, speech: Tensor, gain: float | None = None) -> Motion:
        """Motion [B, T] from speech features [B, T, C, W]; `gain` None takes the model's own `mouth_gain`."""
        tokens, code = self.speech(speech.flatten(0, 1))
        code = raised(code) * (self.mouth_gain if gain is None else gain)
        code = torch.cat([code, torch.zeros_like(code[:, :1])], -1)
        return Motion(code, tokens).map(lambda x: x.unflatten(0, speech.shape[:2]))

    def drive_face(self, code: Tensor) -> Motion:
        """Motion [B, T] from the codes [B, T, K] of a tracked face (`FaceCode.relative`)."""
        return Motion(code, self.no_speech.expand(*code.shape[:2], -1, -1))

    def forward(self, clip: Clip) -> Rendering:
        """Frames of a clip, driven by its speech, seen by its cameras."""
        return self.render(self.encode(clip.portrait), self.drive(clip.speech), clip.cameras)

    def flow(self, appearance: Appearance, motion: Motion, evaluation: Optional[str] = None) -> FaceFlow:
        """What moves the face in frames [B, T], ready to be read at any point; `evaluation` None is the model's own, and
        "point" is cheaper where few points are read."""
        mesh = self.mesh_motion(appearance.portrait.mesh, motion.code)
        return FaceFlow(mesh, self.deform(appearance, motion) if (evaluation or self.evaluation) == "lattice" else None)

    def deform(self, appearance: Appearance, motion: Motion) -> Deformation:
        """The learned deformation on the lattice, [B, T, G]."""
        return self.deformation.on_lattice(appearance.lattice, motion, appearance.source_code)

    def displace(self, appearance: Appearance, motion: Motion, flow: FaceFlow,
                 points: Tensor) -> tuple[Deformation, Tensor]:
        """Deformation and inside of the mouth [B, T, N, 1] at points [B, T, N, 3]: landmarks and learned field together."""
        carried, inside = self.mesh_motion.read(flow.mesh, points, RAYS)
        if flow.lattice is None:
            fused = self._fuse(appearance, points.flatten(1, 2)).unflatten(1, points.shape[1:3])
            learned = self.deformation(points, fused, motion, appearance.source_code)
        else:
            learned = self.deformation.interpolate(flow.lattice, points)
        return replace(learned, offset=learned.offset + carried), inside

    def render(self, appearance: Appearance, motion: Motion, cameras: Cameras, window: Window | None = None,
               stride: int | None = None, flow: FaceFlow | None = None) -> Rendering:
        """Frames [B, T], or windows of them, seen by cameras [B, T]; repeatable in eval mode.

        `stride` is the number of pixels per ray, None for the model's own; `flow` is that of the motion, where it is known.
        """
        size, stride = self.image_size, stride or self.stride
        batch, frames = cameras.camera_to_world.shape[:2]
        if window is None:
            zero = torch.zeros(batch, device=cameras.intrinsics.device)
            window = Window(zero, zero, size, size)
        height, width = window.height // stride, window.width // stride
        seen = cameras.cropped(window.left[:, None], window.top[:, None])
        resting = appearance.occupancy is not None and rests(seen)
        rays = cast_rays((seen[:, :1] if resting else seen).resized(1 / stride), height, width)
        with stage("motion field"), half_on_gpu(appearance):
            flow = flow or self.flow(appearance, motion)
        field = partial(checkpoint, self.field, use_reentrant=False) if self.recompute else self.field
        look = lambda points: field(appearance, motion, points, flow)
        if resting:
            still = lambda points: self.field(appearance, motion[:, :1], points, flow[:, :1])
            look = partial(ask_resting, look, still, frames, lambda points: (to_face_box(points).abs() < 1).all(-1))
        with stage("ray march"):
            if fusable(self, appearance):
                coarse, fine = marched(self, appearance, rays, flow)
            elif appearance.occupancy is None:
                coarse, fine = self.renderer(rays, look)
            else:
                coarse = fine = render_occupied(rays, look, appearance.occupancy, self.renderer.coarse_samples,
                                                self.renderer.fine_samples)
        surface = Surface(cameras, rays.map(lambda x: x.expand(-1, frames, -1, -1)), seen, flow.mesh)
        return self._finish(appearance, motion.change, coarse, fine, surface, window, (batch, frames, height, width))

    def field(self, appearance: Appearance, motion: Motion, points: Tensor, flow: FaceFlow) -> FieldSamples:
        """The field at points [B, T, R, S, 3] of the observed, moving face."""
        shape = points.shape[2:4]
        points = points.flatten(2, 3)
        moved, inside = self.displace(appearance, motion, flow, points)
        place = points + moved.offset
        source, cube = self._to_source(appearance.portrait.cameras, place.flatten(1, 2))
        features = torch.cat([sample_planes(plane, cube) for plane in appearance.planes], -1).unflatten(1, points.shape[1:3])
        density, colours = self.radiance(features, place, moved.modulation, inside)
        hull = person_at(appearance.portrait.person, source.transpose(1, 2)[..., None])[:, 0]
        density = density * hull.unflatten(1, points.shape[1:3])
        colours = torch.cat([colours, inside * colours[..., :3]], -1)
        samples = FieldSamples(density, colours, source.unflatten(1, points.shape[1:3]), inside, moved.region)
        return samples.map(lambda x: x.unflatten(2, shape))

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

    def _finish(self, appearance: Appearance, change: Optional[Tensor], coarse: RayColours, fine: RayColours,
                surface: Surface, window: Window, shape: tuple[int, int, int, int]) -> Rendering:
        """Rays to images: look the photo up, put the rendered inside of the mouth in, add super-resolution."""
        portrait, (batch, frames, height, width) = appearance.portrait, shape
        image = lambda rows: rows.transpose(-1, -2).unflatten(-1, (height, width)).flatten(0, 1)
        small = self._own_place(window, height, width).repeat_interleave(frames, 0)
        large = self._own_place(window, window.height, window.width).repeat_interleave(frames, 0)
        photo = repeated(portrait.image, frames)
        own = photo if photo.shape[-2:] == (window.height, window.width) == (self.image_size,) * 2 else look_up(photo, large)
        fade = border_fade(small)
        beside, shift, shares, rest = self._follow(portrait, surface, small)
        around = small + fade * beside
        behind = look_up(photo, around)
        solid, motion, features = image(fine.opacity), image(fine.motion), image(fine.features) * fade
        opacity = solid * fade
        carried = part(shift * solid, image(fine.source) - small * solid, shares) + (small + rest) * solid
        source = carried * fade + (1 - opacity) * around
        detail, inside = self._sharpen(portrait, fine, surface, window, (height, width))
        cover = resize(opacity, window.height, window.width)
        places = large + resize(source - small, window.height, window.width) + detail * cover
        if change is not None:
            shift, shade = look_up(change.flatten(0, 1), places).split([2, 3], 1)
            places = places + shift
        raw = features[:, :3] + (1 - opacity) * behind
        pictures = [picture for picture in (portrait.image, appearance.detail) if picture is not None]
        warped, *grain = look_up(repeated(torch.cat(pictures, 1), frames), places, "bicubic").split(3, 1)
        warped = warped if change is None else warped + shade
        if not self.warp:
            warped = own + (resize(features[:, :3], window.height, window.width) - cover * own) * border_fade(large)
        inside = inside * cover
        painted = inside * (1 - surface.flow.shown.flatten(0, 1)[..., None, None])
        base = with_inside(warped, painted, features[:, -3:], image(fine.inside) * fade)
        if self.super_resolution is not None:
            maps = features[:, :-3], inside, opacity, motion, base, warped, own
            base = base + self._refine(appearance, maps) * border_fade(large)
        if grain:
            base = base + grain[0] * self._share_of_detail(places, large) * (1 - painted)
        first = image(coarse.features)[:, :3] * fade + (1 - image(coarse.opacity) * fade) * behind
        images = (base, warped, raw, first, opacity, image(fine.depth), places, inside, painted, motion)
        return Rendering(*(x.unflatten(0, (batch, frames)) for x in images))

    def _refine(self, appearance: Appearance, maps: tuple[Tensor, ...]) -> Tensor:
        """What super-resolution adds to the base image; see there."""
        half = appearance.occupancy is not None and appearance.occupancy.half
        with stage("super-resolution"):
            return (self.half_super_resolution if half else self.super_resolution)(*maps)

    def _share_of_detail(self, places: Tensor, own: Tensor) -> Tensor:
        """[N, 1, H, W] of the detail that is added where the photo is looked up at places [N, 2, H, W]: all of it where it stays
        where it is (`own`), and the model's share where it moves and may lie a pixel off."""
        moved = ((places - own) ** 2).sum(1, keepdim=True) * (self.image_size / 2) ** 2
        return torch.lerp((-moved / 2).exp(), torch.ones_like(moved), self.detail)

    def _follow(self, portrait: Portrait, surface: Surface, own: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """How far what is beside the head goes with it, [N, 2, h, w]; then, for what is rendered, the head's shift alone and
        the shares [N, 2, h, w] of it and of the turn (below the jaw they are those of the neck), and what they leave.

        `own` [N, 2, h, w] is where the rays' pixels lie in the frame. The background does not go with the head at all,
        unless it was behind the person.
        """
        rays = surface.rays
        image = lambda rows: rows.flatten(0, 1).transpose(-1, -2).unflatten(-1, own.shape[-2:])
        points = rays.origins - rays.directions * (rays.origins * rays.directions).sum(-1, keepdim=True)
        depth, *shares = self.surroundings(points)
        shares = torch.cat(shares, -1)
        there, _ = self._to_source(portrait.cameras, (points + rays.directions * depth).flatten(1, 2))
        shift = self._shift(portrait.cameras, surface.cameras, own)
        rest = image(self.surroundings.remainder(points, head_motion(portrait.cameras, surface.cameras)))
        moved = part(shift, image(there.unflatten(1, points.shape[1:3])) - own, image(shares)) + rest
        person = portrait.person.repeat_interleave(points.shape[1], 0)
        empty = (1 - person_at(person, own)) * (1 - person_at(person, own + moved))
        below = smooth((points[..., 1:2] - JAW[0]) / (JAW[1] - JAW[0]))
        return moved * (1 - empty), shift, image(1 + (shares - 1) * below), rest

    def _shift(self, photo: Cameras, cameras: Cameras, own: Tensor) -> Tensor:
        """Where a head that is carried and not turned would have what is seen at `own` [N, 2, h, w], less `own`."""
        middle = own.new_zeros(1, 1, 1, 3)
        now, away = project(middle.expand(*cameras.camera_to_world.shape[:2], -1, -1), cameras)
        then, before = project(middle[0].expand(len(photo.intrinsics), -1, -1), photo)
        unit = lambda pixels: (pixels * (2 / self.image_size) - 1)[..., 0, :]
        zoom = (away * photo.intrinsics[:, None, :1, :1] / (before[:, None] * cameras.intrinsics[..., :1, :1])).flatten(0, 1)
        now, then = unit(now).flatten(0, 1), unit(then).repeat_interleave(cameras.intrinsics.shape[1], 0)
        return then[..., None, None] + (own - now[..., None, None]) * zoom[..., None] - own

    def _sharpen(self, portrait: Portrait, fine: RayColours, surface: Surface, window: Window,
                 size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The landmarks' motion at every pixel of the rendered surface, where rays are too few for the lips' edges.

        Returns what has to be added to the upsampled source coordinate, [N, 2, H, W], and the inside of the mouth,
        [N, 1, H, W].
        """
        height, width = window.height, window.width
        image = lambda rows, h, w: rows.flatten(0, 1).transpose(-1, -2).unflatten(-1, (h, w))
        coarse, _ = self._carried(portrait, surface.flow, surface.rays, fine.depth, RAYS)
        left, top, right, bottom = face_window_of(surface.seen, height, width)
        depth = resize(image(fine.depth, *size), height, width)[..., top:bottom, left:right]
        depth = depth.flatten(2).transpose(1, 2).unflatten(0, fine.depth.shape[:2])
        seen = surface.seen.cropped(left, top)
        pixels = cast_rays(seen[:, :1] if rests(seen) else seen, bottom - top, right - left)
        sharp, inside = (F.pad(image(rows, bottom - top, right - left), (left, width - right, top, height - bottom))
                         for rows in self._carried(portrait, surface.flow, pixels, depth, LASHES))
        return sharp - resize(image(coarse, *size), height, width), inside

    def _carried(self, portrait: Portrait, flow: MeshFlow, rays: Rays, depth: Tensor,
                 lashes: float) -> tuple[Tensor, Tensor]:
        """By how much landmarks move the source coordinate of points at `depth` [B, T, R, 1], and what is inside; see
        `MeshMotion.read`."""
        points = rays.origins + rays.directions * depth
        offset, inside = self.mesh_motion.read(flow, points, lashes)
        shift = seen_shift(points.flatten(1, 2), offset.flatten(1, 2), portrait.cameras) * (2 / self.image_size)
        return shift.unflatten(1, points.shape[1:3]), inside

    def _own_place(self, window: Window, height: int, width: int) -> Tensor:
        """Where each pixel of a window lies in the frame, [B, 2, height, width] in [-1, 1]."""
        grid = pixel_grid(height, width, window.left)
        pixels = grid * constant((window.width / width, window.height / height), grid)
        pixels = pixels + torch.stack([window.left, window.top], -1)[:, None]
        return (pixels * (2 / self.image_size) - 1).transpose(1, 2).unflatten(-1, (height, width))
