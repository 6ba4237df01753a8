"""The disentangling head NeRF: one person's head from codes of identity, expression, albedo and illumination that can be
exchanged one by one (Shen, Xu and Mu; on the body of HeadNeRF, Hong et al. 2022)."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.geometry import pixel_grid
from s3dnerf.models.ad_nerf import colour_samples, head_rays, single_rays
from s3dnerf.models.person import FRAMES, Person
from s3dnerf.networks.code_extractor import CodeExtractor
from s3dnerf.networks.implicit_field import ImplicitField
from s3dnerf.networks.lip_module import LipModule, on_sphere
from s3dnerf.networks.neural_renderer import NeuralRenderer
from s3dnerf.networks.regions import FaceRegions
from s3dnerf.networks.torso import PseudoTorso
from s3dnerf.rendering.renderer import CoarseToFineRenderer
from s3dnerf.types import Cameras, Condition, FieldSamples, PersonRendering, PersonVideo, TensorRecord

THIN = 0.02
"""opacity of a cell of the feature map below which nothing of the head is near"""


@dataclass(frozen=True)
class HeadCodes(TensorRecord):
    """What a head is made of, frame by frame; `dataclasses.replace` exchanges one code with the others held."""

    identity: Tensor
    """[F, I]"""
    expression: Tensor
    """[F, E] on a sphere (`networks.lip_module.on_sphere`)."""
    eyes: Tensor
    """[F, 1] eye opening, see `types.Condition`."""
    albedo: Tensor
    """[F, A]"""
    illumination: Tensor
    """[F, L]"""


@dataclass(frozen=True)
class HeadPicture(TensorRecord):
    """A head by itself."""

    colour: Tensor
    """[F, 3, S, S] in [0, 1]."""
    opacity: Tensor
    """[F, 1, S, S] in [0, 1]."""
    cells: Tensor
    """[F, 1, h, h] in [0, 1]: opacity of the feature map's cells, before a picture is made of them."""
    depth: Tensor
    """[F, 1, h, h] of these cells, distance from the camera; 0 where there is nothing."""


