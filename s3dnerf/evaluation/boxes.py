"""Where face and mouth are: squares of one size per clip, which go with the recording's landmarks."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s3dnerf.evaluation.footage import Footage
from s3dnerf.evaluation.protocol import Protocol
from s3dnerf.face import EYE_CORNERS, LANDMARKS_68

MOUTH_68 = LANDMARKS_68[48:]


@dataclass(frozen=True)
class Box:
    """A square in every frame of a clip."""

    corners: np.ndarray
    """[T, 2] left and top, whole pixels, within the frame"""
    side: int
    """pixels"""

    def cut(self, frames: np.ndarray, first: int) -> np.ndarray:
        """The squares [N, side, side, 3] of frames [N, H, W, 3], the first of which is frame `first`."""
        return np.stack([frame[top:top + self.side, left:left + self.side]
                         for frame, (left, top) in zip(frames, self.corners[first:first + len(frames)])])


def boxes(truth: Footage, protocol: Protocol) -> dict[str, Box]:
    """Face and mouth boxes by the ending of their figures; none where no face is seen."""
    if not truth.seen.any():
        return {}
    places = truth.places
    face = places[:, list(LANDMARKS_68)]
    low, high = face.min(1), face.max(1)
    eyes = np.linalg.norm(places[:, EYE_CORNERS[0]] - places[:, EYE_CORNERS[1]], axis=-1)
    sides = {"_face": protocol.face_box * np.median((high - low).max(1)), "_mouth": protocol.mouth_box * np.median(eyes)}
    middles = {"_face": (low + high) / 2, "_mouth": places[:, list(MOUTH_68)].mean(1)}
    return {name: _box(middles[name], sides[name], truth.size) for name in sides}


def _box(middle: np.ndarray, side: float, size: tuple[int, int]) -> Box:
    side = int(min(max(round(side), 8), *size))
    corners = np.round(middle - side / 2).astype(int)
    return Box(np.clip(corners, 0, np.array(size[::-1]) - side), side)
