"""Finding the watermark again: in a video that was compressed, cropped or resized since."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Sequence

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
WORTH_READING = 5.0
"""of the searched pattern, at sizes that are only tried"""
LEAST_SYNC = 8.0
"""of the searched pattern alone, for a mark whose bits cannot be read"""
SIZES = np.exp(np.arange(np.log(0.4), np.log(2.5), 0.008))
"""enlargements that are tried, to undo a video's resizing; half a step moves the rim of the window by one pixel"""
WINDOW = 512
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
        again = trace(cv2.resize(part, None, fx=size, fy=size, interpolation=way), 1 / size, WORTH_READING)
        best = max(best, again, key=lambda one: (one.found, one.tag is not None, one.score))
    return best


def trace(luma: np.ndarray, size: float = 1.0, least: float = 0.0) -> Trace:
    """The watermark at its own size, at any shift; its bits are not read where the searched pattern does not reach `least`."""
    spectrum = white(np.fft.rfft2(folded(residual(luma))))
    searched = correlation(spectrum, 0)
    sync = float(searched.max())
    best = Trace(None, 0.0, sync, size)
    if sync < least:
        return best
    carriers = [correlation(spectrum, index) for index in range(1, SYMBOLS + 1)]
    weights = np.sqrt([len(places) for places in patterns().places])
    for down, right in peaks(searched):
        moved = [np.roll(one, (-down, -right), (0, 1))[::STEP, ::STEP] for one in carriers]
        heights = [searched[down, right], *(one.max() for one in moved)]
        found = Trace(read([one.ravel() for one in moved]), float(np.dot(heights, weights) / np.linalg.norm(weights)), sync, size)
        best = max(best, found, key=lambda one: (one.tag is not None, one.score))
    return best


def read(carriers: Sequence[np.ndarray]) -> Optional[int]:
    """The tag of five times the agreement [1024] with each symbol; where check bits do not hold, one symbol may be the second best."""
    ranks = [np.argsort(one)[-2:].tolist() for one in carriers]
    best = [rank[1] for rank in ranks]
    tries = [best, *(best[:place] + [rank[0]] + best[place + 1:] for place, rank in enumerate(ranks))]
    return next((tag for tag in map(decode, tries) if tag is not None), None)


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
