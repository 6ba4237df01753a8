"""What moves the face: speech, or somebody's tracked lips."""
from __future__ import annotations

from dataclasses import replace
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from s3dnerf.data.tracking import Track
from s3dnerf.face import FaceCode
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.poses import bounce
from s3dnerf.types import Motion


class SpeechDrive:
    """Lips that follow speech, eyes that follow the head's own rhythm.

    Args:
        model: the talking head.
        sound: [N] float32, mono, 16 kHz.
        gain: factor on the lip code; None takes the model's own.
    """

    def __init__(self, model: S3DNeRF, sound: np.ndarray, gain: Optional[float] = None):
        self.model, self.gain = model, gain
        with torch.inference_mode():
            self.sequence = model.features.sequence(torch.from_numpy(sound))

    def motion(self, first: int, count: int, eyes: Tensor) -> Motion:
        """[1, count] of the frames from `first` on, with the eye opening changed by `eyes` [count]."""
        device = next(self.model.parameters()).device
        windows = self.model.features.windows(self.sequence, first, count).to(device)
        motion = self.model.drive(windows[None], self.gain)
        code = motion.code.clone()
        code[..., -1] += eyes.to(device)
        return replace(motion, code=code)


class FaceDrive:
    """Lips and eyes of a tracked person, against that person's mean face, played back and forth.

    Args:
        model: the talking head.
        track: the face, followed.
        gain: factor on the lip code; None leaves it as it is.
    """

    def __init__(self, model: S3DNeRF, track: Track, gain: Optional[float] = None):
        mesh = torch.from_numpy(track.mesh())
        self.model, self.codes = model, FaceCode().driving(mesh, mesh.mean(0)).float()
        self.codes[:, :-1] *= 1.0 if gain is None else gain

    def motion(self, first: int, count: int, eyes: Tensor) -> Motion:
        """[1, count] of the frames from `first` on; `eyes` is left aside, the person's own are taken."""
        shown = self.codes[torch.from_numpy(bounce(first, count, len(self.codes)))]
        return self.model.drive_face(shown[None].to(next(self.model.parameters()).device))
