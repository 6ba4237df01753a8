"""RAD-NeRF: one person's head, torso and background, learned from one recording of that person (Tang et al. 2022)."""
from __future__ import annotations

from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.face import FaceCode
from s3dnerf.geometry import euler_from_rotation, pixel_directions, pixel_grid, project, rigid_inverse
from s3dnerf.media import frame_count
from s3dnerf.networks.decomposed_field import DecomposedField
from s3dnerf.networks.speech import TOKENS, SpeechEncoder
from s3dnerf.networks.speech_attention import SpeechAttention, neighbours, smooth
from s3dnerf.networks.speech_features import MelFeatures
from s3dnerf.networks.torso import PseudoTorso
from s3dnerf.rendering.occupancy import OccupancyGrid, PackedRenderer
from s3dnerf.types import Cameras, Condition, PackedColours, PersonRendering, PersonVideo, PointSamples, Rays

LOW, HIGH = (-1.2, -1.75, -1.1), (1.2, 1.25, 1.35)
"""The box that holds the head, head frame."""
CENTRE, RADII = (0.0, -0.28, 0.15), (1.2, 1.5, 1.25)
"""An ellipsoid beyond which nothing of the head is, head frame; it stops above the shoulders."""
CLEAR = 0.15
"""Head units before the tracked face where nothing is."""
PATH = 250
"""frames of the recording's own head motion that go with the weights"""
TOGETHER = 256
"""frames that are listened to at once"""
FRAMES = 10_000
"""appearance codes; frames beyond share them"""


