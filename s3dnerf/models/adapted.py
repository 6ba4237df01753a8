"""The one-shot model, adapted to one person by one recording of that person."""
from __future__ import annotations

from dataclasses import replace
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.errors import InputError
from s3dnerf.face import MESH_POINTS, FaceCode
from s3dnerf.geometry import project
from s3dnerf.models.one_shot import S3DNeRF, border_fade, look_up
from s3dnerf.models.person import Person
from s3dnerf.networks.low_rank import adapt, load_adapted
from s3dnerf.networks.photo_basis import PhotoBasis
from s3dnerf.networks.speech_attention import smooth
from s3dnerf.networks.super_resolution import resize
from s3dnerf.types import Appearance, Cameras, Condition, Motion, PersonVideo, Portrait, Rendering, Window

LIPS = FaceCode.size - 1
FACTORS = 7
"""the head's pose, six numbers, and the eyes: what the photo changes with"""


AROUND = 2
"""rays around the rendered head that still show it: hair and ears have soft edges"""


class AdaptedHead(Person):
    """The one-shot model with a photo, tri-planes and low-rank adapters of one person's own; see `Person`.

    The photo is the recording's most typical frame, and the tri-planes start as what the encoder makes of it: until
    something is learned, frames are those of the one-shot model, bit for bit. Within the first steps the recording's
    background plate takes the place of the photo's background, which shows the person once more where they have left. What
    is learned:

    * the tri-planes, a texture that is added to the photo, what it lacks in detail, and how hair, neck and shoulders go
      with the head (`Surroundings`);
    * how the photo shifts and shades with the head's pose and with the eyes (`PhotoBasis`);
    * adapters of what reads and moves the planes;
    * how far the person's own reading of speech, found in closed form (`SpeechAttention`), takes the place of what the
      one-shot model hears in it (`trust`).

    A speech code is a lip code of 12 numbers and, behind it, the speech tokens that the deformation field attends to;
    tracked lips have no tokens.

    Args:
        one_shot: arguments of the one-shot model; None are its defaults. `started_from` fills them in.
        rank: of the adapters.
        parts: children of the one-shot model that are adapted.
        reading_gain: factor on the person's own reading of speech, which undoes its regression to the mean.
        smoothing: see `Person`.
        mouth_gain: factor on the lip code, on top of the one-shot model's and `reading_gain`.
    """

    def __init__(self, one_shot: Optional[dict] = None, rank: int = 2,
                 parts: Sequence[str] = ("fusion", "deformation", "radiance", "super_resolution"), reading_gain: float = 1.4,
                 smoothing: int = 1, mouth_gain: float = 1.0):
        arguments = {"one_shot": one_shot, "rank": rank, "parts": list(parts), "reading_gain": reading_gain,
                     "smoothing": smoothing, "mouth_gain": mouth_gain}
        head = S3DNeRF(**(one_shot or {})).requires_grad_(False)
        size = head.image_size
        super().__init__(size, token_channels=head.no_speech.shape[-1], smoothing=smoothing, mouth_gain=mouth_gain)
        self.arguments, self.reading_gain = arguments, reading_gain
        self.head, self.listener, head.speech = head, head.speech, None
        for part in parts:
            if getattr(head, part) is not None:
                adapt(getattr(head, part), rank)
        head.surroundings.requires_grad_(True)
        with torch.no_grad():
            planes = head.encoder(torch.zeros(1, 3, size, size), torch.zeros(1, 1, size, size))
        self.planes = nn.ParameterList(torch.zeros_like(plane) for plane in planes)
        self.texture, self.detail = (nn.Parameter(torch.zeros(1, 3, size, size)) for _ in range(2))
        self.basis = PhotoBasis(FACTORS)
        self.trust = nn.Parameter(torch.zeros(()))
        for name, shape in {"photo": (3, size, size), "photo_head": (1, size, size), "photo_person": (1, size, size),
                            "photo_mesh": (MESH_POINTS, 3), "photo_pose": (4, 4), "usual_eyes": (), "plate": ()}.items():
            self.register_buffer(name, torch.zeros(shape))

    def started_from(self, one_shot: S3DNeRF) -> "AdaptedHead":
        """A head with the same settings that has the weights, and with them the sizes, of a one-shot model."""
        found = AdaptedHead(**{**self.arguments, "one_shot": one_shot.arguments})
        state = one_shot.state_dict()
        heard = {name[len("speech."):]: state.pop(name) for name in list(state) if name.startswith("speech.")}
        found.listener.load_state_dict(heard)
        load_adapted(found.head, state)
        return found

    def train(self, mode: bool = True) -> "AdaptedHead":
        """As usual, but for what listens, which learns nothing and drops nothing."""
        super().train(mode)
        self.listener.eval()
        return self

    @property
    def stride(self) -> int:
        """Pixels of the frame per ray."""
        return self.head.stride

    @property
    def portrait(self) -> Portrait:
        """[1] the photo as it was recorded."""
        cameras = Cameras(self.photo_pose, self.intrinsics)
        return Portrait.stack([Portrait(self.photo, self.photo_head, cameras, self.photo_mesh, self.photo_person)])

    # what is heard -----------------------------------------------------------------------------------------------------

    def hear(self, heard: Tensor, frames: Tensor) -> Tensor:
        """Lip codes [N, 12] of the frames [N] of a recording whose features are `heard` [T, C, W]: the one-shot model's,
        and, as far as that is trusted, the person's own reading."""
        theirs = self.listener.code(self._tokens(heard, frames)) * self.head.mouth_gain
        return torch.lerp(theirs, self.amplified(super().hear(heard, frames), self.reading_gain), self.trust.clamp(0, 1))

    def speech_code(self, heard: Tensor, frames: Tensor, gain: float = 1.0) -> Tensor:
        """Speech codes [N, 12 + 8 D] of the same frames, their lips amplified by `gain`."""
        tokens = torch.lerp(self._tokens(heard, frames), self.head.no_speech, self.trust.clamp(0, 1))
        return torch.cat([gain * self.hear(heard, frames), tokens.flatten(1)], -1)

    def _tokens(self, heard: Tensor, frames: Tensor) -> Tensor:
        """[N, 8, D] speech tokens; other features may lie behind them."""
        return heard[frames, :self.head.no_speech.shape[-1]].transpose(1, 2)

    @torch.no_grad()
    def speech_codes(self, sound: Tensor, gain: Optional[float] = None) -> Tensor:
        """See `Person`; speech codes [T, 12 + 8 D]."""
        gain = self.mouth_gain if gain is None else gain
        codes = [self.speech_code(heard, frames, gain) for heard, frames in self.listen_along(sound)]
        return smooth(torch.cat(codes), self.smoothing)

    # the person --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def adopt(self, video: PersonVideo, learned: int) -> None:
        """See `Person`; and chooses the photo, whose tri-planes and detail are those of the one-shot model."""
        size = self.image_size
        if video.frames.shape[1] != size:
            raise InputError(f"found frames of {video.frames.shape[1]} pixels and one-shot weights for {size}; set "
                             f"data.size to {size}")
        super().adopt(video, learned)
        number = typical_frame(video, learned)
        large = lambda mask: F.interpolate(mask.float()[None, None], (size, size), mode="bilinear", align_corners=False)[0]
        self.photo.copy_(video.frames[number].permute(2, 0, 1) / 255)
        self.photo_head.copy_(large(video.head[number]))
        self.photo_person.copy_(large(video.head[number] | video.torso[number]))
        self.photo_mesh.copy_(video.mesh[number])
        self.photo_pose.copy_(video.cameras.camera_to_world[number])
        self.intrinsics.copy_(video.cameras.intrinsics[number])
        self.usual_eyes.copy_(self.face_code.absolute(video.mesh.mean(0))[-1])
        self.basis.adopt(self.factors(video.cameras[:learned], self.lip_codes(video.mesh)[1][:learned]))
        appearance = self.head.with_detail(self.head.encode(self.portrait))
        for own, plane in zip(self.planes, appearance.planes):
            own.copy_(plane)
        if appearance.detail is not None:
            self.detail.copy_(appearance.detail)

    def factors(self, cameras: Cameras, eyes: Tensor) -> Tensor:
        """[T, 7] what the photo changes with in frames seen by cameras [T], with eye openings [T, 1]."""
        return torch.cat([self.head_pose(cameras), eyes], -1)

    def appearance(self) -> Appearance:
        """[1] what the one-shot model renders, as it was learned."""
        portrait = self.portrait
        portrait = replace(portrait, image=portrait.image + self.texture)
        return self.head.appearance(tuple(self.planes), portrait, self.detail)

    # pictures ----------------------------------------------------------------------------------------------------------

    def motion(self, cameras: Cameras, condition: Condition) -> Motion:
        """[1, T] what moves the face in frames seen by cameras [T] under conditions [T]."""
        lips, tokens = condition.code[:, :LIPS], condition.code[:, LIPS:]
        code = torch.cat([lips, condition.eyes - self.usual_eyes], -1)[None]
        shape = self.head.no_speech.shape
        tokens = tokens.unflatten(-1, shape) if tokens.shape[-1] else self.head.no_speech.expand(len(lips), *shape)
        return Motion(code, tokens[None], self.basis(self.factors(cameras, condition.eyes))[None])

    def look(self, cameras: Cameras, condition: Condition, window: Optional[Window] = None,
             stride: Optional[int] = None, background: Optional[Tensor] = None) -> Rendering:
        """Frames [1, T], or a window [1] of them, seen by cameras [T] under conditions [T]; see `S3DNeRF.render`. Behind the
        person is what was recorded there, or `background` [3, S, S]."""
        motion = self.motion(cameras, condition)
        found = self.head.render(self.appearance(), motion, cameras.map(lambda x: x[None]), window, stride)
        behind, share = (self.background, self.plate) if background is None else (background.to(found.image), 1)
        if window is not None:
            left, top = int(window.left), int(window.top)
            behind = behind[:, top:top + window.height, left:left + window.width]
        return replace(found, image=torch.lerp(behind, found.image, 1 - share * (1 - self.matte(found))))

    def matte(self, rendering: Rendering) -> Tensor:
        """[1, T, 1, H, W] in [0, 1] where a rendering shows the person: where the head is opaque, and `AROUND` that, where
        the photo's torso is looked up, and, at the frame's border, where no head is rendered, where its person is."""
        cover = resize(F.max_pool2d(rendering.opacity[0], 2 * AROUND + 1, 1, AROUND), *rendering.image.shape[-2:])
        places = rendering.source[0]
        read = lambda mask: look_up(mask.expand(len(places), -1, -1, -1), places)
        torso = read(self.photo_person * (1 - self.photo_head))
        border = (1 - border_fade(places)) * read(self.photo_person)
        return (cover + torso + border).clamp_max(1)[None]

    @torch.no_grad()
    def render(self, cameras: Cameras, condition: Condition, background: Optional[Tensor] = None) -> Rendering:
        """See `Person`; [T]."""
        return self.look(cameras, condition, background=background)[0]


def typical_frame(video: PersonVideo, learned: int) -> int:
    """The frame, of the first `learned`, whose landmarks lie nearest to where they mostly are: a usual pose, with open eyes
    and lips nearly closed."""
    places = project(video.mesh[:learned], video.cameras[:learned])[0]
    return int((places - places.median(0).values).norm(dim=-1).mean(-1).argmin())
