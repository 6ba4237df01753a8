"""RAD-NeRF: one person's head, torso and background, learned from one recording of that person (Tang et al. 2022)."""
from __future__ import annotations

from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.geometry import pixel_directions, pixel_grid, project
from s3dnerf.models.person import FRAMES, PATH, Person
from s3dnerf.networks.decomposed_field import DecomposedField
from s3dnerf.networks.torso import PseudoTorso
from s3dnerf.rendering.occupancy import OccupancyGrid, PackedRenderer
from s3dnerf.types import Cameras, Condition, PackedColours, PersonRendering, PersonVideo, PointSamples, Rays

LOW, HIGH = (-1.2, -1.75, -1.1), (1.2, 1.25, 1.35)
"""The box that holds the head, head frame."""
CENTRE, RADII = (0.0, -0.28, 0.15), (1.2, 1.5, 1.25)
"""An ellipsoid beyond which nothing of the head is, head frame; it stops above the shoulders."""
CLEAR = 0.15
"""Head units before the tracked face where nothing is."""


class RADNeRF(Person):
    """One person's talking head; see `Person`.

    Args:
        image_size: see `Person`.
        features: see `Person`.
        readout: see `Person`.
        code_size: see `Person`.
        speech_width: see `Person`.
        dropout: see `Person`.
        token_channels: see `Person`.
        field: see `DecomposedField`; its arguments but `code_size`.
        torso: see `PseudoTorso`; its arguments. None leaves the torso out.
        resolution: cells of the occupancy grid along every axis.
        step: length of a step along a ray, head units.
        samples: most occupied steps per ray.
        smoothing: see `Person`.
        mouth_gain: see `Person`.
    """

    def __init__(self, image_size: int = 256, features: str = "tokens", readout: str = "linear", code_size: int = 12,
                 speech_width: int = 64, dropout: float = 0.2, token_channels: int = 48, field: Optional[dict] = None,
                 torso: Optional[dict] = {}, resolution: int = 48, step: float = 0.04, samples: int = 16, smoothing: int = 1,
                 mouth_gain: Optional[float] = None):
        self_arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(image_size, features, readout, code_size, speech_width, dropout, token_channels, smoothing,
                         mouth_gain)
        self.arguments = self_arguments
        self.field = DecomposedField(code_size=code_size, **(field or {}))
        self.torso = None if torso is None else PseudoTorso(**torso)
        if torso is not None and self.torso.body:
            self.path_body = torch.zeros(PATH, 4)
        self.grid = OccupancyGrid(LOW, HIGH, resolution)
        self.renderer = PackedRenderer(step, samples)
        wanted = (field or {}).get("appearance", 4), (torso or {}).get("appearance", 0)
        self.head_codes, self.torso_codes = (nn.Parameter(torch.zeros(FRAMES, size)) for size in wanted)

    # the person --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def adopt(self, video: PersonVideo, learned: int) -> None:
        """Takes over what a recording shows without learning: background, camera, head motion, where the head may be."""
        super().adopt(video, learned)
        if self.torso is not None:
            self.torso.adopt(self.head_pose(video.cameras[:learned]), video.body[:learned])
        some = torch.linspace(0, learned - 1, min(learned, 40)).long()
        centres = self.grid.centres()
        ball = ((centres - centres.new_tensor(CENTRE)) / centres.new_tensor(RADII)).norm(dim=-1) < 1
        free = before_face(centres, video.mesh.mean(0))
        self.grid.exclude(~(ball & visual_hull(centres, video.cameras[some], video.head[some])) | free)

    def field_of(self, condition: Condition, rays: int):
        """The field as the renderer wants it, for rays of which `rays` in a row belong to each frame of `condition` [F]."""
        appearance = self._appearance(self.head_codes, condition.frame)

        def look(points: Tensor, directions: Tensor, ray: Tensor) -> PointSamples:
            return self.field(points, self._in_box(points), directions, condition.code, condition.eyes, appearance,
                              ray // rays)

        return look

    def density_of(self, condition: Condition):
        """Density [N, 1] of points [N, 3], each under a frame of `condition` [F] drawn at random."""

        def density(points: Tensor) -> Tensor:
            owner = torch.randint(len(condition.code), points.shape[:1], device=points.device)
            parts = zip(points.split(2 ** 15), owner.split(2 ** 15))
            return torch.cat([self.field.density(part, self._in_box(part), condition.code, condition.eyes, whose)[0]
                              for part, whose in parts])

        return density

    def _in_box(self, points: Tensor) -> Tensor:
        return (points - self.grid.low) / (self.grid.high - self.grid.low)

    # pictures ----------------------------------------------------------------------------------------------------------

    def look(self, cameras: Cameras, condition: Condition, pixels: Tensor) -> tuple[PackedColours, Tensor, Tensor]:
        """The head along rays through pixels [F, R, 2] of cameras [F], [F * R]; and the torso's opacity [F * R, 1] and
        colour [F * R, 3] there."""
        frames, count = pixels.shape[:2]
        head = self.renderer(pixel_rays(cameras, pixels).map(lambda x: x.flatten(0, 1)), self.field_of(condition, count),
                             self.grid)
        if self.torso is None:
            empty = torch.zeros_like(head.opacity)
            return head, empty, empty.expand(-1, 3)
        owner = torch.arange(frames, device=pixels.device).repeat_interleave(count)
        places = (pixels * (2 / self.image_size) - 1).flatten(0, 1)
        opacity, colour, _ = self.torso(places, self.head_pose(cameras), self._appearance(self.torso_codes, condition.frame),
                                        owner, condition.body)
        return head, opacity, colour

    @torch.no_grad()
    def render(self, cameras: Cameras, condition: Condition, background: Optional[Tensor] = None) -> PersonRendering:
        """Whole frames as cameras [T] see them under conditions [T]; each is computed by itself.

        `background` [3, S, S] takes the place of what was recorded behind the person.
        """
        size = self.image_size
        grid = pixel_grid(size, size, self.background)[None]
        parts = []
        for number in range(len(condition.code)):
            head, opacity, colour = self.look(cameras[number:number + 1], condition[number:number + 1], grid)
            parts.append(torch.cat([head.colour, head.opacity, head.depth, head.ambient, colour * opacity, opacity], -1))
        layers = torch.stack(parts).transpose(1, 2).unflatten(-1, (size, size))
        head, cover, depth, ambient, torso, below = layers.split([3, 1, 1, 1, 3, 1], 1)
        behind = self.background if background is None else background.to(head)
        image = head + (1 - cover) * (torso + (1 - below) * behind)
        return PersonRendering(image, head, cover, depth, torso, below, ambient)


def pixel_rays(cameras: Cameras, pixels: Tensor) -> Rays:
    """Rays [F, R] through pixels [F, R, 2] of cameras [F], from the cameras on."""
    pose = cameras.camera_to_world
    directions = F.normalize(pixel_directions(pixels, cameras), dim=-1) @ pose[..., :3, :3].transpose(-1, -2)
    origins = pose[..., None, :3, 3].expand_as(directions)
    zero = torch.zeros_like(directions[..., :1])
    return Rays(origins, directions, zero, zero + torch.inf)


def visual_hull(points: Tensor, cameras: Cameras, masks: Tensor) -> Tensor:
    """[*] bool: points [*, 3] that nearly all of cameras [T] see within, or next to, their masks [T, h, w], or beyond the
    picture's edge."""
    flat = points.reshape(-1, 3)
    inside = torch.zeros(len(flat), device=flat.device)
    wide = F.max_pool2d(masks.float()[:, None], 3, 1, 1)[:, 0]
    for camera, mask in zip(range(len(masks)), wide):
        size = mask.shape[-1]
        cell = (project(flat, cameras[camera])[0] / 4).floor().long()
        outside = ((cell < 0) | (cell >= size)).any(-1)
        x, y = cell.clamp(0, size - 1).unbind(-1)
        inside += (mask[y, x] > 0) | outside
    return (inside > 0.9 * len(masks)).view(points.shape[:-1])


def before_face(points: Tensor, mesh: Tensor) -> Tensor:
    """[*] bool: points [*, 3] more than `CLEAR` in front of the tracked face [478, 3]. Its depth is known; a minute of a head that
    hardly turns tells depth badly."""
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    face, flat = mesh.cpu().numpy(), points.reshape(-1, 3).cpu().numpy()
    front = LinearNDInterpolator(face[:, :2], face[:, 2])(flat[:, :2])
    beside = np.isnan(front)
    front[beside] = NearestNDInterpolator(face[:, :2], face[:, 2])(flat[beside, :2])
    return torch.from_numpy(flat[:, 2] < front - CLEAR).view(points.shape[:-1]).to(points.device)