class RADNeRF(nn.Module):
    """One person's talking head.

    Speech becomes a code of 12 numbers, the lip code of `face.FaceCode`, so that tracked lips can drive the same head and
    teach it; with `code_size` other than 12 it is a code without a meaning, as in the paper.

    Args:
        image_size: side of the square frames, pixels.
        features: what the speech attention sees: "tokens" of the one-shot model's speech encoder, which has heard many
            people and stays as it is, with the mel bands beside them, or "mel" alone.
        readout: how the speech attention reads a frame's window: "linear" (a lip code from tokens, found in closed form) or
            "convolution", as in the paper.
        code_size: numbers of the speech code.
        speech_width: channels of the speech attention.
        dropout: of the speech attention.
        token_channels: size of a token; must fit the speech encoder that is loaded.
        field: see `DecomposedField`; its arguments but `code_size`.
        torso: see `PseudoTorso`; its arguments. None leaves the torso out.
        resolution: cells of the occupancy grid along every axis.
        step: length of a step along a ray, head units.
        samples: most occupied steps per ray.
        smoothing: frames that the speech code is averaged over when it is not learned from, odd.
        mouth_gain: factor on the lip code regressed from speech; None is the one at which lips open as far as tracked ones
            do in what is learned from (`match_spread`): what is regressed is always too timid.
    """

    def __init__(self, image_size: int = 256, features: str = "tokens", readout: str = "linear", code_size: int = 12,
                 speech_width: int = 64, dropout: float = 0.2, token_channels: int = 48, field: Optional[dict] = None,
                 torso: Optional[dict] = {}, resolution: int = 48, step: float = 0.04, samples: int = 16, smoothing: int = 1,
                 mouth_gain: Optional[float] = None):
        self_arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if features not in ("tokens", "mel"):
            raise ValueError(f"found features={features!r}; expected tokens or mel")
        if readout not in ("linear", "convolution") or (readout == "linear" and code_size != FaceCode.size - 1):
            raise ValueError(f"found readout={readout!r}; expected linear, of a code of {FaceCode.size - 1} numbers, or "
                             "convolution")
        self.arguments = self_arguments
        self.image_size, self.smoothing = image_size, smoothing
        self.face_code = FaceCode()
        self.listener = None
        if features == "tokens":
            self.listener = SpeechEncoder(MelFeatures.channels, token_channels=token_channels).requires_grad_(False)
        heard = (token_channels + MelFeatures.channels, TOKENS) if self.listener else (MelFeatures.channels, MelFeatures.window)
        self.attention = SpeechAttention(heard[0], code_size, speech_width, dropout, normalise=True,
                                         linear=heard[1] if readout == "linear" else None)
        self.field = DecomposedField(code_size=code_size, **(field or {}))
        self.torso = None if torso is None else PseudoTorso(**torso)
        self.grid = OccupancyGrid(LOW, HIGH, resolution)
        self.renderer = PackedRenderer(step, samples)
        wanted = (field or {}).get("appearance", 4), (torso or {}).get("appearance", 0)
        self.head_codes, self.torso_codes = (nn.Parameter(torch.zeros(FRAMES, size)) for size in wanted)
        self.register_buffer("seen", torch.zeros(()))  # a float, because averaging weights truncates whole numbers
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("background", torch.zeros(3, image_size, image_size))
        self.register_buffer("path", torch.eye(4).repeat(PATH, 1, 1))
        self.register_buffer("path_eyes", torch.zeros(PATH))
        self.register_buffer("intrinsics", torch.eye(3))

    @property
    def features(self) -> MelFeatures:
        """Where the windows of speech come from."""
        return MelFeatures()

    @property
    def by_lips(self) -> bool:
        """Whether the speech code is a lip code, which tracked lips have too."""
        return self.arguments["code_size"] == FaceCode.size - 1

    # speech ------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def listen(self, mel: Tensor) -> Tensor:
        """Features [T, C, W] of the mel windows [T, 80, 40] of frames."""
        if self.listener is None:
            return mel
        training = self.listener.training
        self.listener.eval()
        tokens = torch.cat([self.listener(part)[0].transpose(1, 2) for part in mel.split(TOGETHER)])
        self.listener.train(training)
        return torch.cat([tokens, F.adaptive_avg_pool1d(mel, TOKENS)], 1)

    def hear(self, heard: Tensor, frames: Tensor) -> Tensor:
        """Speech codes [N, K] of the frames [N] of a recording whose features are `heard` [T, C, W]."""
        return self.attention(neighbours(heard, frames))

    @torch.no_grad()
    def speech_codes(self, sound: Tensor, gain: Optional[float] = None) -> Tensor:
        """Speech codes [T, K] of all frames of a recording [N] at 16 kHz, smoothed and, where they are lip codes, amplified by
        `gain` (None: the model's own)."""
        device, count = self.background.device, frame_count(len(sound))
        sequence = self.features.sequence(sound)
        heard = torch.cat([self.listen(self.features.windows(sequence, first, min(TOGETHER, count - first)).to(device))
                           for first in range(0, count, TOGETHER)])
        codes = torch.cat([self.hear(heard, part) for part in torch.arange(count, device=device).split(TOGETHER)])
        return smooth(codes, self.smoothing) * ((self.mouth_gain if gain is None else gain) if self.by_lips else 1.0)

    @property
    def mouth_gain(self) -> float:
        """Factor on the lip code that is heard."""
        given = self.arguments["mouth_gain"]
        return float(self.gain) if given is None else given

    def opening(self, code: Tensor) -> Tensor:
        """[*] how far apart the inner lips of lip codes [*, 12] are, head units, against the mean face's."""
        return self.face_code.opening(F.pad(code, (0, 1)))

    @torch.no_grad()
    def match_spread(self, heard: Tensor, lips: Tensor) -> None:
        """Sets the gain that counts where the arguments leave it open: the opening heard in features [T, C, W] then has the
        spread of the tracked lips' [T, 12]. It is linear in the code, so the gain is a quotient."""
        if self.by_lips:
            codes = smooth(self.hear(heard, torch.arange(len(heard), device=heard.device)), self.smoothing)
            self.gain.copy_(self.opening(lips).std() / self.opening(codes).std().clamp_min(1e-6))

    def lip_codes(self, mesh: Tensor) -> tuple[Tensor, Tensor]:
        """Lip codes [T, 12] and eye openings [T, 1] of the tracked landmarks [T, 478, 3] of one recording."""
        return self.face_code.driving(mesh, mesh.mean(0))[:, :-1], self.face_code.absolute(mesh)[:, -1:]

    # the person --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def adopt(self, video: PersonVideo, learned: int) -> None:
        """Takes over what a recording shows without learning: background, camera, head motion, where the head may be."""
        self.background.copy_(video.background.permute(2, 0, 1) / 255)
        self.seen.fill_(min(learned, FRAMES))
        places = torch.arange(PATH) if learned >= PATH else torch.arange(PATH) % learned
        self.path.copy_(video.cameras.camera_to_world[places])
        self.path_eyes.copy_(self.lip_codes(video.mesh)[1][places, 0])
        self.intrinsics.copy_(video.cameras.intrinsics[0])
        if self.torso is not None:
            self.torso.adopt(self.head_pose(video.cameras[:learned]))
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

    def _appearance(self, codes: Tensor, frame: Tensor) -> Tensor:
        """Appearance codes [F, A]; the mean of all that were seen for frame -1."""
        mean = codes[:max(1, int(self.seen))].mean(0)
        return torch.where(frame[:, None] < 0, mean, codes[frame.clamp_min(0) % FRAMES])

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
                                        owner)
        return head, opacity, colour

    def head_pose(self, cameras: Cameras) -> Tensor:
        """[F, 6] the head's angles and place as cameras [F] see it, from the first recorded pose on."""
        head, first = rigid_inverse(cameras.camera_to_world), rigid_inverse(self.path[:1])
        angles = lambda pose: torch.stack(euler_from_rotation(pose[:, :3, :3]), -1)
        unit = lambda pose: pose[:, :2, 3] / pose[:, 2:3, 3] * first[:, 2:3, 3]
        shift = torch.cat([unit(head) - unit(first), torch.log(head[:, 2:3, 3] / first[:, 2:3, 3])], -1)
        return torch.cat([angles(head) - angles(first), shift], -1)

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
    inside = torch.zeros(len(flat))
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