class DisentangledHead(Person):
    """One person's talking head; see `Person`.

    A field tells density and features of points from identity, expression, albedo and illumination codes; features are
    volume rendered to a map of few pixels, and a 2-D net makes the head's picture of it. Identity and albedo are learned
    once for the recording, expression and illumination for every frame of it; albedo and illumination also for a fixed set
    of changed colours and lights (`networks.variation`). The lip module says the expression of speech or of tracked lips.

    Args:
        image_size: see `Person`; `resolution` times a power of two, by the number of `renderer_widths`.
        features: see `Person`.
        readout: see `Person`.
        code_size: see `Person`.
        speech_width: see `Person`.
        dropout: see `Person`.
        token_channels: see `Person`.
        identity_size: numbers of the identity code.
        expression_size: numbers of the expression code.
        albedo_size: numbers of the albedo code.
        illumination_size: numbers of the illumination code.
        variants: changed albedos, and changed illuminations, that have a code.
        field: see `ImplicitField`; its arguments but `told` and `out_channels`.
        feature_channels: of the rendered feature map.
        resolution: side of the feature map.
        coarse_samples: see `CoarseToFineRenderer`.
        fine_samples: see `CoarseToFineRenderer`; 0 as in HeadNeRF's code.
        renderer_widths: see `NeuralRenderer`.
        kernel: see `NeuralRenderer`.
        torso: see `PseudoTorso`; its arguments but `appearance`, which it has none of.
        extractor: see `CodeExtractor`; its arguments.
        lower_face: the expression is told in the lower face alone; see `FaceRegions`.
        eye_radius: see `FaceRegions`.
        smoothing: see `Person`.
        mouth_gain: see `Person`.
    """

    def __init__(self, image_size: int = 256, features: str = "tokens", readout: str = "linear", code_size: int = 12,
                 speech_width: int = 64, dropout: float = 0.2, token_channels: int = 48, identity_size: int = 100,
                 expression_size: int = 79, albedo_size: int = 100, illumination_size: int = 27, variants: int = 6,
                 field: Optional[dict] = None, feature_channels: int = 256, resolution: int = 64, coarse_samples: int = 64,
                 fine_samples: int = 0, renderer_widths: Sequence[int] = (256, 128, 64), kernel: int = 1,
                 torso: Optional[dict] = None, extractor: Optional[dict] = None, lower_face: bool = True,
                 eye_radius: Optional[float] = 0.45, smoothing: int = 1, mouth_gain: Optional[float] = None):
        self_arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        if image_size != resolution * 2 ** (len(renderer_widths) - 1):
            raise ValueError(f"found image_size={image_size}; expected resolution {resolution} doubled once for each of "
                             f"renderer_widths after the first: {resolution * 2 ** (len(renderer_widths) - 1)}")
        super().__init__(image_size, features, readout, code_size, speech_width, dropout, token_channels, smoothing,
                         mouth_gain)
        self.arguments = self_arguments
        self.resolution, self.variants = resolution, variants
        self.regions = FaceRegions(lower_face, eye_radius)
        shape = {"width": 384, "colour_width": 192, "colour_depth": 1, "view_octaves": None} | (field or {})
        self.field = ImplicitField(identity_size + expression_size + 1, out_channels=None, **shape)
        self.late = nn.Linear(albedo_size + illumination_size, shape["colour_width"], bias=False)
        self.to_features = nn.Linear(shape["colour_width"], feature_channels)
        self.renderer = CoarseToFineRenderer(coarse_samples, fine_samples)
        self.painter = NeuralRenderer(feature_channels, renderer_widths, kernel)
        self.torso = PseudoTorso(**(torso or {}))
        self.lip_module = LipModule(code_size, expression_size)
        self.extractor = CodeExtractor(**(extractor or {}))
        self._build_codes(identity_size, expression_size, albedo_size, illumination_size)

    def _build_codes(self, identity: int, expression: int, albedo: int, illumination: int) -> None:
        self.identity = nn.Parameter(torch.randn(1, identity))
        self.expressions = nn.Parameter(torch.randn(FRAMES, expression))
        self.albedos = nn.Parameter(torch.randn(1 + self.variants, albedo))
        self.illuminations = nn.Parameter(torch.randn(1 + self.variants, illumination))
        self.frame_illuminations = nn.Parameter(torch.zeros(FRAMES, illumination))

    @torch.no_grad()
    def adopt(self, video: PersonVideo, learned: int) -> None:
        """See `Person`. Expression codes begin where the lip module puts the tracked lips."""
        super().adopt(video, learned)
        self.torso.adopt(self.head_pose(video.cameras[:learned]))
        if self.by_lips:
            codes = self.lip_module(self.lip_codes(video.mesh)[0][:min(learned, FRAMES)])
            self.expressions[:len(codes)] = codes

    def train(self, mode: bool = True) -> "DisentangledHead":
        """As ever, but rays are always looked at in the same places: two frames in a row must not differ by where they were
        looked at, or the velocity loss asks for a picture without detail, in which it does not matter."""
        super().train(mode)
        self.renderer.eval()
        return self

    # codes -------------------------------------------------------------------------------------------------------------

    def codes(self, condition: Condition, albedo: Optional[Tensor] = None,
              illumination: Optional[Tensor] = None) -> HeadCodes:
        """Codes of frames under conditions [F], the expression by the lip module; `albedo` and `illumination` [F] are
        numbers of a variant, from 1 on, or 0 (None: all 0) for what was recorded."""
        none = torch.zeros_like(condition.frame)
        light = self.illuminations[none if illumination is None else illumination]
        return HeadCodes(self.identity.expand(len(none), -1), self.lip_module(condition.code), condition.eyes,
                         self.albedos[none if albedo is None else albedo],
                         light + self._appearance(self.frame_illuminations, condition.frame))

    def learned_expressions(self, frame: Tensor) -> Tensor:
        """[F, E] the expression codes that were learned for recorded frames [F]."""
        return on_sphere(self.expressions[frame % FRAMES])

    # pictures ----------------------------------------------------------------------------------------------------------

    def feature_map(self, cameras: Cameras, codes: HeadCodes) -> tuple[Tensor, Tensor, Tensor]:
        """Features [F, C, h, h], opacity [F, 1, h, h] and depth [F, 1, h, h] as cameras [F] see the head.

        The map from a sample's inner channels to its features is linear, so it may as well be taken of their sum.
        """
        frames, side = len(codes.identity), self.resolution
        small = cameras.resized(side / self.image_size)
        owner = torch.arange(frames, device=self.identity.device).repeat_interleave(side * side)
        rays = head_rays(single_rays(small[owner], pixel_grid(side, side, self.identity).repeat(frames, 1)))
        met = torch.nonzero((rays.far > rays.near)[:, 0])[:, 0]
        whose, directions = owner[met], rays.directions[met]
        late = self.late(torch.cat([codes.albedo, codes.illumination], -1))

        def field(points: Tensor) -> FieldSamples:
            speech, lids = self.regions(points)
            own = codes.identity[whose][:, None].expand(*points.shape[:2], -1)
            told = torch.cat([own, codes.expression[whose][:, None] * speech, codes.eyes[whose][:, None] * lids], -1)
            return colour_samples(*self.field(points, told, directions[:, None].expand_as(points), late[whose][:, None]))

        _, found = self.renderer(rays[met], field)
        features = self.to_features(found.features) - (1 - found.opacity) * self.to_features.bias
        flat = features.new_zeros(len(owner), features.shape[1] + 2)
        flat = flat.index_copy(0, met, torch.cat([features, found.opacity.to(features), found.depth.to(features)], -1))
        maps = flat.unflatten(0, (frames, side, side)).permute(0, 3, 1, 2)
        return maps[:, :-2], maps[:, -2:-1].float(), maps[:, -1:].float()

    def picture(self, cameras: Cameras, codes: HeadCodes) -> HeadPicture:
        """The head as cameras [F] see it; nothing is painted where no ray has met anything near."""
        features, cells, depth = self.feature_map(cameras, codes)
        colour, change = self.painter(features)
        large = lambda maps: F.interpolate(maps, size=colour.shape[-2:], mode="bilinear", align_corners=False)
        near = large((F.max_pool2d(cells, 3, 1, 1) > THIN).float())
        return HeadPicture(colour, near * torch.sigmoid(change + torch.logit(large(cells), 0.02)), cells, depth)

    def torso_at(self, cameras: Cameras, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Opacity [F, R, 1] and colour [F, R, 3] of the torso, which goes with the head's pose, at pixels [F, R, 2]."""
        frames, count = pixels.shape[:2]
        owner = torch.arange(frames, device=pixels.device).repeat_interleave(count)
        places = (pixels * (2 / self.image_size) - 1).flatten(0, 1)
        with torch.autocast(pixels.device.type, enabled=False):  # the grid's look-up knows single precision alone
            opacity, colour, _ = self.torso(places, self.head_pose(cameras), places.new_zeros(frames, 0), owner)
        return opacity.unflatten(0, (frames, count)), colour.unflatten(0, (frames, count))

    @torch.no_grad()
    def render(self, cameras: Cameras, condition: Condition, background: Optional[Tensor] = None) -> PersonRendering:
        """See `Person`. What speech does there is not known: `ambient` is 0."""
        return self.show(cameras, self.codes(condition), background)

    @torch.no_grad()
    def show(self, cameras: Cameras, codes: HeadCodes, background: Optional[Tensor] = None) -> PersonRendering:
        """`render` for codes [T] that are already known, such as those of one frame with the expression of another."""
        frames, size = [], self.image_size
        pixels = pixel_grid(size, size, self.identity)[None]
        for number in range(len(codes.identity)):
            head = self.picture(cameras[number:number + 1], codes[number:number + 1])
            below, colour = (rows.transpose(1, 2).unflatten(-1, (size, size))
                             for rows in self.torso_at(cameras[number:number + 1], pixels))
            depth = F.interpolate(head.depth, size=(size, size), mode="nearest")
            frames.append(torch.cat([head.colour * head.opacity, head.opacity, depth, colour * below, below], 1))
        head, cover, depth, torso, below = torch.cat(frames).split([3, 1, 1, 3, 1], 1)
        behind = self.background if background is None else background.to(head)
        image = head + (1 - cover) * (torso + (1 - below) * behind)
        return PersonRendering(image, head, cover, depth, torso, below, torch.zeros_like(cover))
