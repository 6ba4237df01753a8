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

    scale, crops = size / box.side, []
    blur = 0.45 / scale if scale < 0.8 else 0.0  # warpAffine does not average over area
    reach = int(np.ceil(3.5 * blur)) + 4
    for frame in frames:
        # What is far from the box has no part in it; blurring all of a large picture takes most of the time.
        left, top = (int(min(max(edge - reach, 0), length - 1)) for edge, length in zip((box.left, box.top), frame.shape[1::-1]))
        right, bottom = (max(int(edge + box.side + reach), 1) for edge in (box.left, box.top))
        part = np.ascontiguousarray(frame[top:bottom, left:right])
        if blur:
            part = cv2.GaussianBlur(part, (0, 0), blur)
        matrix = np.array([[scale, 0, (0.5 - box.left + left) * scale - 0.5], [0, scale, (0.5 - box.top + top) * scale - 0.5]])
        crops.append(cv2.warpAffine(part, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))
    return np.stack(crops)
