"""What moves the face: speech, or somebody's tracked lips."""
from __future__ import annotations

from dataclasses import replace
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from s3dnerf.data.tracking import Track
from s3dnerf.device import upload
from s3dnerf.face import FaceCode
from s3dnerf.media import frame_count, is_silent
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.poses import bounce, reach, smoothed
from s3dnerf.types import Motion


EASE = 2
"""frames over which a video that begins with the photo as it is gives the face over to the speech"""


class SpeechDrive:
    """Lips that follow speech, eyes that follow the head's own rhythm; frame 0 is the photo's own face, unless there is
    nothing but silence, which stays still from the first frame on.

    Args:
        model: the talking head.
        sound: [N] float32, mono, 16 kHz.
        mesh: [478, 3] landmarks of the photo.
        gain: factor on the lip code; None takes the model's own.
        smooth: seconds over which lip code and tokens are `poses.smoothed`.
        fixed_eyes: whether the eyes are as `motion` is told from frame 0 on, and do not begin as the photo's.
    """

    def __init__(self, model: S3DNeRF, sound: np.ndarray, mesh: Tensor, gain: Optional[float] = None, smooth: float = 0.0,
                 fixed_eyes: bool = False):
        self.model, self.gain, self.smooth, self.total, self.fixed_eyes = model, gain, smooth, frame_count(len(sound)), fixed_eyes
        self.own, self.begun = model.face_code.own(mesh), EASE if is_silent(sound) else 0
        self.sequence = model.features.along(torch.from_numpy(sound))

    def motion(self, first: int, count: int, eyes: Tensor) -> Motion:
        """[1, count] of the frames from `first` on, with the eye opening changed by `eyes` [count]."""
        device = next(self.model.parameters()).device
        low, far = max(0, first - reach(self.smooth)), first + count + reach(self.smooth)
        high = max(first + count, min(self.total, far))
        motion = self.model.drive(upload(self.windows(low, high - low), device)[None], self.gain)
        motion = motion.map(lambda x: smoothed(x[0], self.smooth)[None, first - low:first - low + count])
        share = ((self.begun + torch.arange(first, first + count, device=device)) / EASE).clamp_max(1)[:, None]
        share = share * share * (3 - 2 * share)
        code = torch.lerp(self.own.to(device), motion.code, share)
        code[..., -1] += upload(eyes, device) * (1.0 if self.fixed_eyes else share[:, 0])
        return replace(motion, code=code)

    def windows(self, first: int, count: int) -> Tensor:
        """[count, C, W] speech features around the frames from `first` on."""
        return self.model.features.windows(self.sequence, first, count)


class FaceDrive:
    """Lips of a tracked person, against that person's mean face, played back and forth.

    Args:
        model: the talking head.
        track: the face, followed.
        gain: factor on the lip code; None leaves it as it is.
        smooth: seconds over which the lip code is `poses.smoothed`.
    """

    def __init__(self, model: S3DNeRF, track: Track, gain: Optional[float] = None, smooth: float = 0.0):
        mesh = torch.from_numpy(track.mesh())
        self.model, self.codes = model, FaceCode().driving(mesh, mesh.mean(0)).float()
        self.codes[:, :-1] = smoothed(self.codes[:, :-1], smooth) * (1.0 if gain is None else gain)

    def motion(self, first: int, count: int, eyes: Tensor) -> Motion:
        """[1, count] of the frames from `first` on, with the eye opening changed by `eyes` [count], as for `SpeechDrive`."""
        shown = self.codes[torch.from_numpy(bounce(first, count, len(self.codes)))]
        shown[:, -1] = eyes
        return self.model.drive_face(upload(shown[None], next(self.model.parameters()).device))
