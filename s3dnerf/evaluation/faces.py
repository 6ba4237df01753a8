"""Figures of landmarks, and of who it is."""
from __future__ import annotations

from typing import Optional

import numpy as np
import torch

from s3dnerf import metrics
from s3dnerf.evaluation.boxes import MOUTH_68
from s3dnerf.evaluation.footage import Footage
from s3dnerf.evaluation.networks import Networks
from s3dnerf.evaluation.picture import Chunk
from s3dnerf.evaluation.protocol import Protocol
from s3dnerf.face import EYE_CORNERS, LANDMARKS_68, RIGID, eye_opening, mouth_opening

LEAST = 4
"""frames with a face in both videos that figures of landmarks need"""


def landmark_figures(made: Footage, true: Footage, protocol: Protocol) -> dict[str, Optional[float]]:
    """Of two clips of the same length; {"faces": …} alone where faces are seen together in fewer than four frames."""
    figures: dict[str, Optional[float]] = {"faces": float(made.seen.mean())}
    both = made.seen & true.seen
    if both.sum() < LEAST:
        return figures
    found, truth = (torch.from_numpy(footage.landmarks[both]).double() for footage in (made, true))
    eyes, pixels = eye_distance(truth), protocol.landmark_size / min(true.size)
    face, mouth = list(LANDMARKS_68), list(MOUTH_68)
    for name, points in (("f_lmd", face), ("m_lmd", mouth)):
        figures[name] = pixels * metrics.mean_distance(found[:, points], truth[:, points]).mean().item()
        figures[f"{name}_percent"] = metrics.landmark_distance(found[:, points], truth[:, points], eyes).mean().item()
    figures["lmd_centred"] = metrics.centred_distance(found[:, mouth], truth[:, mouth]).mean().item()
    opens = [mouth_opening(points) / eye_distance(points) for points in (found, truth)]
    figures["mouth_correlation"] = metrics.correlation(*opens).item()
    figures["mouth_spread"] = metrics.spread_ratio(*opens).item() if opens[1].std() > 1e-6 else None
    for ending, footage in (("", made), ("_truth", true)):
        figures[f"jitter{ending}"], figures[f"blinks{ending}"] = _motion(footage, protocol)
    return figures


def eye_distance(points: torch.Tensor) -> torch.Tensor:
    """[T] between the outer corners of landmarks [T, 478, 2]."""
    return (points[:, EYE_CORNERS[0]] - points[:, EYE_CORNERS[1]]).norm(dim=-1)


def _motion(footage: Footage, protocol: Protocol) -> tuple[Optional[float], Optional[float]]:
    """Jerk of the mouth against what speech does not move, percent of the eye distance, and blinks per minute; frames without a
    face are filled in."""
    points = torch.from_numpy(footage.places).double()
    eyes = eye_distance(points)
    mouth = (points[:, list(MOUTH_68)] - points[:, list(RIGID)].mean(1, keepdim=True)) / eyes[:, None, None]
    minutes = len(points) / protocol.fps / 60
    return 100 * metrics.jerk(mouth).item(), metrics.blinks(eye_opening(points) / eyes, protocol.closed_eye) / minutes


class IdentityFigures:
    """Gathers the cosines of one clip's faces with the recording's."""

    def __init__(self, made: Footage, true: Footage, networks: Networks, protocol: Protocol):
        self.arcface, self.made, self.true = networks.arcface, made, true
        self.own, self.photo, self.first = [], [], None

    def add(self, chunk: Chunk) -> None:
        """Looks at some more frames, those in which both show a face."""
        part = slice(chunk.first, chunk.first + len(chunk.made))
        both = self.made.seen[part] & self.true.seen[part]
        if self.arcface is None or not both.any():
            return
        found, truth = (self.arcface.embed(frames[both], footage.landmarks[part][both])
                        for frames, footage in ((chunk.made, self.made), (chunk.true, self.true)))
        self.first = truth[0] if self.first is None else self.first
        self.own.extend((found * truth).sum(1).tolist())
        self.photo.extend((found @ self.first).tolist())

    def figures(self) -> dict[str, Optional[float]]:
        """Means over the clip's frames."""
        return {"csim": float(np.mean(self.own)), "csim_photo": float(np.mean(self.photo))} if self.own else {}
