"""A video as the suite sees it: frames that can be read again and again, the face in them, and the sound."""
from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Callable, Iterator, Optional

import numpy as np

from s3dnerf.data.detection import FaceDetector
from s3dnerf.face import CROP_EXTENT, MESH_POINTS, RIGID, metric_face
from s3dnerf.media import read_frames, read_sound, video_info

Frames = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Footage:
    """T frames at 25 per second."""

    name: str
    frames: Frames
    """gives the frames [H, W, 3] uint8, from the first on, every time it is called"""
    landmarks: np.ndarray
    """[T, 478, 2] pixels; NaN where no face was found"""
    size: tuple[int, int]
    """height and width, pixels"""
    sound: Optional[np.ndarray] = None
    """[N] at 16 kHz"""

    def __len__(self) -> int:
        return len(self.landmarks)

    @property
    def seen(self) -> np.ndarray:
        """[T] whether a face was found."""
        return ~np.isnan(self.landmarks[:, 0, 0])

    @property
    def places(self) -> np.ndarray:
        """`landmarks` with frames without a face filled in from their neighbours; NaN where there is none at all."""
        times, seen = np.arange(len(self)), self.seen
        if seen.all() or not seen.any():
            return self.landmarks
        flat = self.landmarks.reshape(len(self), -1)
        filled = np.stack([np.interp(times, times[seen], column[seen]) for column in flat.T], 1)
        return filled.reshape(self.landmarks.shape)

    def first(self, count: int) -> "Footage":
        """Its first frames alone."""
        return replace(self, frames=lambda: islice(self.frames(), count), landmarks=self.landmarks[:count])

    def aligned(self, size: int) -> "Footage":
        """The same with the face brought to where the metric face has it, frame by frame, in frames of `size`."""
        import cv2

        places, goal = self.places, metric_face()[list(RIGID), :2] * (size / CROP_EXTENT) + size / 2
        if not self.seen.any():
            return replace(self, frames=lambda: (np.zeros((size, size, 3), np.uint8) for _ in range(len(self))),
                           size=(size, size))
        moves = [similarity(frame[list(RIGID)], goal) for frame in places]

        def frames():
            for frame, move in zip(self.frames(), moves):
                grid = move.copy()
                grid[:, 2] += grid[:, :2] @ (0.5, 0.5) - 0.5  # pixel centres are at +0.5
                way = cv2.INTER_AREA if abs(np.linalg.det(move[:, :2])) < 1 else cv2.INTER_CUBIC
                yield cv2.warpAffine(frame, grid, (size, size), flags=way, borderMode=cv2.BORDER_REPLICATE)

        moved = np.stack([frame @ move[:, :2].T + move[:, 2] for frame, move in zip(self.landmarks, moves)])
        return replace(self, frames=frames, landmarks=moved, size=(size, size))


def similarity(source: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """[2, 3] turn, scale and shift that brings points [N, 2] nearest to others (least squares)."""
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (source, goal))
    factor = np.vdot(z - z.mean(), w - w.mean()) / np.vdot(z - z.mean(), z - z.mean()).real
    shift = w.mean() - factor * z.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def look(name: str, frames: Frames, sound: Optional[np.ndarray] = None, advance: Callable[[], None] = lambda: None) -> Footage:
    """Finds the face in every frame; calls `advance` after each."""
    found, size = [], (0, 0)
    with FaceDetector(still=False) as detector:
        for frame in frames():
            faces, size = detector.faces(frame), frame.shape[:2]
            found.append(faces[0] if faces else np.full((MESH_POINTS, 2), np.nan))
            advance()
    return Footage(name, frames, np.stack(found), size, sound)


def read_footage(path: Path, advance: Callable[[], None] = lambda: None) -> Footage:
    """A video file. InputError where it cannot be read."""
    sound = read_sound(path) if video_info(path).has_sound else None
    return look(path.stem, lambda: read_frames(path), sound, advance)
