"""The visible label: a short text in the lower left corner of every frame."""
from __future__ import annotations

import numpy as np

from s3dnerf.planar import BLACK, GREY, SPAN, is_planar

SHARE, LEAST = 0.04, 13
"""height of the letters: share of the frame's short side, and pixels at least"""
VEIL = 0.55
"""how far the picture behind the text is darkened"""


class Label:
    """White letters on a darkened stripe, drawn once and laid over every frame.

    Args:
        text: one line; letters shrink where it is too wide.
        width: of the frames, pixels.
        height: of the frames, pixels.
    """

    def __init__(self, text: str, width: int, height: int):
        size = max(LEAST, round(SHARE * min(width, height)))
        picture = _drawn(text, size)
        while picture.shape[1] > 0.9 * width and size > 6:
            size -= 1
            picture = _drawn(text, size)
        letters = picture[:height, :width, None].astype(np.float32) / 255
        top, left = height - letters.shape[0] - size // 2, size // 2
        top, left = max(0, top), min(left, width - letters.shape[1])
        self.place = slice(top, top + letters.shape[0]), slice(left, left + letters.shape[1])
        self.keep, self.add = (1 - VEIL) * (1 - letters), 255 * letters

    def frame(self, frame: np.ndarray) -> np.ndarray:
        """A frame [H, W, 3] uint8, or a planar one (`planar.py`), with the label; the one that is given stays as it was."""
        frame = frame.copy()
        if is_planar(frame):
            return self._planar(frame)
        frame[self.place] = np.rint(frame[self.place] * self.keep + self.add).astype(np.uint8)
        return frame

    def _planar(self, frame: np.ndarray) -> np.ndarray:
        """The same of brightness; what is dark or white has no colour, which is mixed with the mean of its four pixels."""
        height, width = len(frame) * 2 // 3, frame.shape[1]
        keep, add = np.ones((height, width), np.float32), np.zeros((height, width), np.float32)
        keep[self.place], add[self.place] = self.keep[..., 0], self.add[..., 0]
        bright, colour = frame[:height], frame[height:].reshape(2, height // 2, width // 2)
        bright[:] = np.rint((bright.astype(np.float32) - BLACK) * keep + add * SPAN + BLACK)
        share = keep.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
        colour[:] = np.rint((colour.astype(np.float32) - GREY) * share + GREY)
        return frame


def _drawn(text: str, size: int) -> np.ndarray:
    """[h, w] uint8: how much of each pixel the letters cover, with a margin."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    margin = max(2, size // 4)
    image = Image.new("L", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, fill=255, font=font)
    return np.asarray(image)
