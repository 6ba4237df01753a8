"""The square that is cut out around a head."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

import numpy as np


@dataclass(frozen=True)
class CropBox:
    """The square around a head, in pixels of the picture it was cut from."""

    left: float
    top: float
    side: float


def cut(frames: Iterable[np.ndarray], box: CropBox, size: int) -> np.ndarray:
    """The crop [T, size, size, 3] of frames; beyond the picture its border is repeated."""
    import cv2

    scale = size / box.side
    matrix = np.array([[scale, 0, (0.5 - box.left) * scale - 0.5], [0, scale, (0.5 - box.top) * scale - 0.5]])
    crops = []
    for frame in frames:
        if scale < 0.8:  # warpAffine does not average over area
            frame = cv2.GaussianBlur(frame, (0, 0), 0.45 / scale)
        crops.append(cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))
    return np.stack(crops)
