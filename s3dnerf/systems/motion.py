"""Training of everything that moves, without rendering: speech to lip code, and lip code to motion of landmarks."""
from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from s3dnerf.face import EYELIDS, LIPS, MOVING
from s3dnerf.metrics import correlation, spread_ratio
from s3dnerf.models.one_shot import FaceFlow, S3DNeRF
from s3dnerf.systems.base import ModelSystem
from s3dnerf.types import Appearance, Clip, Motion

SILENCE = -4.0


class MotionSystem(ModelSystem):
    """Regresses the lip code from speech, and teaches the deformation field on tracked landmarks.

    Photometric gradients of a mouth that moves by a pixel drown in those of pose and blur, and leave the mouth still;
    landmarks say directly where every point was in the photo. No ray is cast, so a step takes milliseconds.

    Args:
        model: the talking head.
        optimizer: see `ModelSystem`.
        scheduler: see `ModelSystem`.
        train_only: see `ModelSystem`.
        init_from: see `ModelSystem`.
        code: weight of the lip code's error; 0 needs no speech.
        correlation: weight of 1 - correlation, over the frames of an example, of the opening that the lip code implies;
            wants consecutive frames.
        offset: weight of the landmarks' error; 0 needs no photo.
        face_share: share of steps that drive the field by tracked lips instead of speech.
        silence: share of examples that are silenced, with a closed mouth as their target.
    """

    def __init__(self, model: S3DNeRF, optimizer: OptimizerCallable = torch.optim.Adam,
                 scheduler: Optional[LRSchedulerCallable] = None, train_only: Optional[list[str]] = None,
                 init_from: Optional[dict[str, str]] = None, code: float = 1.0, correlation: float = 0.0,
                 offset: float = 1.0, face_share: float = 0.7, silence: float = 0.1):
        super().__init__(model, optimizer, scheduler, train_only, init_from)
        self.save_hyperparameters()
        self.weights = {"code": code, "correlation": correlation, "offset": offset}
        self.face_share, self.silence = face_share, silence

    def training_step(self, clip: Clip, _index: int) -> Tensor:
        codes = self.model.face_code.relative(clip.mesh, clip.mean_mesh[:, None])
        terms = {}
        if self.weights["code"]:
            terms |= self.code_errors(clip, codes[..., :-1])
        if self.weights["offset"]:
            terms["offset"] = self.motion_error(clip)
        terms["total"] = sum(self.weights[name] * value for name, value in terms.items())
        self.log_terms("train", terms, len(clip.keys))
        return terms["total"]

    def code_errors(self, clip: Clip, target: Tensor) -> dict[str, Tensor]:
        """Errors of the lip code regressed from (disturbed) speech: squared, strong components more; and `correlation`."""
        windows, target = disturb(clip.speech), target.clone()
        closed = self.model.face_code.closing(clip.mean_mesh)[:, None, :-1].expand_as(target)
        silent = torch.rand(len(target), device=windows.device) < self.silence
        quiet = SILENCE + 0.3 * torch.rand_like(windows)  # drawn for all, so that processes draw alike
        windows[silent] = quiet[silent]
        target[silent] = closed[silent]
        code = self.model.speech(windows.flatten(0, 1))[1].unflatten(0, target.shape[:2])
        opening = lambda numbers: self.model.face_code.opening(F.pad(numbers, (0, 1)))
        return {"code": ((code - target) ** 2 * self.importance(code)).mean(),
                "correlation": 1 - correlation(opening(code), opening(target)).mean()}

    def importance(self, code: Tensor) -> Tensor:
        """Weights of the code's numbers, mean 1: the square root of what they move."""
        spread = self.model.face_code.spread.sqrt()
        return spread / spread.mean()

    def motion_error(self, clip: Clip) -> Tensor:
        """Error of the offset at tracked landmarks."""
        with torch.no_grad():
            appearance = self.model.encode(clip.portrait)
        if self.training and torch.rand(()) > self.face_share:
            motion = self.model.drive(clip.speech, gain=1.0)
        else:
            motion = self.model.drive_face(self.model.face_code.driving(clip.mesh, clip.mean_mesh[:, None]))
        return landmark_error(self.model, appearance, motion, clip)

    def validation_step(self, clip: Clip, _index: int) -> None:
        codes = self.model.face_code.relative(clip.mesh, clip.mean_mesh[:, None])
        _, predicted = self.model.speech(clip.speech.flatten(0, 1))
        terms = {}
        for number in range(2):
            truth, guess = codes[0, :, number], predicted[:, number]
            terms |= {f"code{number}_correlation": correlation(guess, truth), f"code{number}_spread": spread_ratio(guess, truth)}
        opening, truth = (self.model.face_code.opening(code) for code in (F.pad(predicted, (0, 1)), codes[0]))
        terms |= {"opening_correlation": correlation(opening, truth), "opening_spread": spread_ratio(opening, truth)}
        if self.weights["offset"]:
            appearance = self.model.encode(clip.portrait)
            driving = self.model.face_code.driving(clip.mesh, clip.mean_mesh[:, None])
            for name, motion in (("face", self.model.drive_face(driving)), ("speech", self.model.drive(clip.speech, gain=1.0))):
                terms |= {f"{name}_{key}": value for key, value in opening_probe(self.model, appearance, motion, clip).items()}
        self.log_terms("val", terms, 1)

    test_step = validation_step


def landmark_error(model: S3DNeRF, appearance: Appearance, motion: Motion, clip: Clip, flow: Optional[FaceFlow] = None) -> Tensor:
    """Mean error of the deformation at the tracked landmarks that move, head units, with lips and eyelids counted three
    times. `flow` is that of the motion by "point", where it is known."""
    points = clip.mesh[:, :, list(MOVING)]
    goal = clip.portrait.mesh[:, None, list(MOVING)] - points
    moved, _ = model.displace(appearance, motion, flow or model.flow(appearance, motion, "point"), points)
    error = (moved.offset - goal).abs().mean(-1)
    importance = torch.ones(len(MOVING), device=error.device)
    importance[:len(LIPS)] = importance[-len(EYELIDS):] = 3.0
    return (error * importance).mean()


def opening_probe(model: S3DNeRF, appearance: Appearance, motion: Motion, clip: Clip) -> dict[str, Tensor]:
    """How well the field opens the mouth: correlation and spread ratio of the opening that the offsets imply.

    The query points are the inner lips' clip means, so that nothing of the true opening leaks in through them.
    """
    lids = clip.mesh[:, :, [13, 14]]
    points = lids.mean(1, keepdim=True).expand_as(lids)
    offset = model.displace(appearance, motion, model.flow(appearance, motion, "point"), points)[0].offset[..., 1]
    guess, truth = (offset[..., 0] - offset[..., 1])[0], (lids[..., 1, 1] - lids[..., 0, 1])[0]
    return {"opening_correlation": correlation(guess, truth), "opening_spread": spread_ratio(guess, truth)}


def disturb(speech: Tensor) -> Tensor:
    """Speech features [B, T, C, W], every example louder or softer."""
    return speech + 0.4 * torch.randn(len(speech), 1, 1, 1, device=speech.device)
