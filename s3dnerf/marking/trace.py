"""Finding the watermark again: in a video that was compressed, cropped or resized since."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional

import numpy as np

from s3dnerf.marking.watermark import PERIOD, STEP, SYMBOLS, decode, frequencies, patterns

HIGH_PASS, CONTRAST, CLIP = 2.0, 2.0, 1.5
"""pixels: what is coarser is taken away; pixels over which contrast is evened out; multiples of the contrast that count"""
FLOOR = 0.3
"""contrast below which a picture is not amplified, grey levels"""
SMOOTH_POWER = 2.0
"""frequencies over which the power of the folded picture is averaged"""
CANDIDATES = 4
"""shifts that are tried at each size"""
LEAST_SCORE = 10.0
"""of a mark whose check bits hold"""
LEAST_SYNC = 8.0
"""of the searched pattern alone, for a mark whose bits cannot be read"""
SIZES = np.exp(np.arange(np.log(0.4), np.log(2.5), 0.004))
"""enlargements that are tried, to undo a video's resizing"""
WINDOW = 640
"""pixels: part of the picture that is looked at while sizes are tried"""
MOST_FRAMES = 1500


@dataclass(frozen=True)
class Trace:
    """What is left of a watermark in a video."""

    tag: Optional[int]
    """32 bits, where they could be read"""
    score: float
    """agreement with all patterns, in standard deviations of chance"""
    sync: float
    """of the first pattern alone, at its best shift"""
    size: float
    """by how much the video was enlarged or shrunk since it was marked"""

    @property
    def found(self) -> bool:
        """Whether the video is marked (docs/marking.md has the rate of false alarms)."""
        return (self.tag is not None and self.score > LEAST_SCORE) or self.sync > LEAST_SYNC


def average_luma(frames: Iterable[np.ndarray]) -> np.ndarray:
    """[H, W] float32: the mean of the luma of frames [H, W, 3] uint8 RGB, in which the mark stands still and what moves fades."""
    import cv2

    total, count = None, 0
    for count, frame in enumerate(frames, 1):
        luma = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        if total is None:
            total = np.zeros(luma.shape, np.float32)
        cv2.accumulate(luma, total)
        if count == MOST_FRAMES:
            break
    return total / count


def find(luma: np.ndarray) -> Trace:
    """The watermark in an `average_luma`, first as it is, then at other sizes."""
    import cv2

    best = trace(luma)
    if best.found:
        return best
    top, left = (max(0, (length - WINDOW) // 2) for length in luma.shape)
    middle = luma[top:top + WINDOW, left:left + WINDOW]
    for size in SIZES:
        way = cv2.INTER_AREA if size < 1 else cv2.INTER_CUBIC
        part = middle[:round(WINDOW / size), :round(WINDOW / size)] if size > 1 else middle
        again = trace(cv2.resize(part, None, fx=size, fy=size, interpolation=way), 1 / size)
        best = max(best, again, key=lambda one: (one.found, one.tag is not None, one.score))
    return best


def trace(luma: np.ndarray, size: float = 1.0) -> Trace:
    """The watermark at its own size, at any shift."""
    spectrum = white(np.fft.rfft2(folded(residual(luma))))
    agreement = [correlation(spectrum, index) for index in range(SYMBOLS + 1)]
    weights = np.sqrt([len(places) for places in patterns().places])
    best = None
    for down, right in peaks(agreement[0]):
        moved = [np.roll(one, (-down, -right), (0, 1))[::STEP, ::STEP] for one in agreement[1:]]
        symbols = [int(one.argmax()) for one in moved]
        heights = [agreement[0][down, right], *(one.max() for one in moved)]
        score = float(np.dot(heights, weights) / np.linalg.norm(weights))
        found = Trace(decode(symbols), score, float(agreement[0].max()), size)
        best = found if best is None or (found.tag is not None, score) > (best.tag is not None, best.score) else best
    return best


def residual(luma: np.ndarray) -> np.ndarray:
    """[H, W] what is fine in a picture, of about the same contrast everywhere."""
    import cv2

    fine = luma - cv2.GaussianBlur(luma, (0, 0), HIGH_PASS)
    contrast = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), CONTRAST)) + FLOOR
    return np.clip(fine / contrast, -CLIP, CLIP)


def folded(picture: np.ndarray) -> np.ndarray:
    """[128, 128]: all tiles of a picture added up, divided by the root of how many pixels met."""
    rows, columns = (-(-length // PERIOD) * PERIOD for length in picture.shape)
    room = ((0, rows - picture.shape[0]), (0, columns - picture.shape[1]))
    fold = lambda one: np.pad(one, room).reshape(rows // PERIOD, PERIOD, columns // PERIOD, PERIOD).sum((0, 2))
    return fold(picture) / np.sqrt(np.maximum(fold(np.ones(picture.shape, np.float32)), 1))


def white(spectrum: np.ndarray) -> np.ndarray:
    """A spectrum [128, 65] whose power is about 1 everywhere, so that the picture's strongest frequencies do not drown the rest."""
    import cv2

    power = np.fft.fftshift(np.abs(spectrum) ** 2, 0).astype(np.float32)
    power = cv2.GaussianBlur(power, (0, 0), SMOOTH_POWER, borderType=cv2.BORDER_REFLECT)
    return spectrum / np.sqrt(np.fft.ifftshift(power, 0) + 1e-12)


def correlation(spectrum: np.ndarray, index: int) -> np.ndarray:
    """[128, 128] agreement of a folded picture with a pattern at every shift, in its own standard deviations."""
    shape = patterns()
    places, part = shape.places[index], np.zeros(spectrum.size, complex)
    part[places] = spectrum.ravel()[places] * shape.phases[places].conj()
    surface = np.fft.irfft2(part.reshape(frequencies()[0].shape), s=(PERIOD, PERIOD))
    return surface / max(surface.std(), 1e-12)


def peaks(surface: np.ndarray) -> list[tuple[int, int]]:
    """The shifts of greatest agreement, no two of them close together."""
    surface, found = surface.copy(), []
    for _ in range(CANDIDATES):
        down, right = (int(place) for place in np.unravel_index(surface.argmax(), surface.shape))
        found.append((down, right))
        surface[np.ix_(np.arange(down - 2, down + 3) % PERIOD, np.arange(right - 2, right + 3) % PERIOD)] = -np.inf
    return found
