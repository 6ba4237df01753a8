"""What every head of one person has, however it is rendered: ears, and what a recording shows without learning."""
from __future__ import annotations

from typing import Iterator, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.face import FaceCode
from s3dnerf.geometry import euler_from_rotation, rigid_inverse
from s3dnerf.media import frame_count
from s3dnerf.networks.lip_sync import LipSyncDiscriminator
from s3dnerf.networks.speech import TOKENS, SpeechEncoder
from s3dnerf.networks.speech_attention import NEIGHBOURS, SpeechAttention, neighbours, smooth
from s3dnerf.networks.speech_features import MelFeatures
from s3dnerf.types import Cameras, Condition, PersonRendering, PersonVideo

PATH = 250
"""frames of the recording's own head motion that go with the weights"""
TOGETHER = 256
"""frames that are listened to at once"""
FRAMES = 10_000
"""codes of single frames; frames beyond share them"""


class Person(nn.Module):
    """One person's talking head; subclasses say how it is rendered.

    Speech becomes a code of 12 numbers, the lip code of `face.FaceCode`, so that tracked lips can drive the same head and
    teach it; with `code_size` other than 12 it is a code without a meaning.

    Args:
        image_size: side of the square frames, pixels.
        features: what the speech attention sees: "tokens" of the one-shot model's speech encoder, which has heard many
            people and stays as it is, with the mel bands beside them, or "mel" alone.
        readout: how the speech attention reads a frame's window: "linear" (a lip code from tokens, found in closed form),
            "kernel" (the same by comparison with windows that were learned from; the lip-sync expert's ear listens to them as
            well, and the lip code that the speech encoder has for anybody is heard, too), or "convolution", as in the papers.
        code_size: numbers of the speech code.
        speech_width: channels of the speech attention.
        dropout: of the speech attention.
        token_channels: size of a token; must fit the speech encoder that is loaded.
        smoothing: frames that the speech code is averaged over when it is not learned from, odd.
        mouth_gain: factor on how far lips regressed from speech open, about their mean; None is the one at which they open as
            far as tracked ones do in what is learned from (`match_spread`): what is regressed is always too timid.
    """

    def __init__(self, image_size: int, features: str = "tokens", readout: str = "linear", code_size: int = 12,
                 speech_width: int = 64, dropout: float = 0.2, token_channels: int = 48, smoothing: int = 1,
                 mouth_gain: Optional[float] = None):
        super().__init__()
        if features not in ("tokens", "mel"):
            raise ValueError(f"found features={features!r}; expected tokens or mel")
        if readout not in ("linear", "kernel", "convolution") or (readout != "convolution" and code_size != FaceCode.size - 1):
            raise ValueError(f"found readout={readout!r}; expected linear or kernel, of a code of {FaceCode.size - 1} numbers, "
                             "or convolution")
        if readout == "kernel" and features != "tokens":
            raise ValueError(f"found readout='kernel' with features={features!r}; expected tokens")
        self.image_size, self.code_size, self.smoothing, self.given_gain = image_size, code_size, smoothing, mouth_gain
        self.face_code = FaceCode()
        self.listener = None
        if features == "tokens":
            self.listener = SpeechEncoder(MelFeatures.channels, token_channels=token_channels).requires_grad_(False)
        self.ear = LipSyncDiscriminator().sound.requires_grad_(False) if readout == "kernel" else None
        parts = (token_channels, MelFeatures.channels) if self.listener else (MelFeatures.channels,)
        parts += () if self.ear is None else (self.ear[-1].out_features // TOKENS, FaceCode.size - 1)
        self.attention = SpeechAttention(sum(parts), code_size, speech_width, dropout, normalise=True,
                                         linear=None if readout == "convolution" else TOKENS if self.listener
                                         else MelFeatures.window, parts=parts if readout == "kernel" else None)
        self.register_buffer("seen", torch.zeros(()))  # a float, because averaging weights truncates whole numbers
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("background", torch.zeros(3, image_size, image_size))
        self.register_buffer("path", torch.eye(4).repeat(PATH, 1, 1))
        self.register_buffer("path_eyes", torch.zeros(PATH))
        self.register_buffer("path_body", None)
        self.register_buffer("intrinsics", torch.eye(3))

    @property
    def features(self) -> MelFeatures:
        """Where the windows of speech come from."""
        return MelFeatures()

    @property
    def by_lips(self) -> bool:
        """Whether the speech code is a lip code, which tracked lips have too."""
        return self.code_size == FaceCode.size - 1

    @torch.no_grad()
    def listen(self, mel: Tensor) -> Tensor:
        """Features [T, C, W] of the mel windows [T, 80, 40] of frames."""
        if self.listener is None:
            return mel
        ears = [part for part in (self.listener, self.ear) if part is not None]
        training = [part.training for part in ears]
        for part in ears:
            part.eval()
        tokens, codes = (torch.cat(found) for found in zip(*(self.listener(part) for part in mel.split(TOGETHER))))
        heard = [tokens.transpose(1, 2), F.adaptive_avg_pool1d(mel, TOKENS)]
        if self.ear is not None:
            heard.append(torch.cat([self.ear(part / 4) for part in mel.split(TOGETHER)]).unflatten(1, (-1, TOKENS)))
            heard.append(codes[..., None].expand(-1, -1, TOKENS))
        for part, before in zip(ears, training):
            part.train(before)
        return torch.cat(heard, 1)

    def listen_along(self, sound: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Features of a recording [N] at 16 kHz, some frames at a time, so that memory does not grow with it: those [T, C, W] of
        the frames and of their neighbours, and which of these [F] they are."""
        sequence, count = self.features.along(sound), frame_count(len(sound))
        for first in range(0, count, TOGETHER):
            last = min(first + TOGETHER, count)
            low, high = max(0, first - NEIGHBOURS), min(count, last + NEIGHBOURS)
            heard = self.listen(self.features.windows(sequence, low, high - low).to(self.background.device))
            yield heard, torch.arange(first - low, last - low, device=heard.device)

    def hear(self, heard: Tensor, frames: Tensor) -> Tensor:
        """Speech codes [N, K] of the frames [N] of a recording whose features are `heard` [T, C, W]."""
        return self.attention(neighbours(heard, frames))

    @torch.no_grad()
    def speech_codes(self, sound: Tensor, gain: Optional[float] = None) -> Tensor:
        """Speech codes [T, K] of all frames of a recording [N] at 16 kHz, smoothed and, where they are lip codes, amplified
        by `gain` (None: the model's own)."""
        codes = smooth(torch.cat([self.hear(heard, frames) for heard, frames in self.listen_along(sound)]), self.smoothing)
        return self.amplified(codes, self.mouth_gain if gain is None else gain) if self.by_lips else codes

    def amplified(self, codes: Tensor, gain: float) -> Tensor:
        """Lip codes [T, 12] that were heard, with an opening `gain` times as far from the person's mean opening: a regression
        is timid about the mean. What else lips do is heard less surely: a factor above 1 on it costs more than it gives."""
        usual = self.attention.rest if self.attention.linear else torch.zeros_like(codes[0])
        opening = self.opening(usual) + gain * (self.opening(codes) - self.opening(usual))
        calmer = usual + min(gain, 1.0) * (codes - usual)
        return self.face_code.with_opening(F.pad(calmer, (0, 1)), opening)[..., :-1]

    @property
    def mouth_gain(self) -> float:
        """Factor on the lip code that is heard."""
        return float(self.gain) if self.given_gain is None else self.given_gain

    def opening(self, code: Tensor) -> Tensor:
        """[*] how far apart the inner lips of lip codes [*, 12] are, head units, against the mean face's."""
        return self.face_code.opening(F.pad(code, (0, 1)))

    @torch.no_grad()
    def match_spread(self, codes: Tensor, lips: Tensor) -> None:
        """Sets the gain that counts where the arguments leave it open: the opening of the codes [T, 12] that are heard then has
        the spread of the tracked lips' [T, 12]. The gain (`amplified`) is a quotient of spreads."""
        if self.by_lips:
            self.gain.copy_(self.opening(lips).std() / self.opening(smooth(codes, self.smoothing)).std().clamp_min(1e-6))

    def lip_codes(self, mesh: Tensor) -> tuple[Tensor, Tensor]:
        """Lip codes [T, 12] and eye openings [T, 1] of the tracked landmarks [T, 478, 3] of one recording."""
        return self.face_code.driving(mesh, mesh.mean(0))[:, :-1], self.face_code.absolute(mesh)[:, -1:]

    @torch.no_grad()
    def adopt(self, video: PersonVideo, learned: int) -> None:
        """Takes over what a recording, whose first `learned` frames are learned from, shows without learning: background,
        camera, head motion."""
        self.background.copy_(video.background.permute(2, 0, 1) / 255)
        self.seen.fill_(min(learned, FRAMES))
        places = torch.arange(PATH) if learned >= PATH else torch.arange(PATH) % learned
        self.path.copy_(video.cameras.camera_to_world[places])
        self.path_eyes.copy_(self.lip_codes(video.mesh)[1][places, 0])
        if self.path_body is not None:
            self.path_body.copy_(video.body[places])
        self.intrinsics.copy_(video.cameras.intrinsics[0])

    def head_pose(self, cameras: Cameras) -> Tensor:
        """[F, 6] the head's angles and place as cameras [F] see it, from the first recorded pose on."""
        head, first = rigid_inverse(cameras.camera_to_world), rigid_inverse(self.path[:1])
        angles = lambda pose: torch.stack(euler_from_rotation(pose[:, :3, :3]), -1)
        unit = lambda pose: pose[:, :2, 3] / pose[:, 2:3, 3] * first[:, 2:3, 3]
        shift = torch.cat([unit(head) - unit(first), torch.log(head[:, 2:3, 3] / first[:, 2:3, 3])], -1)
        return torch.cat([angles(head) - angles(first), shift], -1)

    def _appearance(self, codes: Tensor, frame: Tensor) -> Tensor:
        """Rows [F, A] of codes [10 000, A] of frames; the mean of all that were seen for frame -1."""
        mean = codes[:max(1, int(self.seen))].mean(0)
        return torch.where(frame[:, None] < 0, mean, codes[frame.clamp_min(0) % FRAMES])

    def render(self, cameras: Cameras, condition: Condition, background: Optional[Tensor] = None) -> PersonRendering:
        """Whole frames as cameras [T] see them under conditions [T]; each is computed by itself.

        `background` [3, S, S] takes the place of what was recorded behind the person.
        """
        raise NotImplementedError
